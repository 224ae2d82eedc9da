"""Intents: objects that say, before a paid request leaves, that it may have been sent.

The sender of the request of an attempt first puts ``spool/EPOCH/ATTEMPT.intent``, create-only, and
then puts its whole response as ``spool/EPOCH/ATTEMPT.response``, before the response counts as
received. So a driver that lost its ledger finds each request that may have been paid for::

    store.put(intent_name(epoch, attempt), intent.as_json(), create=True)

An intent has all that the ledger needs to record its attempt again. It may be deleted after the end
of the attempt is in a backup of the ledger.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final, Self

from batchgen.job import AttemptId
from batchgen.money import Micros
from batchgen.storage.store import Store, StoreError

WITHDRAWN: Final = b"withdrawn by the driver: this attempt is never sent\n"
"""In place of an intent: its name is taken, so that the request cannot be sent any more."""
SPOOL_PREFIX: Final = "spool/"
_INTENT: Final = ".intent"
_RESPONSE: Final = ".response"
_NAME: Final = re.compile(
    rf"{SPOOL_PREFIX}(?P<epoch>[0-9]+)/(?P<attempt>[0-9a-f]+)({re.escape(_INTENT)}"
    rf"|{re.escape(_RESPONSE)})"
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
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True).encode()

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


def intent_name(epoch: int, attempt: AttemptId) -> str:
    """Return the name of the intent of an attempt."""
    return f"{SPOOL_PREFIX}{epoch}/{attempt}{_INTENT}"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolObject:
    """An intent or a response in a bucket."""

    name: str
    epoch: int
    attempt: AttemptId
    is_response: bool


def spool_objects(store: Store) -> Iterator[SpoolObject]:
    """Yield the intents and responses of all epochs, unordered. Raises StoreError."""
    for one in store.list(SPOOL_PREFIX):
        found = _NAME.fullmatch(one.name)
        if found is not None:
            yield SpoolObject(
                name=one.name,
                epoch=int(found["epoch"]),
                attempt=AttemptId(found["attempt"]),
                is_response=one.name.endswith(_RESPONSE),
            )


def read_intent(store: Store, one: SpoolObject) -> Intent | None:
    """Return an intent; None if it was deleted or withdrawn meanwhile. Raises StoreError."""
    try:
        data = store.read(one.name)
        return None if data == WITHDRAWN else Intent.from_json(data)
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise StoreError(22, str(exc), f"{store.url}/{one.name}") from None
