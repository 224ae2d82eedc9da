"""What a disk may hold after the power is cut: recorded calls, replayed into the legal states.

Only what was synced is sure: the bytes of a file by a sync of the file, its name by one of its
directory. Of the rest each write, whole or in part, and each change of a name may be there or not.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from tests.faults.tracer import Call, Memory, Plan, data_of

_SECTOR_BYTES: Final = 512
_DIRECTORY: Final = -1
"""In the place of a file's number."""


class Kept(StrEnum):
    """What of the unsynced is there after the cut."""

    NOTHING = "nothing"
    SOME = "some"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes of a file, or its new length if there are no bytes."""

    file: int
    offset: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Named:
    """A name leads to a file, or to nothing where it is None."""

    path: str
    file: int | None
    old: str | None = None
    """The name that ends with it, for a renaming."""


@dataclass(frozen=True, slots=True)
class FileSynced:
    """What was written to a file is durable."""

    file: int


@dataclass(frozen=True, slots=True)
class Directoriesynced:
    """The names in a directory are durable."""

    path: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A request may have reached the endpoint."""

    calls: int
    """Sent by this many counted calls."""


Event = Written | Named | FileSynced | Directoriesynced | Sent


class Record(Plan):
    """Writes down what a run does to the files below a directory."""

    def __init__(self, directory: Path) -> None:
        self._below = f"{directory}/"
        self._names: dict[str, int] = {}
        self._files = 0
        self.events: list[Event] = []

    def entering(self, call: Call) -> int | None:
        if not call.is_local and call.name in ("write", "writev", "sendto", "sendmsg"):
            self.events.append(Sent(call.number))
        return None

    def left(self, call: Call, memory: Memory) -> None:
        if call.result < 0 or not any(f"{path}/".startswith(self._below) for path in call.paths):
            return
        path = call.paths[-1]
        match call.name:
            case "open" | "openat":
                self._opened(call, path)
            case "mkdir" | "mkdirat":
                self._name(path, _DIRECTORY)
            case "unlink" | "unlinkat" | "rmdir":
                self._name(path, None)
            case "rename" | "renameat" | "renameat2":
                self._name(path, self._names[call.paths[0]], old=call.paths[0])
            case "link" | "linkat":
                self._name(path, self._names[call.paths[0]])
            case "fsync" | "fdatasync" if path in self._names and self._names[path] != _DIRECTORY:
                self.events.append(FileSynced(self._names[path]))
            case "fsync" | "fdatasync":
                self.events.append(Directoriesynced(path))
            case "ftruncate" | "truncate" if path in self._names:
                self.events.append(Written(self._names[path], call.args[1], None))
            case "write" | "writev" | "pwrite64" if path in self._names:
                at = call.args[3] if call.name == "pwrite64" else _offset(call) - call.result
                data = data_of(call, memory)[: call.result]
                self.events.append(Written(self._names[path], at, data))

    def _opened(self, call: Call, path: str) -> None:
        flags = call.args[1] if call.name == "open" else call.args[2]
        if path not in self._names and flags & os.O_CREAT:
            self._files += 1
            self._name(path, self._files)
        elif path in self._names and flags & os.O_TRUNC:
            self.events.append(Written(self._names[path], 0, None))

    def _name(self, path: str, file: int | None, *, old: str | None = None) -> None:
        self.events.append(Named(path, file, old))
        _rename(self._names, self.events[-1])


def _offset(call: Call) -> int:
    text = Path(f"/proc/{call.thread}/fdinfo/{call.args[0]}").read_text("ascii")
    return int(text.split()[1])


def _rename(names: dict[str, int], event: Event) -> None:
    assert isinstance(event, Named)
    if event.old is not None:
        names.pop(event.old, None)
    if event.file is None:
        names.pop(event.path, None)
    else:
        names[event.path] = event.file


@dataclass(slots=True)
class Disk:
    """What is durable, and what is not yet."""

    names: dict[str, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    new_names: dict[str, list[Named]] = field(default_factory=dict)
    """By their directory."""
    new_bytes: dict[int, list[Written]] = field(default_factory=dict)
    calls: int = 0
    """What may have been sent, was so by this call."""

    def take(self, event: Event) -> None:
        """Go on by one event."""
        match event:
            case Written(file=file):
                self.new_bytes.setdefault(file, []).append(event)
            case Named(path=path):
                self.new_names.setdefault(os.path.dirname(path), []).append(event)  # noqa: PTH120
            case FileSynced(file=file):
                self.contents[file] = _written(
                    self.contents.get(file, b""), self.new_bytes.pop(file, ())
                )
            case Directoriesynced(path=path):
                for named in self.new_names.pop(path, ()):
                    _rename(self.names, named)
            case Sent(calls=calls):
                self.calls = calls

    def after_cut(
        self, kept: Kept, dice: random.Random
    ) -> tuple[dict[str, int], Mapping[int, bytes]]:
        """Names and contents as one of the states that may be found."""

        def stays() -> bool:
            return kept is Kept.EVERYTHING or (kept is Kept.SOME and dice.random() < 0.5)

        names, contents = dict(self.names), dict(self.contents)
        for changes in self.new_names.values():
            for named in changes:
                if stays():
                    _rename(names, named)
        for file, writes in self.new_bytes.items():
            left = [one for one in writes if stays()]
            if left and kept is Kept.SOME:
                left[-1] = _torn(left[-1], dice)
            contents[file] = _written(contents.get(file, b""), left)
        return names, contents


def _torn(one: Written, dice: random.Random) -> Written:
    if one.data is None:
        return one
    sectors = dice.randrange(len(one.data) // _SECTOR_BYTES + 2)
    return Written(one.file, one.offset, one.data[: sectors * _SECTOR_BYTES])


def _written(content: bytes, writes: Sequence[Written]) -> bytes:
    found = bytearray(content)
    for one in writes:
        end = one.offset + len(one.data or b"")
        if len(found) < end:
            found.extend(bytes(end - len(found)))
        if one.data is None:
            del found[one.offset :]
        else:
            found[one.offset : end] = one.data
    return bytes(found)


def disk_at(events: Sequence[Event], cut: int) -> Disk:
    """Return the disk after this many events."""
    disk = Disk()
    for event in events[:cut]:
        disk.take(event)
    return disk


def lay_out(
    directory: Path, names: Mapping[str, int], contents: Mapping[int, bytes], manifest: Path
) -> None:
    """Put a state in the place of what is in the directory, but for the manifest."""
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != manifest:
            path.unlink()
    for name, file in sorted(names.items()):
        path = Path(name)
        if not path.parent.is_dir():
            continue  # its directory was never durable
        if file == _DIRECTORY:
            path.mkdir()
        else:
            path.write_bytes(contents.get(file, b""))


def tree(directory: Path) -> dict[str, bytes]:
    """All files below a directory."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
