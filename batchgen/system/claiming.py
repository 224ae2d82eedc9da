"""Rename a file to an unused name, so that no other file is replaced."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from batchgen.system.atomic_files import PART_SUFFIX
from batchgen.system.directory_sync import sync_directory_together
from batchgen.system.file_sync import sync_file

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCL: Final = 4
_UNSUPPORTED: Final = frozenset(
    {errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EACCES, errno.EMLINK}
    | {errno.ENOTSUP, errno.EOPNOTSUPP}
)
"""Errors of a file system that does not support a method; other errors apply to all methods."""


def claim(source: Path, name: Path) -> None:
    """Move a durable file to an unused name and make the name durable.

    Across file systems the file is copied, and the source is removed last. Raises OSError:
    FileExistsError if the name is taken, also by a symbolic link.
    """
    try:
        _claim(source, name)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        _move_by_copy(source, name, _claim)
    sync_directory_together(name.parent)


def link(source: Path, name: Path) -> bool:
    """Give a file a second, unused name. The caller syncs the directory.

    Return False on a file system without hard links. Raises OSError: FileExistsError if the name
    is taken, also by a symbolic link.
    """
    try:
        os.link(source, name)
    except OSError as exc:
        if exc.errno in _UNSUPPORTED or exc.errno == errno.EXDEV:
            return False
        raise
    return True


def replace(source: Path, name: Path) -> None:
    """Move a durable file to a name, replacing any file there. Raises OSError.

    Works across file systems.
    """
    try:
        source.replace(name)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        _move_by_copy(source, name, os.replace)
    # A rename does nothing if both names are hard links to one file.
    source.unlink(missing_ok=True)
    sync_directory_together(name.parent)


def is_one_name(one: Path, other: Path) -> bool:
    """Return whether two paths are one directory entry, as on a case-insensitive file system.

    Two hard links to one file are two entries. Raises OSError if one is missing.
    """
    if not one.samefile(other) or not one.parent.samefile(other.parent):
        return False
    if one.name == other.name:
        return True
    names = {entry.name for entry in one.parent.iterdir()}
    return not {one.name, other.name} <= names


def copy_to(source: Path, copy: Path) -> None:
    """Copy a file durably, with its modification time. Raises OSError; no copy is left then."""
    try:
        shutil.copyfile(source, copy, follow_symlinks=False)
        found = source.stat()
        os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
        handle = os.open(copy, os.O_RDWR)
        try:
            sync_file(handle)
        finally:
            os.close(handle)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise


def _move_by_copy(source: Path, name: Path, move: Callable[[Path, Path], None]) -> None:
    copy = name.with_name(f".{source.name.strip('.')}.copy{PART_SUFFIX}")
    copy_to(source, copy)
    try:
        move(copy, name)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    source.unlink(missing_ok=True)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def rename_exclusively(source: Path, name: Path) -> None:
    """Rename with the system call that refuses a taken name."""
    if sys.platform == "win32":
        source.rename(name)
        return
    libc = _libc()
    old, new = os.fsencode(source), os.fsencode(name)
    if hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE)
    elif hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(old, new, _RENAME_EXCL)
    else:
        raise OSError(errno.ENOSYS, "this system has no exclusive rename")
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(source), None, str(name))


def link_and_unlink(source: Path, name: Path) -> None:
    """Create a hard link, which fails if the name is taken, and remove the old name."""
    os.link(source, name)
    source.unlink()


def reserve_and_rename(source: Path, name: Path) -> None:
    """Create an empty file exclusively, then rename over it if it is still that file."""
    handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        reserved = os.fstat(handle)
    finally:
        os.close(handle)
    found = os.lstat(name)
    if not os.path.samestat(found, reserved) or found.st_size:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(name))
    source.replace(name)


def _claim(source: Path, name: Path) -> None:
    for method in (rename_exclusively, link_and_unlink):
        try:
            method(source, name)
        except OSError as exc:
            if exc.errno not in _UNSUPPORTED:
                raise
        else:
            return
    reserve_and_rename(source, name)
