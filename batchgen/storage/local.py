"""A directory of this machine as a store."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from batchgen.storage.store import ObjectInfo, StaleObjectError
from batchgen.system.atomic_files import (
    PART_SUFFIX,
    make_directories,
    sha256_of,
    sync_directory,
)
from batchgen.system.claiming import claim, replace
from batchgen.system.file_sync import sync_file

_CHUNK_BYTES: Final = 1 << 20
_PART_NAME: Final = re.compile(rf"\..+\.[0-9a-f]{{8}}{re.escape(PART_SUFFIX)}")


class LocalStore:
    """A directory of this machine; see `Store`.

    A conditional put by tag assumes one writer: the file is compared, then replaced.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def url(self) -> str:
        return self.root.as_uri()

    def path_of(self, name: str) -> Path:
        """Return the path of an object. Raises ValueError for a name that leads elsewhere."""
        parts = name.split("/")
        if not name or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{name!r}: not the name of an object")
        return self.root.joinpath(*parts)

    def part_of(self, name: str) -> Path:
        """Return an unused temporary path next to that of an object; `list` leaves it out."""
        final = self.path_of(name)
        return final.with_name(f".{final.name[-100:]}.{os.urandom(4).hex()}{PART_SUFFIX}")

    def remove_parts(self) -> None:
        """Remove the temporary files that killed writers left. Raises OSError."""
        for directory, _, names in os.walk(self.root):
            for one in names:
                if _PART_NAME.fullmatch(one):
                    Path(directory, one).unlink(missing_ok=True)

    def info(self, name: str) -> ObjectInfo | None:
        try:
            return _info(name, self.path_of(name).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, name: str) -> bytes:
        return self.path_of(name).read_bytes()

    def chunks(self, name: str) -> Iterator[bytes]:
        with self.path_of(name).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def digest(self, name: str) -> str | None:
        try:
            return sha256_of(self.path_of(name))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(
        self, name: str, data: bytes, *, create: bool = False, if_tag: str | None = None
    ) -> ObjectInfo:
        final = self.path_of(name)
        make_directories(final.parent)
        part = self.part_of(name)
        try:
            part.write_bytes(data)
            return self.put_file(name, part, create=create, if_tag=if_tag)
        finally:
            part.unlink(missing_ok=True)

    def put_file(
        self, name: str, source: Path, *, create: bool = False, if_tag: str | None = None
    ) -> ObjectInfo:
        final = self.path_of(name)
        make_directories(final.parent)
        with source.open("rb") as file:
            sync_file(file.fileno())
        if if_tag is not None:
            found = self.info(name)
            if found is None or found.e_tag != if_tag:
                raise StaleObjectError(name)
        if final.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))
        (claim if create else replace)(source, final)
        return _info(name, final.stat())

    def copy(self, name: str, target: str) -> None:
        self.put(target, self.read(name))

    def delete(self, name: str) -> None:
        path = self.path_of(name)
        try:
            path.unlink()
        except FileNotFoundError:
            return
        sync_directory(path.parent)

    def delete_all(self, names: Sequence[str]) -> None:
        for name in names:
            self.delete(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        top = self.root / prefix.rpartition("/")[0]
        for directory, _, names in os.walk(top):
            for one in names:
                path = Path(directory, one)
                name = path.relative_to(self.root).as_posix()
                if name.startswith(prefix) and not one.endswith(PART_SUFFIX):
                    yield _info(name, path.stat())


def _info(name: str, found: os.stat_result) -> ObjectInfo:
    tag = f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"
    return ObjectInfo(name=name, bytes=found.st_size, e_tag=tag)
