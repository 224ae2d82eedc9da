"""A ledger file has one name: locks, journal and spool are found by the name."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from batchgen.errors import LedgerError
from batchgen.system.mounts import mount_points


def check_single_name(path: Path) -> None:
    """Refuse a ledger file that has a second name.

    SQLite finds its journal, and batchgen its lock and spool, by the name. Under two names a
    crash damages the file (https://www.sqlite.org/howtocorrupt.html, section 2.5), and two runs buy
    the same images. Raises LedgerError.
    """
    try:
        found = path.stat()
    except OSError:
        return
    if not stat.S_ISREG(found.st_mode):
        return
    if found.st_nlink > 1:
        _check_links(path)
    if os.fsencode(path) in mount_points():
        raise LedgerError(
            f"{path}: the ledger is a mount of a single file; expected a mount of its directory,"
            " which also holds its lock, journal and spool: for example"
            f" `-v ./shop:{path.parent}` in place of `-v ./shop/{path.name}:{path}`"
        )


def _check_links(path: Path) -> None:
    others = [one for one in path.parent.iterdir() if one != path and _same(one, path)]
    for other in others:
        # A ledger is created under such a name; a kill, or another start just now, leaves both.
        if other.name.startswith(f".{path.name}."):
            other.unlink(missing_ok=True)
    count = path.stat().st_nlink
    if count > 1:
        names = ", ".join(one.name for one in others if one.exists())
        here = f" (here: {names})" if names else ""
        raise LedgerError(
            f"{path}: the ledger file has {count} names (hard links){here}; expected one, since"
            " lock, journal and spool are found by the name. Remove the others (find them with"
            f" `find DIR -samefile {path.name}`); for a second name use a symbolic link, for a"
            " backup a copy"
        )


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(one.lstat(), other.stat())
    return False
