"""Write files that appear complete or not at all: part, fsync, rename, directory fsync."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeVar, cast

from batchgen.system.file_sync import sync_file
from batchgen.system.threads import in_disk_thread
from batchgen.system.write_buffers import WriteBuffer

T = TypeVar("T")

PART_SUFFIX: Final = ".part"
PRIVATE_DIRECTORY: Final = 0o700
PRIVATE_FILE: Final = 0o600
"""Modes of what may hold prompts, images or responses."""
_IGNORE_FILE: Final = ".gitignore"
_BUFFER_BYTES: Final = 512 * 1024
_BINARY: Final[int] = getattr(os, "O_BINARY", 0)


class PartFile:
    """A temporary file next to its final path.

    ``async with PartFile(final) as part: await part.write(...); await part.commit()``. Without a
    commit the part is removed at exit, unless ``keep`` is set. Writes are buffered until they are
    worth a thread switch, in ``buffer`` if it is given. Disk errors are raised as OSError.

    With ``directory_mode``, a missing directory is created, and created again if it is removed
    while the file is written. Methods named ``*_blocking``, and those that say so, block on the
    disk; call them on a worker thread.
    """

    def __init__(
        self,
        final: Path,
        *,
        keep: bool = False,
        mode: int = 0o666,
        directory_mode: int | None = None,
        buffer: WriteBuffer | None = None,
    ) -> None:
        self.final = final
        self.buffer = buffer or WriteBuffer(_BUFFER_BYTES)
        self._keep = keep
        self._mode = mode
        self._directory_mode = directory_mode
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._file: BinaryIO | None = None
        self._made = False
        self._adopted = False
        self._committed = False

    async def __aenter__(self) -> Self:
        return self

    @cached_property
    def part(self) -> Path:
        """The temporary path. Many small responses never need it."""
        return self.final.with_name(self.final.name + PART_SUFFIX)

    def hold(self, data: bytes) -> None:
        """Append to the buffer, without I/O."""
        self._held.append(data)
        self._held_bytes += len(data)

    async def write(self, data: bytes) -> None:
        """Append; write to the disk when the buffer is full."""
        self.hold(data)
        if not self.buffer.has_room(self._held_bytes):
            await self.flush()

    def write_blocking(self, data: bytes) -> None:
        """Append; write to the disk when the buffer is full."""
        self.hold(data)
        if self._held_bytes >= _BUFFER_BYTES:
            self._flush()

    def held_content(self, max_bytes: int) -> bytes | None:
        """Return the whole content if it is in memory only and not longer."""
        if self._made or self._held_bytes > max_bytes:
            return None
        if len(self._held) != 1:
            self._held = [b"".join(self._held)]
        return self._held[0]

    def sync_blocking(self) -> None:
        """Make the part durable under its temporary name, unless it is."""
        if self._file is not None or not self._made:
            self._sync()

    async def flush(self) -> None:
        """Write the buffer to the file."""
        await in_disk_thread(self._flush)

    def flush_blocking(self) -> None:
        """Write the buffer to the file, so that other readers see it."""
        self._flush().flush()

    def commit_blocking(self) -> None:
        """Commit to the final path given at creation."""
        self._commit(self.final, rename_durably)

    def restore_name_blocking(self) -> None:
        """Write the buffer, and write the file again if its directory was removed meanwhile."""
        file = self._flush()
        file.flush()
        if self._directory_mode is not None and not has_name(file.fileno(), self.part):
            self._file = self._recreate(file)

    def rewind(self, size: int) -> None:
        """Truncate the file to ``size`` bytes; blocks."""
        file = self._flush()
        file.flush()
        file.seek(size)
        file.truncate()

    def adopt(self, source: Path) -> None:
        """Take the content of a durable file, which stays unchanged; blocks.

        The part is a hard link if a new file here would have the same owner and permissions, else
        a copy.
        """
        self.part.unlink(missing_ok=True)
        if matches_new_file_in(self.part.parent, source):
            try:
                os.link(source, self.part)
            except FileNotFoundError:
                raise
            except OSError:  # another file system, or one without hard links
                pass
            else:
                self._made = self._adopted = True
                return
        self.copy(source)

    def copy(self, source: Path) -> None:
        """Append the content of another file; blocks."""
        with source.open("rb") as file:
            while data := file.read(_BUFFER_BYTES):
                self.write_blocking(data)

    async def seal(self, check: Callable[[Path], T]) -> T:
        """Make the part durable under its temporary name and return ``check(path)``."""
        return await in_disk_thread(self._seal, lambda path, content: check(path))

    async def seal_content(self, check: Callable[[Path, bytes | None], T]) -> T:
        """Do as `seal`, and pass the content to ``check`` where all of it is still in memory."""
        return await in_disk_thread(self._seal, check)

    async def commit(
        self, final: Path | None = None, put: Callable[[Path, Path], None] | None = None
    ) -> None:
        """Make the part durable, rename it to its final name and make the name durable.

        ``put`` renames the part; by default an existing file is replaced.
        """
        await in_disk_thread(self._commit, final or self.final, put or rename_durably)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.buffer.shrink()
        if self._file is not None or (self._made and not self._committed and not self._keep):
            await in_disk_thread(self._abandon)

    def keep_linked(self) -> None:
        """Leave the part at exit: it is the second name of a file at a final path."""
        self._committed = True

    def _open(self, name: str, flags: int) -> int:
        # Do not follow a symbolic link that someone put at the part's name.
        flags |= getattr(os, "O_NOFOLLOW", 0)
        try:
            return os.open(name, flags | os.O_EXCL, self._mode)
        except FileExistsError:
            if os.lstat(name).st_nlink > 1:  # writing would change the file at the other name
                os.unlink(name)  # noqa: PTH108 - the opener gets a text
            return os.open(name, flags, self._mode)

    def _flush(self) -> BinaryIO:
        assert not self._adopted  # writing would change the source, which is the same file
        if self._file is None:
            self._file = self._create()
            self._made = True
        held, self._held, self._held_bytes = self._held, [], 0
        self._file.writelines(held)
        return self._file

    def _create(self) -> BinaryIO:
        mode = "wb" if self._directory_mode is None else "w+b"
        try:
            return cast(BinaryIO, open(self.part, mode, opener=self._open))
        except FileNotFoundError:
            if self._directory_mode is None:
                raise
            make_directories(self.part.parent, self._directory_mode)
            return cast(BinaryIO, open(self.part, mode, opener=self._open))

    def _recreate(self, file: BinaryIO) -> BinaryIO:
        """Copy a file whose name was removed."""
        with file:
            copy = self._create()
            copy_open(file, copy)
        return copy

    def _sync(self) -> None:
        if self._adopted:
            return
        if not self._made and self._directory_mode is None:
            self._write_whole(b"".join(self._held))
            return
        self.restore_name_blocking()
        file = self._flush()
        self._file = None
        with file:
            sync_file(file.fileno())

    def _seal(self, check: Callable[[Path, bytes | None], T]) -> T:
        content = self.held_content(self.buffer.size_bytes)
        self._sync()
        return check(self.part, content)

    def _write_whole(self, content: bytes) -> None:
        """Write and sync a small file without the buffers of a file object."""
        handle = self._open(str(self.part), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY)
        try:
            self._made = True
            view = memoryview(content)
            while view:
                view = view[os.write(handle, view) :]
            sync_file(handle)
        finally:
            os.close(handle)
        self._held, self._held_bytes = [], 0

    def _commit(self, final: Path, put: Callable[[Path, Path], None]) -> None:
        self.sync_blocking()
        put(self.part, final)
        self._committed = True

    def _abandon(self) -> None:
        try:
            if self._file is not None:
                self._file.close()
        finally:
            if not self._committed and not self._keep:
                self.part.unlink(missing_ok=True)


def has_name(handle: int, path: Path) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def copy_open(source: BinaryIO | FileIO, target: BinaryIO | FileIO) -> None:
    """Copy an open file, which may have lost its name, to another one and fsync it."""
    source.seek(0)
    while data := source.read(_BUFFER_BYTES):
        view = memoryview(data)
        while view:
            view = view[target.write(view) :]
    target.flush()
    sync_file(target.fileno())


_ACL: Final = "system.posix_acl_access"
_DEFAULT_ACL: Final = "system.posix_acl_default"
_MAX_CACHED: Final = 256
_matches: Final[dict[tuple[object, ...], bool]] = {}


def matches_new_file_in(directory: Path, file: Path) -> bool:
    """Return whether a file has the owner, group, mode and ACL that a new file would get.

    Setgid, a default ACL or a mount option can make them differ. To find out, a file is created in
    ``directory``, once for each state of the directory. Raises OSError.
    """
    place, own = directory.stat(), _permissions(file)
    state = (str(directory), place.st_dev, place.st_mode, place.st_gid)
    key = (*state, _attribute(directory, _DEFAULT_ACL), own)
    known = _matches.get(key)
    if known is None:
        known = _permissions_in(directory) == own
        if len(_matches) >= _MAX_CACHED:
            _matches.clear()
        _matches[key] = known
    return known


def _permissions_in(directory: Path) -> tuple[object, ...]:
    """Return the owner, mode and ACL of a new file. The file has no name where the OS allows."""
    if hasattr(os, "O_TMPFILE"):
        with suppress(OSError):  # the file system does not support it
            handle = os.open(directory, os.O_WRONLY | os.O_TMPFILE, 0o666)
            try:
                return _permissions(handle)
            finally:
                os.close(handle)
    probe = directory / f".{os.urandom(8).hex()}{PART_SUFFIX}"
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        return _permissions(probe)
    finally:
        probe.unlink()


def _permissions(file: Path | int) -> tuple[object, ...]:
    found = os.stat(file)  # noqa: PTH116 - it may be a descriptor
    return found.st_uid, found.st_gid, found.st_mode, _attribute(file, _ACL)


def _attribute(path: Path | int, name: str) -> bytes | None:
    with suppress(OSError, AttributeError):  # macOS and Windows have no such function
        return os.getxattr(path, name)
    return None


def rename_durably(part: Path, final: Path) -> None:
    """Rename a durable part to its final name, replacing that file, and sync the directory."""
    part.replace(final)
    # A rename does nothing if both names are hard links to one file.
    part.unlink(missing_ok=True)
    sync_directory(final.parent)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(final: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a small file so that it appears complete or not at all. Raises OSError."""
    part = final.with_name(final.name + PART_SUFFIX)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(part, flags, mode), "wb") as file:
        file.write(data)
        file.flush()
        sync_file(file.fileno())
    rename_durably(part, final)


