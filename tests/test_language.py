"""Code, tests and pages avoid banned words and long test names."""

from __future__ import annotations

import pytest

from tests.support import language

FOUND = language.counts()
PENDING = language.pending()


@pytest.mark.parametrize("rule", ["words", "names"])
def test_language_hits_only_fall(rule: str) -> None:
    """``python -m tests.support.language PATH`` lists the hits of a path."""
    allowed = PENDING[rule]
    more = {
        prefix: f"{count} > {allowed.get(prefix, 0)}"
        for prefix, count in FOUND[rule].items()
        if count > allowed.get(prefix, 0)
    }
    assert more == {}


@pytest.mark.parametrize("rule", ["words", "names"])
def test_cleared_paths_leave_the_pending_list(rule: str) -> None:
    """``python -m tests.support.language --update`` removes them."""
    assert [prefix for prefix in PENDING[rule] if prefix not in FOUND[rule]] == []


@pytest.mark.parametrize(
    "text", ["a picture", "it stands here", "asked for", "Behind it", "an address", "is no URL"]
)
def test_banned_word_is_found(text: str) -> None:
    assert language.BANNED.search(text)


@pytest.mark.parametrize("text", ["an IP address", "an image", "is not a URL", "the response"])
def test_plain_words_are_allowed(text: str) -> None:
    assert not language.BANNED.search(text)
