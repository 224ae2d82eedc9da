"""The spool: raw responses on disk, durable before they are parsed.

The directory is next to the ledger and readable by its owner only. The format of its files is
described in `batchgen.spool.response_file`.
"""

from __future__ import annotations

import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from batchgen.job import AttemptId
from batchgen.spool.kept_images import KeptImages
from batchgen.spool.response_file import SpooledResponse, read_response, remove_images
from batchgen.spool.response_part import ResponsePart
from batchgen.system.atomic_files import (
    PART_SUFFIX,
    make_private_directory,
    rename_durably,
    write_if_absent,
)
from batchgen.system.file_sync import sync_file
from batchgen.system.threads import in_disk_thread
from batchgen.system.write_buffers import BufferAllowance, WriteBuffer

RESPONSE_SUFFIX: Final = ".answer"
IDENTITY_SUFFIX: Final = "-id"
"""Suffix of the identity file, next to the spool. A recreated spool gets a new one."""
_OLD: Final = "old-"
"""Prefix of the identity of a spool that a release without identities created."""
_NAME: Final = re.compile(
    rf"(?P<attempt>.+){re.escape(RESPONSE_SUFFIX)}({PART_SUFFIX}|(\.image)?\.[0-9]+)?"
)
_REMOVE_BATCH: Final = 16
_BUFFER_BYTES: Final = 128 * 1024
_MAX_BUFFER_BYTES: Final = 1024 * 1024
_BUFFERS_BYTES: Final = 4 * 1024 * 1024
"""What responses may have in memory beyond a buffer each, together."""


class Spool:
    """The spool directory of one ledger."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.identity = ""
        """Id that changes when the directory is recreated; empty until read."""
        self._to_remove: list[AttemptId] = []
        self.images = KeptImages(directory)
        self._memory = BufferAllowance(_BUFFERS_BYTES)

    def prepare(self) -> None:
        """Create the private directory and read its identity and kept images. Raises OSError."""
        existed = self.directory.is_dir()
        if not existed:
            self._identity_file.unlink(missing_ok=True)
        self.identity = _read_identity(self._identity_file)
        if not self.identity:
            identity = f"{_OLD if existed else 'new-'}{uuid.uuid4().hex}\n"
            write_if_absent(self._identity_file, identity.encode())
            self.identity = _read_identity(self._identity_file)
        make_private_directory(self.directory)
        self.images.load()

    def read_identity(self) -> None:
        """Read the identity without creating anything. Raises OSError."""
        if self.directory.is_dir():
            self.identity = _read_identity(self._identity_file) or _OLD

    @property
    def _identity_file(self) -> Path:
        return self.directory.with_name(self.directory.name + IDENTITY_SUFFIX)

    def has_identity(self, identity: str | None) -> bool:
        """Return whether this is the spool that a run recorded.

        None is a run of a release that recorded no identity; its spool is an old one.
        """
        if identity is None:
            return self.identity.startswith(_OLD)
        return identity == self.identity

    def part(self, attempt: AttemptId, *, may_hold: bool = False) -> ResponsePart:
        """Return the file to write a response to; if cut off it stays as ``ID.answer.part``.

        With ``may_hold`` a small text response stays in memory until the ledger has it.
        """
        return ResponsePart(
            self.directory / self.name(attempt),
            buffer=WriteBuffer(_BUFFER_BYTES, self._memory, _MAX_BUFFER_BYTES),
            may_hold=may_hold,
        )

    @staticmethod
    def name(attempt: AttemptId) -> str:
        """Return the file name of a complete response."""
        return f"{attempt}{RESPONSE_SUFFIX}"

    def find(self, attempt: AttemptId) -> SpooledResponse | None:
        """Return the complete response of an attempt, if there is one."""
        return read_response(self.directory / self.name(attempt))

    def find_cut(self, attempt: AttemptId) -> SpooledResponse | None:
        """Return the cut-off response of an attempt, if at least its head was written."""
        return read_response(self.directory / (self.name(attempt) + PART_SUFFIX))

    def complete_cut(self, attempt: AttemptId) -> None:
        """Turn a cut-off response that contains all images into a complete one. Raises OSError."""
        part = self.directory / (self.name(attempt) + PART_SUFFIX)
        # Windows refuses to sync a file that is open for reading only.
        with part.open("r+b") as file:
            sync_file(file.fileno())
        rename_durably(part, self.directory / self.name(attempt))

    def remove(self, attempt: AttemptId) -> None:
        """Remove all files of an attempt. Raises OSError."""
        response = self.directory / self.name(attempt)
        remove_images(response)
        self.images.drop_all(attempt)
        response.unlink(missing_ok=True)
        response.with_name(response.name + PART_SUFFIX).unlink(missing_ok=True)

    async def remove_later(self, attempt: AttemptId) -> None:
        """Schedule the files of an attempt for removal, which happens in groups.

        The end of the run removes the last group, and files that an OSError kept.
        """
        self._to_remove.append(attempt)
        if len(self._to_remove) >= _REMOVE_BATCH:
            attempts, self._to_remove = self._to_remove, []
            await in_disk_thread(self._remove_all, attempts)

    def _remove_all(self, attempts: list[AttemptId]) -> None:
        for attempt in attempts:
            with suppress(OSError):
                self.remove(attempt)

    def attempts(self) -> list[AttemptId]:
        """Return the attempts that have any file in the spool."""
        if not self.directory.is_dir():
            return []
        names = (_NAME.fullmatch(path.name) for path in self.directory.iterdir())
        return [AttemptId(name) for name in sorted({name["attempt"] for name in names if name})]


def _read_identity(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
