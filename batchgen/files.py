"""Files that are whole under their final name or not there: part, sync, rename, sync folder."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeVar

from batchgen.handoff import on_disk

T = TypeVar("T")

if sys.platform == "darwin":
    from fcntl import F_FULLFSYNC, fcntl

    def sync_file(handle: int) -> None:
        """Make what was written to a file survive a power cut. Raises OSError.

        On macOS ``fsync`` leaves it in the drive's cache (fsync(2) of Apple); a file system that
        does not know ``F_FULLFSYNC``, such as a network share, gets ``fsync``.
        """
        try:
            fcntl(handle, F_FULLFSYNC)
        except OSError:
            os.fsync(handle)

else:

    def sync_file(handle: int) -> None:
        """Make what was written to a file survive a power cut. Raises OSError."""
        os.fsync(handle)


PART_SUFFIX: Final = ".part"
_HOLD_BYTES: Final = 512 * 1024


class PartFile:
    """A file being written beside its final place. As a context manager it leaves no litter.

    ``async with PartFile(final) as part: await part.write(...); await part.commit()``. Without a
    commit the part is removed, unless ``keep`` is set. What is written is held until there is
    enough of it to be worth a hop to a thread. Raises OSError from the disk as it is.
    """

    def __init__(self, final: Path, *, keep: bool = False, mode: int = 0o666) -> None:
        self.final = final
        self.part = final.with_name(final.name + PART_SUFFIX)
        self._keep = keep
        self._mode = mode
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._file: BinaryIO | None = None
        self._made = False
        self._adopted = False
        self._committed = False

    async def __aenter__(self) -> Self:
        return self

    def hold(self, data: bytes) -> None:
        """Append without writing yet."""
        self._held.append(data)
        self._held_bytes += len(data)

    async def write(self, data: bytes) -> None:
        """Append; goes to the disk together with what comes before and after it."""
        self.hold(data)
        if self._held_bytes >= _HOLD_BYTES:
            await self.flush()

    def write_here(self, data: bytes) -> None:
        """As `write`, for who is on a thread that may block."""
        self.hold(data)
        if self._held_bytes >= _HOLD_BYTES:
            self._flush()

    async def flush(self) -> None:
        """Write what is held."""
        await on_disk(self._flush)

    def flush_here(self) -> None:
        """As `flush`, for who is on a thread that may block; others can read it then."""
        self._flush().flush()

    def commit_here(self) -> None:
        """As `commit`, for who is on a thread that may block."""
        self._commit(self.final)

    def rewind(self, size: int) -> None:
        """Take back all but so many bytes, on a thread that may block."""
        file = self._flush()
        file.flush()
        file.seek(size)
        file.truncate()

    def adopt(self, source: Path) -> None:
        """Be what another file holds, which is durable and stays; on a thread that may block.

        A second name for it, or a copy where the file system gives none.
        """
        self.part.unlink(missing_ok=True)
        try:
            os.link(source, self.part)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one that knows no links
            with source.open("rb") as file:
                while data := file.read(_HOLD_BYTES):
                    self.write_here(data)
        else:
            self._made = self._adopted = True

    async def seal(self, check: Callable[[Path], T]) -> T:
        """Make the part durable under its temporary name, and give what ``check`` finds in it."""
        return await on_disk(self._seal, check)

    async def commit(self, final: Path | None = None) -> None:
        """Make the part durable, give it its final name, and make the name durable."""
        await on_disk(self._commit, final or self.final)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None or (self._made and not self._committed and not self._keep):
            await on_disk(self._abandon)

    def _open(self, name: str, flags: int) -> int:
        # A link planted at the part's name must not lead the bytes elsewhere.
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), self._mode)

    def _flush(self) -> BinaryIO:
        assert not self._adopted  # opened for writing it would be lost under its other name too
        if self._file is None:
            self._file = open(self.part, "wb", opener=self._open)  # noqa: SIM115 - outlives this call
            self._made = True
        held, self._held, self._held_bytes = self._held, [], 0
        self._file.writelines(held)
        return self._file

    def _sync(self) -> None:
        if self._adopted:
            return
        file = self._flush()
        self._file = None
        with file:
            file.flush()
            sync_file(file.fileno())

    def _seal(self, check: Callable[[Path], T]) -> T:
        self._sync()
        return check(self.part)

    def _commit(self, final: Path) -> None:
        if self._file is not None or not self._made:
            self._sync()
        put_in_place(self.part, final)
        self._committed = True

    def _abandon(self) -> None:
        try:
            if self._file is not None:
                self._file.close()
        finally:
            if not self._committed and not self._keep:
                self.part.unlink(missing_ok=True)


def put_in_place(part: Path, final: Path) -> None:
    """Rename a durable part over its final name and make the rename durable."""
    part.replace(final)
    # Two names of one file are left as they are by a rename.
    part.unlink(missing_ok=True)
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
        sync_file(file.fileno())
    put_in_place(part, final)


def write_once(final: Path, data: bytes) -> None:
    """Write a small file whole, unless another process was first. Raises OSError."""
    make_way(final.parent)
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", dir=final.parent)
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            sync_file(file.fileno())
        try:
            os.link(aside, final)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            aside.replace(final)
        sync_folder(final.parent)
    finally:
        aside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; a platform that can't sync folders does it itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        sync_file(handle)
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
