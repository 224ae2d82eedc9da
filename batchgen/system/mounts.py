"""Read from the system what is mounted where, and which file systems are local (Linux only)."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")
_LOCAL: Final = frozenset(b"bcachefs btrfs ext2 ext3 ext4 f2fs overlay tmpfs xfs zfs".split())
"""File systems of this machine alone, with working locks and shared memory."""


def mount_points(mounts: bytes | None = None) -> dict[bytes, bytes]:
    """Return the file system type of each mount point (proc_pid_mountinfo(5), fields 5 and 9).

    ``mounts`` is the text of the file; None reads it. Empty where the system has none.
    """
    found = {}
    for line in (_read() if mounts is None else mounts).splitlines():
        place, _, source = line.partition(b" - ")
        fields = place.split(b" ")
        if len(fields) > 4:
            found[_OCTAL.sub(_octet, fields[4])] = source.partition(b" ")[0]
    return found


def is_local(directory: Path, mounts: bytes | None = None) -> bool:
    """Return whether a directory is known to be on a local file system; False if unknown."""
    known = mount_points(mounts)
    path = directory.resolve()
    for place in (path, *path.parents):
        kind = known.get(os.fsencode(place))
        if kind is not None:
            return kind in _LOCAL
    return False


def _read() -> bytes:
    with suppress(OSError):
        return _MOUNTS.read_bytes()
    return b""


def _octet(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])