def write_if_absent(final: Path, data: bytes) -> None:
    """Write a small file atomically unless it exists already. Raises OSError."""
    make_directories(final.parent)
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", dir=final.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            sync_file(file.fileno())
        try:
            os.link(temporary, final)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            temporary.replace(final)
        sync_directory(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable; do nothing on a platform without directory sync."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        sync_file(handle)
    finally:
        os.close(handle)


def make_directories(directory: Path, mode: int = 0o777) -> None:
    """Create a directory and its parents durably, so that a synced file cannot lose its directory.

    Raises OSError.
    """
    try:
        directory.mkdir(mode)
    except FileNotFoundError:
        make_directories(directory.parent)
        make_directories(directory, mode)
    except FileExistsError:
        if not directory.is_dir():
            raise
    else:
        sync_directory(directory.parent)


def make_private_directory(directory: Path) -> None:
    """Create a directory for state of ours: closed to other users, and ignored by git.

    An existing directory keeps its mode. Raises OSError.
    """
    make_directories(directory, PRIVATE_DIRECTORY)
    with suppress(OSError):  # it exists, or the disk is full, which other files will report
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        handle = os.open(directory / _IGNORE_FILE, flags, PRIVATE_FILE)
        with os.fdopen(handle, "wb") as file:
            file.write(b"*\n")


def make_directory_below(root: Path, directory: Path) -> None:
    """Create ``directory``, which is below ``root``, without following symbolic links below root.

    Raises OSError: ELOOP for a symbolic link between root and directory.
    """
    make_directories(root)
    step = root
    for name in directory.relative_to(root).parts:
        step = step / name
        if step.is_symlink():
            raise OSError(errno.ELOOP, "a symbolic link inside the output directory", str(step))
        make_directories(step)
