"""Files that are whole under their final name or not there: part, sync, rename, sync folder."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiofiles
import anyio

PART_SUFFIX: Final = ".part"
_CLOSE_WITHIN_S: Final = 10.0


class PartFile:
    """A file being written beside its final place. As a context manager it leaves no litter.

    ``async with PartFile(final) as part: await part.write(...); await part.commit()``. Without a
    commit the part is removed, unless ``keep`` is set. Raises OSError from the disk as it is.
    """

    def __init__(self, final: Path, *, keep: bool = False, mode: int = 0o666) -> None:
        self.final = final
        self.part = final.with_name(final.name + PART_SUFFIX)
        self._keep = keep
        self._mode = mode
        self._file: Any = None
        self._committed = False

    async def __aenter__(self) -> Self:
        # Cancelled here, the file would be opened all the same and belong to nobody.
        with anyio.CancelScope(shield=True):
            self._file = await aiofiles.open(self.part, "wb", opener=self._open)
        return self

    def _open(self, name: str, flags: int) -> int:
        # A link planted at the part's name must not lead the bytes elsewhere.
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), self._mode)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append; hand over large pieces, each costs a hop to a thread."""
        await self._file.write(data)

    async def sync(self) -> None:
        """Make the part durable under its temporary name and close it."""
        await anyio.to_thread.run_sync(_sync_and_close, self._file._file)
        self._file = None

    async def commit(self, final: Path | None = None) -> None:
        """Make the part durable, give it its final name, and make the name durable."""
        if self._file is not None:
            await self.sync()
        await anyio.to_thread.run_sync(put_in_place, self.part, final or self.final)
        self._committed = True

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Cancellation would cut the closing await itself and leak the file.
        with anyio.move_on_after(_CLOSE_WITHIN_S, shield=True):
            try:
                if self._file is not None:
                    await self._file.close()
            finally:
                if not self._committed and not self._keep:
                    await anyio.to_thread.run_sync(lambda: self.part.unlink(missing_ok=True))


def _sync_and_close(file: Any) -> None:
    try:
        file.flush()
        os.fsync(file.fileno())
    finally:
        file.close()


def put_in_place(part: Path, final: Path) -> None:
    """Rename a durable part over its final name and make the rename durable."""
    part.replace(final)
    sync_folder(final.parent)


def sha256_of(path: Path) -> str:
    """The digest of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(final: Path, data: bytes) -> None:
    """Write a small file so that it is whole under its name or not there. Raises OSError."""
    part = final.with_name(final.name + PART_SUFFIX)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(part, flags, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    put_in_place(part, final)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; a platform that can't sync folders does it itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_way(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it, durably, so that no synced file can lose its folder.

    Raises OSError.
    """
    try:
        folder.mkdir(mode)
    except FileNotFoundError:
        make_way(folder.parent)
        make_way(folder, mode)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        sync_folder(folder.parent)


def make_folder(root: Path, folder: Path) -> None:
    """Make ``folder``, which lies below ``root``, following no link on the way.

    Raises OSError, ELOOP where a part of the way below root is a symbolic link.
    """
    make_way(root)
    step = root
    for name in folder.relative_to(root).parts:
        step = step / name
        if step.is_symlink():
            raise OSError(errno.ELOOP, "a symbolic link inside the output folder", str(step))
        make_way(step)
