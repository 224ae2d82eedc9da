"""Redaction hides a secret wherever the stream is split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.spool.redaction import Redaction

SECRETS = [b"sk-ab", b"aab", b"a-a-a", b"-x", b"aXb_-"]
"""With and without a non-base64 character, at several indexes; some overlap with themselves."""


def redacted(secret: bytes, pieces: list[bytes]) -> bytes:
    redaction = Redaction(secret)
    return b"".join([*(redaction.filter(piece) for piece in pieces), redaction.flush()])


@given(secret=st.sampled_from(SECRETS), data=st.data())
def test_redaction_is_independent_of_chunking(secret: bytes, data: st.DataObject) -> None:
    letters = st.sampled_from([bytes([letter]) for letter in set(secret) | set(b"z")])
    text = st.lists(letters | st.just(secret), max_size=12).map(b"".join)
    pieces = data.draw(st.lists(text, max_size=6))
    assert redacted(secret, pieces) == b"".join(pieces).replace(secret, b"***")


@pytest.mark.parametrize("secret", SECRETS)
def test_secret_split_in_three_is_redacted(secret: bytes) -> None:
    whole = b"before " + secret + b" after"
    for first in range(len(whole)):
        for second in range(first, len(whole)):
            pieces = [whole[:first], whole[first:second], whole[second:]]
            assert redacted(secret, pieces) == b"before *** after"


def test_only_a_possible_start_is_held_back() -> None:
    redaction = Redaction(b"sk-abc")
    assert redaction.filter(b"AAAAsAAA") == b"AAAAsAAA"
    assert redaction.filter(b"AAAAsk") == b"AAAA"
    assert redaction.filter(b"y") == b"sky"
    assert redaction.flush() == b""
