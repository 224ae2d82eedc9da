"""Code, tests and pages avoid banned words and long test names."""

from __future__ import annotations

import pytest

from tests.support import language

FOUND = language.counts()
PENDING = language.pending()


@pytest.mark.parametrize("rule", language.RULES)
def test_language_hits_only_fall(rule: str) -> None:
    """``python -m tests.support.language PATH`` lists the hits of a path."""
    allowed = PENDING[rule]
    more = {
        prefix: f"{count} > {allowed.get(prefix, 0)}"
        for prefix, count in FOUND[rule].items()
        if count > allowed.get(prefix, 0)
    }
    assert more == {}


@pytest.mark.parametrize("rule", language.RULES)
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


@pytest.mark.parametrize(
    "code",
    [
        "def test_what_is_no_url(): ...",
        "def _told(): ...",
        "def test_run_is_none_of_this_batch(): ...",
        "class OpenDoubts: ...",
        "def ask(in_doubt): ...",
        "for goes_on in (): ...",
        "self.bought_again = 1",
        "import urllib as folder",
        "match x:\n    case {'a': address}: ...",
    ],
)
def test_banned_word_in_a_defined_identifier_is_found(code: str) -> None:
    assert [*language.banned_definitions(code)]


@pytest.mark.parametrize(
    "code",
    [
        "def _is_none(ip_address): ...",
        "def test_status_answered(): ...",
        "from email.headerregistry import Address",
        "convert(output_folder=x)",
        "node.gcs_address",
        "job.doubts = 1",
    ],
)
def test_plain_or_foreign_identifiers_are_allowed(code: str) -> None:
    assert not [*language.banned_definitions(code)]
