"""Answers on disk before anybody reads them: one file an attempt, head line first, then the body.

``ID.answer.part`` is an answer that is still arriving, or was cut off; ``ID.answer`` is whole and
durable.
The spool lies beside the ledger, readable for its owner only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from batchgen.files import PART_SUFFIX, PartFile, make_way, put_in_place
from batchgen.job import AttemptId
from batchgen.lean import LeanAnswer, LeanScan, lean
from batchgen.redaction import Redaction

ANSWER_SUFFIX: Final = ".answer"
_BUFFER_BYTES: Final = 256 * 1024
_REMEMBERED: Final = 512
_PRIVATE: Final = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledAnswer:
    """A whole or cut answer as it lies in the spool."""

    path: Path
    status: int
    headers: Mapping[str, str]
    route: str
    """Which adapter reads it."""
    body_offset: int

    def body(self) -> bytes:
        """Everything behind the head line."""
        return self.read(0, None)

    def read(self, begin: int, end: int | None) -> bytes:
        """The body from one place to another. Raises OSError."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.body_offset + begin)
            return file.read() if end is None else file.read(end - begin)


class SpoolWriter:
    """Takes one answer while it arrives. Small ones cost one write in the end.

    ``hide`` is the key: a server that repeats it in an error must not bring it onto the disk.
    """

    def __init__(
        self,
        part: PartFile,
        status: int,
        headers: Mapping[str, str],
        *,
        route: str = "images",
        hide: str | None = None,
    ) -> None:
        self._part = part
        self._hidden = Redaction(hide.encode()) if hide else None
        self._part.hold(_head_line(status, headers, route))
        self._scan = LeanScan()
        self._size = 0
        self.lean: LeanAnswer | None = None
        """What to read of the body, once it is whole; None where that is in the file only."""

    async def write(self, chunk: bytes) -> None:
        """Append to the body."""
        self._append(self._hidden.shown(chunk) if self._hidden else chunk)
        if self._size >= _BUFFER_BYTES:
            self._size = 0
            await self._part.flush()

    async def flush(self) -> None:
        """Bring what came to the file."""
        self._append_rest()
        await self._part.flush()

    async def commit(self) -> None:
        """The answer is whole: make it durable."""
        self._append_rest()
        await self._part.commit()
        self.lean = self._scan.result()

    def _append_rest(self) -> None:
        if self._hidden:
            self._append(self._hidden.rest())

    def _append(self, data: bytes) -> None:
        self._scan.feed(data)
        self._size += len(data)
        self._part.hold(data)


class Spool:
    """The folder of spooled answers of one ledger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lean: dict[AttemptId, LeanAnswer] = {}

    def prepare(self) -> None:
        """Make the folder, for its owner only. Raises OSError."""
        make_way(self.folder, mode=0o700)

    def part(self, attempt: AttemptId) -> PartFile:
        """The file that takes the attempt's answer; a cut answer stays as ``ID.answer.part``."""
        return PartFile(self.folder / self.name(attempt), keep=True, mode=_PRIVATE)

    @staticmethod
    def name(attempt: AttemptId) -> str:
        """The file name of a whole answer."""
        return f"{attempt}{ANSWER_SUFFIX}"

    def find(self, attempt: AttemptId) -> SpooledAnswer | None:
        """The whole answer of an attempt, if it was spooled to its end."""
        return _read_head(self.folder / self.name(attempt))

    def find_cut(self, attempt: AttemptId) -> SpooledAnswer | None:
        """What came of an answer that broke off, if its head was written."""
        return _read_head(self.folder / (self.name(attempt) + PART_SUFFIX))

    def complete_cut(self, attempt: AttemptId) -> None:
        """Count a cut answer as whole, as it holds all that matters. Raises OSError."""
        part = self.folder / (self.name(attempt) + PART_SUFFIX)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        put_in_place(part, self.folder / self.name(attempt))

    def remember(self, attempt: AttemptId, lean: LeanAnswer) -> None:
        """Keep where an answer holds its pictures until they are unpacked, for the latest few."""
        self._lean[attempt] = lean
        if len(self._lean) > _REMEMBERED:
            del self._lean[next(iter(self._lean))]

    def lean(self, answer: SpooledAnswer, attempt: AttemptId) -> LeanAnswer:
        """An answer without its pictures' base64. Reads the file where nobody remembers it."""
        return self._lean.pop(attempt, None) or lean(answer.body())

    def remove(self, attempt: AttemptId) -> None:
        """Forget an answer whose pictures are on disk."""
        self._lean.pop(attempt, None)
        (self.folder / self.name(attempt)).unlink(missing_ok=True)
        (self.folder / (self.name(attempt) + PART_SUFFIX)).unlink(missing_ok=True)

    def attempts(self) -> list[AttemptId]:
        """Attempts of which the spool holds anything."""
        if not self.folder.is_dir():
            return []
        names = {path.name.removesuffix(PART_SUFFIX) for path in self.folder.iterdir()}
        return [
            AttemptId(name.removesuffix(ANSWER_SUFFIX))
            for name in sorted(names)
            if name.endswith(ANSWER_SUFFIX)
        ]


def _head_line(status: int, headers: Mapping[str, str], route: str) -> bytes:
    head = {"status": status, "headers": dict(headers), "route": route}
    return orjson.dumps(head) + b"\n"


def _read_head(path: Path) -> SpooledAnswer | None:
    try:
        with path.open("rb") as file:
            line = file.readline(1024 * 1024)
    except FileNotFoundError:
        return None
    if not line.endswith(b"\n"):
        return None
    try:
        head = json.loads(line)
        return SpooledAnswer(
            path=path,
            status=head["status"],
            headers=head["headers"],
            route=head["route"],
            body_offset=len(line),
        )
    except (ValueError, KeyError, TypeError):
        return None
