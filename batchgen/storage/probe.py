"""Find out before the money whether a store can be used and which conditions it honors."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from batchgen.errors import SettingsError
from batchgen.storage.store import StaleObjectError, Store

_BEFORE = b"batchgen writes and deletes this object before a run\n"
_AFTER = b"batchgen overwrote this object with a condition\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAbilities:
    """The conditions of a put that a store honors."""

    create_only: bool
    """A put that must not replace an object does not."""
    compare_and_swap: bool
    """A put that must replace one certain object replaces no other."""

    @property
    def is_safe(self) -> bool:
        return self.create_only and self.compare_and_swap


def probe(store: Store) -> StoreAbilities:
    """Write, read, overwrite and delete a small object. Raises SettingsError if any fails."""
    name = f".batchgen-probe-{os.urandom(8).hex()}.txt"
    try:
        written = store.put(name, _BEFORE, create=True)
        try:
            create_only = _is_refused(store, name, create=True)
            # No object has this tag, with or without the put above.
            swaps = _is_refused(store, name, if_tag=f'"{"0" * 32}"')
            if create_only and swaps:
                store.put(name, _AFTER, if_tag=written.e_tag)
                if store.read(name) != _AFTER:
                    raise OSError(5, "an object has other content than was written", name)
        finally:
            with suppress(OSError):
                store.delete(name)
    except (OSError, StaleObjectError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise SettingsError(f"{store.url}: not usable: {reason}; nothing was sent") from exc
    return StoreAbilities(create_only=create_only, compare_and_swap=swaps)


def _is_refused(
    store: Store, name: str, *, create: bool = False, if_tag: str | None = None
) -> bool:
    try:
        store.put(name, _BEFORE, create=create, if_tag=if_tag)
    except (FileExistsError, StaleObjectError):
        return True
    return False
