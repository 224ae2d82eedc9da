"""Intents: written, listed and read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.cluster.intents import (
    MAX_TOGETHER,
    Intent,
    intent_name,
    names_of_all,
    put_once,
    read_intent,
    response_name,
    spool_objects,
    withdraw,
)
from batchgen.job import AttemptId
from batchgen.money import Micros
from batchgen.storage.local import LocalStore
from batchgen.storage.store import ObjectInfo, StoreError

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


def test_intents_of_one_object_are_read_one_by_one(tmp_path: Path) -> None:
    store, attempts = LocalStore(tmp_path), [AttemptId(f"{n:032x}") for n in range(MAX_TOGETHER)]
    intents = [replace(INTENT, attempt=attempt) for attempt in attempts]
    data = b"\n".join(intent.as_json() for intent in intents)
    assert put_once(store, intent_name(3, *attempts), data) is None
    found = {one.attempt: read_intent(store, one) for one in spool_objects(store)}
    assert found == {intent.attempt: intent for intent in intents}


def test_withdrawn_intents_can_never_be_put(tmp_path: Path) -> None:
    store, name = LocalStore(tmp_path), intent_name(3, AttemptId("0a"), AttemptId("0b"))
    assert withdraw(store, name)
    assert withdraw(store, name), "each attempt of the object asks"
    assert put_once(store, name, b"{}") is not None
    assert [read_intent(store, one) for one in spool_objects(store)] == [None, None]
    put_once(store, INTENT.name, INTENT.as_json())
    assert not withdraw(store, INTENT.name)


def test_intents_stay_while_one_attempt_needs_them(tmp_path: Path) -> None:
    store, one, other = LocalStore(tmp_path), AttemptId("0a"), AttemptId("0b")
    shared, response = intent_name(3, one, other), response_name(3, one)
    for name in (shared, response):
        store.put(name, b"")
    objects = list(spool_objects(store))
    assert names_of_all(objects, {one}) == [response]
    assert sorted(names_of_all(objects, {one, other})) == sorted([shared, response])


class ForgetfulStore(LocalStore):
    """A store that honors no condition any more."""

    def put(
        self, name: str, data: bytes, *, create: bool = False, if_tag: str | None = None
    ) -> ObjectInfo:
        return super().put(name, data)


def test_intents_are_not_withdrawn_from_a_store_that_replaces(tmp_path: Path) -> None:
    """A request that may have been sent must not count as one that never is."""
    store = ForgetfulStore(tmp_path)
    assert put_once(store, INTENT.name, INTENT.as_json()) is None
    assert not withdraw(store, INTENT.name)
    assert store.read(INTENT.name) == INTENT.as_json()
