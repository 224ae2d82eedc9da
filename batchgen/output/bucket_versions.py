"""Version history of replaced objects in a bucket; the names are those of `previous_versions`.

An object is copied into the history before it is replaced, so that it exists at all times.
"""

from __future__ import annotations

from itertools import count as count_from

from batchgen.output.previous_versions import MAX_KEPT, edited_name, version_names
from batchgen.storage.store import Store


def keep_object(store: Store, path: str, *, count: int) -> None:
    """Keep an object and up to ``count`` versions in total. Raises OSError.

    Calling it again after a kill keeps no object twice and loses none.
    """
    slots = list(version_names(path, count))
    current = store.digest(path)
    digests = [store.digest(slots[0])]
    if digests[0] == current:
        return
    free = 0
    # A version that a killed call has copied onwards is there twice; its first place is free.
    while digests[free] is not None and free + 1 < len(slots):
        digests.append(store.digest(slots[free + 1]))
        if digests[free] == digests[free + 1]:
            break
        free += 1
    for at in range(free, 0, -1):
        store.copy(slots[at - 1], slots[at])
    store.copy(path, slots[0])


def keep_edited_object(store: Store, path: str) -> None:
    """Copy an object that differs from its record into the history, for good. Raises OSError."""
    current = store.digest(path)
    for number in count_from(1):
        name = edited_name(path, number)
        found = store.digest(name)
        if found is None:
            store.copy(path, name)
        if found is None or found == current:
            return


def find_kept_object(store: Store, path: str, sha256: str) -> str | None:
    """Return the name of the kept version of an object with this content, if it exists."""
    prefix = f"{edited_name(path, 0).removesuffix('edited0')}"
    kept = sorted(one.name for one in store.list(prefix))
    numbered = set(version_names(path, MAX_KEPT + 1))
    for name in kept:
        if (name in numbered or name.startswith(f"{prefix}edited")) and (
            store.digest(name) == sha256
        ):
            return name
    return None
