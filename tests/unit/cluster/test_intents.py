"""Intents: written, listed and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.cluster.intents import Intent, read_intent, response_name, spool_objects
from batchgen.job import AttemptId
from batchgen.money import Micros
from batchgen.storage.local import LocalStore
from batchgen.storage.store import StoreError

INTENT = Intent(
    attempt=AttemptId("0123abcd"),
    epoch=3,
    batch="catalog/ä",
    key="mug\n1",
    fingerprint="f" * 64,
    provider="local",
    model="gpt-image-2",
    price=Micros(37_700),
    least=None,
    price_known=True,
    started_at="2026-11-28T06:00:00.000Z",
)


def test_intents_are_listed_with_their_responses(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put(INTENT.name, INTENT.as_json(), create=True)
    store.put(response_name(3, INTENT.attempt), b"{}\n", create=True)
    store.put("spool/notes.txt", b"of another program")
    found = sorted(spool_objects(store), key=lambda one: one.is_response)
    assert [(one.epoch, one.attempt, one.is_response) for one in found] == [
        (3, "0123abcd", False),
        (3, "0123abcd", True),
    ]
    assert read_intent(store, found[0]) == INTENT
    with pytest.raises(FileExistsError):
        store.put(INTENT.name, INTENT.as_json(), create=True)
    store.delete(INTENT.name)
    assert read_intent(store, found[0]) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_damaged_intent_is_named(content: bytes, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put(INTENT.name, content)
    (found,) = spool_objects(store)
    with pytest.raises(StoreError) as error:
        read_intent(store, found)
    assert INTENT.name in str(error.value)
