"""Read process facts from the system: boot id, start time, user, command, file locks."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

from batchgen.system.process_owner import Here, Owner, shown_command

_PROC: Final = Path("/proc")
_START_FIELD: Final = 19
"""Index after the name in ``/proc/PID/stat``; it is field 22 (proc_pid_stat(5))."""


def this_process(lock: str = "") -> Here:
    """Describe this process; ``lock`` is the device and inode of the lock file it holds."""
    pid = os.getpid()
    me = Owner(
        host=socket.gethostname(),
        boot=_boot_id(),
        namespace=_link(_PROC / "self/ns/pid"),
        pid=pid,
        started=started_of(pid) or "",
        user=user_name(),
        command=command_of(pid) or shown_command(sys.argv),
        lock=lock,
    )
    return Here(me=me, started_of=started_of, up_since=_up_since())


@cache
def _boot_id() -> str:
    with suppress(OSError):
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return ""


def _up_since() -> datetime | None:
    """Return the boot time of the system; None if unavailable."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is None:
        return None
    return datetime.now(UTC) - timedelta(seconds=time.clock_gettime(clock))


def _link(path: Path) -> str:
    with suppress(OSError):
        return str(path.readlink())
    return ""


def user_name() -> str:
    """Return the name of this process's user; the number where the system has no name for it."""
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return str(os.getuid()) if hasattr(os, "getuid") else ""


def started_of(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot; None if it does not exist.

    Empty if the process exists, or may exist, and its start time cannot be read.
    """
    if pid <= 0:
        return None
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None if (_PROC / "self/stat").exists() else _if_it_exists(pid)
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    # A zombie holds no locks and sends nothing, so it counts as gone.
    return None if fields[0] in ("Z", "X") else fields[_START_FIELD]


def _if_it_exists(pid: int) -> str | None:
    """Return empty for a process that exists, else None; for systems without ``/proc``."""
    if sys.platform == "win32":  # signal 0 is Ctrl-C on Windows
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return ""
    return ""


def command_of(pid: int) -> str:
    """Return the command line of a process for messages; empty if unreadable."""
    try:
        line = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    arguments = line.rstrip(b"\0").decode(errors="replace").split("\0")
    return shown_command(arguments) if line else ""


def user_of(pid: int) -> str:
    """Return the user of a process; empty if unreadable."""
    try:
        number = (_PROC / str(pid)).stat().st_uid
    except OSError:
        return ""
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return str(number)


def began_at(pid: int) -> datetime | None:
    """Return the start time of a process by the wall clock; None if unreadable."""
    ticks, up_since = started_of(pid), _up_since()
    if not ticks or up_since is None:
        return None
    return up_since + timedelta(seconds=int(ticks) / os.sysconf("SC_CLK_TCK"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that locks a file or has it open."""

    pid: int
    """0 for a process in another container, whose id is not visible here."""
    writes: bool

    def __str__(self) -> str:
        does = "writing" if self.writes else "reading"
        if not self.pid:
            return f"a process of another container, which is {does}"
        command = command_of(self.pid)
        user = user_of(self.pid)
        return (
            f"pid {self.pid}"
            + (f" of {user}" if user else "")
            + (f" ({command})" if command else "")
            + f", which is {does}"
        )


def holders(path: Path) -> list[Holder]:
    """Return the other processes that lock a file, on Linux; writers first.

    Falls back to processes that have the file open. Empty if the system does not say.
    """
    try:
        inode = path.stat().st_ino
        locks = (_PROC / "locks").read_text()
    except OSError:
        return []
    found: dict[int, bool] = {}
    for line in locks.splitlines():
        fields = line.split()
        if "->" in fields or len(fields) < 6 or not fields[5].endswith(f":{inode}"):
            continue
        pid = max(0, int(fields[4]))
        if pid != os.getpid() and (not pid or _has_open(pid, path) is not False):
            found[pid] = found.get(pid, False) or fields[3] == "WRITE"
    if not found:
        found = {pid: False for pid in _pids() if pid != os.getpid() and _has_open(pid, path)}
    return [Holder(pid=pid, writes=writes) for pid, writes in sorted(found.items(), key=_writers)]


def _writers(item: tuple[int, bool]) -> tuple[bool, int]:
    return not item[1], item[0]


def _pids() -> list[int]:
    with suppress(OSError):
        return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]
    return []


def _has_open(pid: int, path: Path) -> bool | None:
    """Return whether a process has a file open; None if that is not visible."""
    try:
        handles = list((_PROC / str(pid) / "fd").iterdir())
        file = path.stat()
    except OSError:
        return None
    for handle in handles:
        with suppress(OSError):
            if os.path.samestat(handle.stat(), file):
                return True
    return False


def inode_of(handle: int | Path) -> str:
    """Return device and inode, which identify a file under any name; empty if it is missing."""
    with suppress(OSError):
        found = os.fstat(handle) if isinstance(handle, int) else handle.stat()
        return f"{found.st_dev}:{found.st_ino}"
    return ""
