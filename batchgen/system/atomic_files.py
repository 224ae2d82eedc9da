"""Files that are whole under their final name or not there: part, sync, rename, sync directory."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeVar, cast

from batchgen.system.threads import in_disk_thread

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

    With ``directory_mode``, its directory is made where it is missing, and made again where it is
    removed while the file is written.
    """

    def __init__(
        self,
        final: Path,
        *,
        keep: bool = False,
        mode: int = 0o666,
        directory_mode: int | None = None,
    ) -> None:
        self.final = final
        self.part = final.with_name(final.name + PART_SUFFIX)
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

    def hold(self, data: bytes) -> None:
        """Append without writing yet."""
        self._held.append(data)
        self._held_bytes += len(data)

    async def write(self, data: bytes) -> None:
        """Append; goes to the disk together with what comes before and after it."""
        self.hold(data)
        if self._held_bytes >= _HOLD_BYTES:
            await self.flush()

    def write_blocking(self, data: bytes) -> None:
        """As `write`, for who is on a thread that may block."""
        self.hold(data)
        if self._held_bytes >= _HOLD_BYTES:
            self._flush()

    async def flush(self) -> None:
        """Write what is held."""
        await in_disk_thread(self._flush)

    def flush_blocking(self) -> None:
        """As `flush`, for who is on a thread that may block; others can read it then."""
        self._flush().flush()

    def commit_blocking(self) -> None:
        """As `commit`, for who is on a thread that may block."""
        self._commit(self.final, rename_durably)

    def restore_name_blocking(self) -> None:
        """Bring what is written to the file, and the file to its name; on a thread that may block.

        Only where the directory was removed in the meantime it has lost that.
        """
        file = self._flush()
        file.flush()
        if self._directory_mode is not None and not has_name(file.fileno(), self.part):
            self._file = self._again(file)

    def rewind(self, size: int) -> None:
        """Take back all but so many bytes, on a thread that may block."""
        file = self._flush()
        file.flush()
        file.seek(size)
        file.truncate()

    def adopt(self, source: Path) -> None:
        """Be what another file holds, which is durable and stays; on a thread that may block.

        A second name for it where a file made here would have the same owner and rights, else a
        copy.
        """
        self.part.unlink(missing_ok=True)
        if matches_new_file_in(self.part.parent, source):
            try:
                os.link(source, self.part)
            except FileNotFoundError:
                raise
            except OSError:  # another file system, or one that knows no links
                pass
            else:
                self._made = self._adopted = True
                return
        self.copy(source)

    def copy(self, source: Path) -> None:
        """Hold what another file holds, in a file of its own; on a thread that may block."""
        with source.open("rb") as file:
            while data := file.read(_HOLD_BYTES):
                self.write_blocking(data)

    async def seal(self, check: Callable[[Path], T]) -> T:
        """Make the part durable under its temporary name, and give what ``check`` finds in it."""
        return await in_disk_thread(self._seal, check)

    async def commit(
        self, final: Path | None = None, put: Callable[[Path, Path], None] | None = None
    ) -> None:
        """Make the part durable, give it its final name, and make the name durable.

        ``put`` moves it there; without it, it replaces what has the name.
        """
        await in_disk_thread(self._commit, final or self.final, put or rename_durably)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None or (self._made and not self._committed and not self._keep):
            await in_disk_thread(self._abandon)

    def _open(self, name: str, flags: int) -> int:
        # A link planted at the part's name must not lead the bytes elsewhere.
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), self._mode)

    def _flush(self) -> BinaryIO:
        assert not self._adopted  # opened for writing it would be lost under its other name too
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

    def _again(self, file: BinaryIO) -> BinaryIO:
        """Copy a file that has lost its name."""
        with file:
            again = self._create()
            copy_open(file, again)
        return again

    def _sync(self) -> None:
        if self._adopted:
            return
        self.restore_name_blocking()
        file = self._flush()
        self._file = None
        with file:
            sync_file(file.fileno())

    def _seal(self, check: Callable[[Path], T]) -> T:
        self._sync()
        return check(self.part)

    def _commit(self, final: Path, put: Callable[[Path, Path], None]) -> None:
        if self._file is not None or not self._made:
            self._sync()
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
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def copy_open(source: BinaryIO | FileIO, target: BinaryIO | FileIO) -> None:
    """Copy an open file, which may have no name any more, into another one, durably."""
    source.seek(0)
    while data := source.read(_HOLD_BYTES):
        view = memoryview(data)
        while view:
            view = view[target.write(view) :]
    target.flush()
    sync_file(target.fileno())


