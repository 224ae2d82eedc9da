"""Who runs a batch, and whether that process is provably dead. No I/O and no clock here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

SILENT_S: Final = 900
"""A run on another host is dead after so many seconds without a heartbeat. Three times the default
deadline of a request, so that none of its requests can still be in flight."""
_MAX_COMMAND_CHARS: Final = 200


class Life(StrEnum):
    """What is known of the process that owns a run."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """On a system whose processes cannot be seen from here, with a recent heartbeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process that runs a batch, as its run row keeps it."""

    host: str
    boot: str
    """Id of the system's boot; empty where the system has none."""
    namespace: str
    """Id of the namespace of ``pid``; containers on one host share the boot, not the namespace."""
    pid: int
    started: str
    """Start time of the process in the system's own unit; empty where it cannot be read."""
    user: str
    command: str
    lock: str = ""
    """Device and inode of the lock file that it holds."""
    silent_s: int = SILENT_S

    def as_json(self) -> str:
        """Return the text that the run row keeps."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Owner:
        """Read the text of a run row. Fields that a newer batchgen added are ignored."""
        known = json.loads(text)
        return cls(**{name: known[name] for name in cls.__slots__ if name in known})

    def __str__(self) -> str:
        user = f" of {self.user}" if self.user else ""
        process = f"pid {self.pid}" if self.pid else "a process of another container"
        return f"{process}{user} on {self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """This process, and what it can see of others."""

    me: Owner
    started_of: Callable[[int], str | None]
    """Return the start time of a process, empty if unknown, None if there is no such process."""
    up_since: datetime | None = None
    """When this system started, by its wall clock."""


def life_of(owner: Owner, heartbeat: datetime, *, here: Here, now: datetime) -> Life:
    """Decide whether the owner of a run lives. The caller holds the lock of the batch.

    On one system the wall clock decides nothing: the kernel's lock, or the process id with its
    start time, is the proof. Between systems only the heartbeat is left.
    """
    me = here.me
    if _same_boot(owner, me):
        if owner.lock and owner.lock == me.lock:
            return Life.DEAD  # it would hold the lock that we hold
        if owner.namespace == me.namespace:
            started = here.started_of(owner.pid)
            if started is None or (started and owner.started and started != owner.started):
                return Life.DEAD
            return Life.ALIVE
    elif owner.host == me.host and here.up_since is not None and heartbeat < here.up_since:
        return Life.DEAD  # this host has started again since; a namesake would have beaten later
    silent = now - heartbeat > timedelta(seconds=owner.silent_s)
    return Life.DEAD if silent else Life.UNKNOWN


def _same_boot(one: Owner, other: Owner) -> bool:
    return one.boot == other.boot and (one.boot != "" or one.host == other.host)


def shown_command(arguments: list[str]) -> str:
    """Return a command line to show to others: of a program that is not ours, only its name.

    The arguments of a program that uses the Python API may hold secrets.
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
    """The process that holds a batch, and since when."""

    batch: str
    owner: Owner
    life: Life
    since: datetime | None
    heartbeat: datetime | None = None
    """None for a command that is not a run, or that has not begun to send."""

    def text(self, now: datetime) -> str:
        """Return who it is: ``pid 9874 of root on shop1 since 20:15 (batchgen run a.yaml)``."""
        since = f" since {_clock_time(self.since, now)}" if self.since else ""
        command = f" ({self.owner.command})" if self.owner.command else ""
        return f"{self.owner}{since}{command}"

    def refusal(self, now: datetime) -> str:
        """Return why another command does not get the batch, and the way out."""
        verb = "in use" if self.heartbeat is None else "being run"
        text = f"{self.batch} is {verb} by {self.text(now)}"
        if self.life is not Life.UNKNOWN or self.heartbeat is None:
            return f"{text}; nothing was changed. Look: batchgen status {self.batch}"
        return (
            f"{text}, which cannot be seen from here; last heartbeat at"
            f" {_clock_time(self.heartbeat, now)}; nothing was changed. It counts as dead after"
            f" {self.owner.silent_s // 60} min without a heartbeat; if you know that it is dead:"
            f" batchgen resume {self.batch} --take-over"
        )


def _clock_time(moment: datetime, now: datetime) -> str:
    local = moment.astimezone(now.tzinfo)
    return f"{local:%H:%M}" if local.date() == now.date() else f"{local:%Y-%m-%d %H:%M}"
