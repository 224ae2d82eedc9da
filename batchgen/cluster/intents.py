"""Intents: objects that say, before paid requests leave, that they may have been sent.

The sender of the request of an attempt first puts ``spool/EPOCH/ATTEMPT.intent``, create-only, and
then puts its whole response as ``spool/EPOCH/ATTEMPT.response``, before the response counts as
received. So a driver that lost its ledger finds each request that may have been paid for::

    store.put(intent_name(epoch, attempt), intent.as_json(), create=True)

Requests that leave together share one object, ``spool/EPOCH/ATTEMPT-ATTEMPT.intent``, with a line
for each. Its name has all attempts, so that a listing is enough to know them. An intent has all
that the ledger needs to record its attempt again. It may be deleted after the ends of all its
attempts are in a backup of the ledger.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

import orjson

from batchgen.job import AttemptId
from batchgen.money import Micros
from batchgen.storage.store import Store, StoreError

WITHDRAWN: Final = b"withdrawn by the driver: this attempt is never sent\n"
"""In place of an intent: its name is taken, so that the request cannot be sent any more."""
SPOOL_PREFIX: Final = "spool/"
_INTENT: Final = ".intent"
_RESPONSE: Final = ".response"
_AND: Final = "-"
MAX_TOGETHER: Final = 7
"""Attempts of one object, whose name must also be possible as that of a file (255 bytes)."""
_NAME: Final = re.compile(
    rf"{SPOOL_PREFIX}(?P<epoch>[0-9]+)/(?P<attempts>[0-9a-f]+({_AND}[0-9a-f]+)*)"
    rf"({re.escape(_INTENT)}|{re.escape(_RESPONSE)})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """An attempt that is recorded, and whose request may leave now."""

    attempt: AttemptId
    epoch: int
    """Of the lease under which the request was ordered."""
    batch: str
    key: str
    """Key of the job."""
    fingerprint: str
    provider: str
    model: str
    price: Micros
    """What the attempt reserves."""
    least: Micros | None
    """The cheapest price, where an option that decides it is not set."""
    price_known: bool
    started_at: str
    """As the ledger writes times."""

    @property
    def name(self) -> str:
        """The name of its object."""
        return intent_name(self.epoch, self.attempt)

    def as_json(self) -> bytes:
        """Return the content of its object."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse the content of an object. Fields of a newer release are ignored.

        Raises ValueError.
        """
        try:
            found = json.loads(data)
            return cls(**{name: found[name] for name in cls.__slots__})
        except (TypeError, KeyError) as exc:
            raise ValueError(f"not an intent of batchgen: {exc!r}") from None


def intent_name(epoch: int, *attempts: AttemptId) -> str:
    """Return the name of the object with the intents of attempts that are sent together."""
    return f"{SPOOL_PREFIX}{epoch}/{_AND.join(attempts)}{_INTENT}"


def response_name(epoch: int, attempt: AttemptId) -> str:
    """Return the name of the whole response to an attempt."""
    return f"{SPOOL_PREFIX}{epoch}/{attempt}{_RESPONSE}"


def put_once(store: Store, name: str, data: bytes) -> str | None:
    """Put an object that must not exist; return why it is not ours. Raises OSError.

    The response to a put may have been lost: an object with this content is ours.
    """
    try:
        store.put(name, data, create=True)
    except FileExistsError:
        if store.read(name) != data:
            return f"{name} exists: this attempt was given up"
    return None


def withdraw(store: Store, name: str) -> bool:
    """Take the name of intents; return False if they were put before. Raises OSError.

    They are looked for first: a service may ignore conditions that it honored before the run, and
    the put would replace what says that the requests may have been sent.
    """
    with suppress(FileNotFoundError):
        return store.read(name) == WITHDRAWN
    try:
        store.put(name, WITHDRAWN, create=True)
    except FileExistsError:
        return store.read(name) == WITHDRAWN
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolObject:
    """The intent or the response of an attempt in a bucket."""

    name: str
    """Of its object, which may have the intents of several attempts."""
    epoch: int
    attempt: AttemptId
    is_response: bool


def spool_objects(store: Store) -> Iterator[SpoolObject]:
    """Yield the intents and responses of all epochs, unordered. Raises StoreError."""
    for one in store.list(SPOOL_PREFIX):
        found = _NAME.fullmatch(one.name)
        if found is not None:
            for attempt in found["attempts"].split(_AND):
                yield SpoolObject(
                    name=one.name,
                    epoch=int(found["epoch"]),
                    attempt=AttemptId(attempt),
                    is_response=one.name.endswith(_RESPONSE),
                )


def names_of_all(objects: Iterable[SpoolObject], attempts: Container[AttemptId]) -> list[str]:
    """Return the names of the objects that have nothing but these attempts."""
    found: dict[str, bool] = {}
    for one in objects:
        found[one.name] = found.get(one.name, True) and one.attempt in attempts
    return [name for name, is_whole in found.items() if is_whole]


def read_intent(store: Store, one: SpoolObject) -> Intent | None:
    """Return an intent; None if it was deleted or withdrawn meanwhile. Raises StoreError."""
    try:
        data = store.read(one.name)
        if data == WITHDRAWN:
            return None
        intents = [Intent.from_json(line) for line in data.splitlines() or [data]]
        return next(intent for intent in intents if intent.attempt == one.attempt)
    except FileNotFoundError:
        return None
    except StopIteration:
        raise StoreError(22, f"no intent of {one.attempt}", f"{store.url}/{one.name}") from None
    except ValueError as exc:
        raise StoreError(22, str(exc), f"{store.url}/{one.name}") from None