_ACL: Final = "system.posix_acl_access"
_DEFAULT_ACL: Final = "system.posix_acl_default"
_MAX_LOOKS: Final = 256
_looks_alike: Final[dict[tuple[object, ...], bool]] = {}


def matches_new_file_in(directory: Path, file: Path) -> bool:
    """Whether a file has the owner, group, mode and ACL of one that is created in a directory.

    Setgid, a default ACL or an option of the mount make them differ. Found out by creating one,
    once for each state of the directory. Raises OSError.
    """
    place, own = directory.stat(), _rights(file)
    state = (str(directory), place.st_dev, place.st_mode, place.st_gid)
    key = (*state, _attribute(directory, _DEFAULT_ACL), own)
    known = _looks_alike.get(key)
    if known is None:
        known = _rights_in(directory) == own
        if len(_looks_alike) >= _MAX_LOOKS:
            _looks_alike.clear()
        _looks_alike[key] = known
    return known


def _rights_in(directory: Path) -> tuple[object, ...]:
    """Create a file, read what it got, and leave none; without a name where that is possible."""
    if hasattr(os, "O_TMPFILE"):
        with suppress(OSError):  # the file system does not know it
            handle = os.open(directory, os.O_WRONLY | os.O_TMPFILE, 0o666)
            try:
                return _rights(handle)
            finally:
                os.close(handle)
    probe = directory / f".{os.urandom(8).hex()}{PART_SUFFIX}"
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        return _rights(probe)
    finally:
        probe.unlink()


def _rights(file: Path | int) -> tuple[object, ...]:
    found = os.stat(file)  # noqa: PTH116 - it may be a descriptor
    return found.st_uid, found.st_gid, found.st_mode, _attribute(file, _ACL)


def _attribute(path: Path | int, name: str) -> bytes | None:
    if not hasattr(os, "getxattr"):
        return None
    try:
        return os.getxattr(path, name)
    except OSError:
        return None


def rename_durably(part: Path, final: Path) -> None:
    """Rename a durable part over its final name and make the rename durable."""
    part.replace(final)
    # Two names of one file are left as they are by a rename.
    part.unlink(missing_ok=True)
    sync_directory(final.parent)


def sha256_of(path: Path) -> str:
    """The digest of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(final: Path, data: bytes) -> None:
    """Write a small file so that it is whole under its name or not there. Raises OSError."""
    part = final.with_name(final.name + PART_SUFFIX)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(part, flags, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        sync_file(file.fileno())
    rename_durably(part, final)


def write_if_absent(final: Path, data: bytes) -> None:
    """Write a small file whole, unless another process was first. Raises OSError."""
    make_directories(final.parent)
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
        sync_directory(final.parent)
    finally:
        aside.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable; does nothing on a platform without directory sync."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        sync_file(handle)
    finally:
        os.close(handle)


def make_directories(directory: Path, mode: int = 0o777) -> None:
    """Make a directory and those above it, durably, so that no synced file can lose its directory.

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


def make_directory_below(root: Path, directory: Path) -> None:
    """Make ``directory``, which lies below ``root``, following no link on the way.

    Raises OSError, ELOOP where a part of the way below root is a symbolic link.
    """
    make_directories(root)
    step = root
    for name in directory.relative_to(root).parts:
        step = step / name
        if step.is_symlink():
            raise OSError(errno.ELOOP, "a symbolic link inside the output directory", str(step))
        make_directories(step)
