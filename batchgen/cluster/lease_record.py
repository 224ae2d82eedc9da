"""The object that is a lease: its content, and how one content replaces another."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote

from batchgen.errors import SettingsError
from batchgen.storage.store import StaleObjectError, Store
from batchgen.system.process_owner import Owner

LOCK_PREFIX: Final = "lock/"
WHOLE_LEDGER: Final = ""
"""In place of a batch: the lease of a ledger in a bucket, with all of its batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """The content of the object. It changes with each put, so its tag does too."""

    epoch: int
    token: str
    """Random; identifies one acquired lease."""
    renewals: int
    is_held: bool
    owner: Owner
    waits: bool = False
    """Whether a run that it was taken from may still send requests."""

    def as_json(self) -> bytes:
        content = {
            "epoch": self.epoch,
            "token": self.token,
            "renewals": self.renewals,
            "held": self.is_held,
            "waits": self.waits,
            "owner": json.loads(self.owner.as_json()),
        }
        return json.dumps(content, ensure_ascii=False, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes, place: str) -> Self:
        """Parse the content of an object. Raises SettingsError for that of another program."""
        try:
            found = json.loads(data)
            return cls(
                epoch=int(found["epoch"]),
                token=str(found["token"]),
                renewals=int(found["renewals"]),
                is_held=bool(found["held"]),
                waits=bool(found.get("waits")),
                owner=Owner.from_json(json.dumps(found["owner"])),
            )
        except (ValueError, TypeError, KeyError) as exc:
            raise SettingsError(
                f"{place}: not a lease of batchgen: {exc!r}; expected no object, or one that"
                " batchgen wrote. Delete it if no run of the batch is alive; nothing was sent"
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLease:
    """A record as it is in the bucket."""

    record: LeaseRecord
    tag: str


def lease_name(batch: str) -> str:
    """Return the name of the object that is the lease of a batch, or of `WHOLE_LEDGER`."""
    if batch == WHOLE_LEDGER:
        return "lock.json"
    return f"{LOCK_PREFIX}{quote(batch, safe='')}.json"


def read_lease(store: Store, name: str) -> FoundLease | None:
    """Return the lease in the bucket; None if it is missing. Raises OSError, SettingsError.

    The tag is read first. If the object changes in between, a put by that tag is refused.
    """
    info = store.info(name)
    if info is None:
        return None
    try:
        data = store.read(name)
    except FileNotFoundError:
        return None
    return FoundLease(record=LeaseRecord.from_json(data, f"{store.url}/{name}"), tag=info.e_tag)


def swap_lease(store: Store, name: str, record: LeaseRecord, tag: str | None) -> str | None:
    """Write a record in place of the object with that tag, or as a new object.

    Return the new tag; None if another driver was faster. Raises OSError.
    """
    data = record.as_json()
    try:
        return store.put(name, data, create=tag is None, if_tag=tag).e_tag
    except (FileExistsError, StaleObjectError):
        pass
    # The service may have stored the object, and its response was lost.
    info = store.info(name)
    with suppress(FileNotFoundError):
        if info is not None and store.read(name) == data:
            return info.e_tag
    return None
