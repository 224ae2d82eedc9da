"""What an actor says of itself before a run, and which differences refuse the run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchgen.cluster.messages import greeting

OURS = greeting("here", "sk-one", b"nonce")
DIFFERENT = {
    "batchgen": replace(OURS, batchgen="0.0.1"),
    "Python": replace(OURS, python="3.9"),
    "API key": greeting("there", "sk-two", b"nonce"),
    "lacks the key": greeting("there", None, b"nonce", problem="this machine lacks the key"),
}


@pytest.mark.parametrize("what", sorted(DIFFERENT))
def test_actor_that_differs_is_refused(what: str) -> None:
    assert what in DIFFERENT[what].difference(OURS)


def test_actor_with_the_same_versions_and_key_is_used() -> None:
    assert greeting("there", "sk-one", b"nonce").difference(OURS) == ""


def test_greeting_has_no_key_and_no_lasting_digest_of_it() -> None:
    assert "sk-one" not in repr(OURS)
    assert greeting("here", "sk-one", b"other").key_digest != OURS.key_digest
