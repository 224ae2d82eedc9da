"""The process that owns a run, and the rules that prove its death. No I/O, no clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from batchgen.system.shell_command import batch_command

SILENT_S: Final = 900
"""Seconds without a heartbeat after which a run on another host counts as dead. Three times the
default request deadline, so that none of its requests can still be in flight."""
_MAX_COMMAND_CHARS: Final = 200


class Life(StrEnum):
    """State of the process that owns a run."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """On a system whose processes are not visible from here, with a recent heartbeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process that owns a run, as stored in its row."""

    host: str
    boot: str
    """Boot id of the system; empty if unavailable."""
    namespace: str
    """Id of the PID namespace; containers on one host share the boot id, not the namespace."""
    pid: int
    started: str
    """Start time of the process in the unit of the system; empty if unreadable."""
    user: str
    command: str
    lock: str = ""
    """Device and inode of the lock file that the process holds."""
    silent_s: int = SILENT_S

    def as_json(self) -> str:
        """Return the text to store in the run's row."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Owner:
        """Parse the text of a run's row. Fields added by a newer release are ignored."""
        known = json.loads(text)
        return cls(**{name: known[name] for name in cls.__slots__ if name in known})

    def __str__(self) -> str:
        user = f" of {self.user}" if self.user else ""
        process = f"pid {self.pid}" if self.pid else "a process of another container"
        return f"{process}{user} on {self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """This process and its view of other processes."""

    me: Owner
    started_of: Callable[[int], str | None]
    """Return the start time of a process; empty if unknown, None if it does not exist."""
    up_since: datetime | None = None
    """Boot time of this system by its wall clock; None if unknown."""


def life_of(owner: Owner, heartbeat: datetime, *, here: Here, now: datetime) -> Life:
    """Decide whether the owner of a run is alive. The caller holds the lock of the batch.

    On the same system the proof is the kernel's lock, or the process id with its start time; the
    wall clock does not count. Between systems only the heartbeat is available.
    """
    me = here.me
    if _same_boot(owner, me):
        if owner.lock and owner.lock == me.lock:
            return Life.DEAD  # a live owner would hold the lock that we hold
        if owner.namespace == me.namespace:
            started = here.started_of(owner.pid)
            if started is None or (started and owner.started and started != owner.started):
                return Life.DEAD
            return Life.ALIVE
    elif owner.host == me.host and here.up_since is not None and heartbeat < here.up_since:
        return Life.DEAD  # rebooted since; another host of this name would have a later heartbeat
    silent = now - heartbeat > timedelta(seconds=owner.silent_s)
    return Life.DEAD if silent else Life.UNKNOWN


def _same_boot(one: Owner, other: Owner) -> bool:
    return one.boot == other.boot and (one.boot != "" or one.host == other.host)


def shown_command(arguments: list[str]) -> str:
    """Return a command line for messages; for other programs than batchgen only their name.

    The arguments of a program that uses the Python API may contain secrets.
    """
    for place, argument in enumerate(arguments[:6]):
        name = _file_name(argument)
        module = name == "__main__.py" and argument.replace("\\", "/").endswith("batchgen/" + name)
        if name in ("batchgen", "batchgen.exe") or module:
            return " ".join(["batchgen", *arguments[place + 1 :]])[:_MAX_COMMAND_CHARS]
    program = _file_name(arguments[0]) if arguments else ""
    script = _file_name(arguments[1]) if len(arguments) > 1 else ""
    shown = f"{program} {script}" if script.endswith(".py") else program
    return shown[:_MAX_COMMAND_CHARS]


def _file_name(argument: str) -> str:
    return argument.replace("\\", "/").rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOwner:
    """The process that uses a batch, and since when."""

    batch: str
    owner: Owner
    life: Life
    since: datetime | None
    heartbeat: datetime | None = None
    """None for a command that is not a run or has not sent anything yet."""

    def text(self, now: datetime) -> str:
        """Return a description: ``pid 9874 of root on shop1 since 20:15 (batchgen run a.yaml)``."""
        since = f" since {_clock_time(self.since, now)}" if self.since else ""
        command = f" ({self.owner.command})" if self.owner.command else ""
        return f"{self.owner}{since}{command}"

    def refusal(self, now: datetime) -> str:
        """Return the error for another command that wants the batch, with the way out."""
        verb = "in use" if self.heartbeat is None else "being run"
        text = f"{self.batch} is {verb} by {self.text(now)}"
        if self.life is not Life.UNKNOWN or self.heartbeat is None:
            look = batch_command("status", self.batch)
            return f"{text}; nothing was changed. Look: {look}"
        return (
            f"{text}, which cannot be seen from here; last heartbeat at"
            f" {_clock_time(self.heartbeat, now)}; nothing was changed. It counts as dead after"
            f" {self.owner.silent_s // 60} min without a heartbeat; if you know that it is dead:"
            f" {batch_command('resume', self.batch, '--take-over')}"
        )


def _clock_time(moment: datetime, now: datetime) -> str:
    local = moment.astimezone(now.tzinfo)
    return f"{local:%H:%M}" if local.date() == now.date() else f"{local:%Y-%m-%d %H:%M}"
