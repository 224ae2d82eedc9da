"""Write one part of a dataset: a tar file, a directory of images or an index."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from batchgen.dataset.layout import Layout, file_name, record_bytes, sample_name
from batchgen.dataset.records import PartFile
from batchgen.dataset.tables import table_bytes
from batchgen.ledger.dataset_samples import Sample
from batchgen.storage.local import LocalStore
from batchgen.storage.store import Store
from batchgen.system.atomic_files import sha256_of

Verified = Iterable[tuple[Sample, str, bytes]]
"""Samples with their URLs and verified bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The files of a part, and how many images it has."""

    files: tuple[PartFile, ...]
    images: int


class PartWriter(Protocol):
    """Writes parts of one layout."""

    def names(self, number: int, samples: Sequence[Sample]) -> list[str]:
        """Return the names of the files that a part may get."""
        ...

    def write(self, number: int, samples: Verified) -> Written:
        """Write a part. Raises OSError."""
        ...


def part_writer(layout: Layout, store: Store) -> PartWriter:
    """Return the writer of a layout."""
    writers: dict[Layout, Callable[[Store], PartWriter]] = {
        Layout.WEBDATASET: TarWriter,
        Layout.IMAGEFOLDER: ImageDirectoryWriter,
        Layout.INDEX: IndexWriter,
    }
    return writers[layout](store)


class TarWriter:
    """Writes ``00000.tar`` with an image, its prompt and its record for each sample."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def names(self, number: int, samples: Sequence[Sample]) -> list[str]:
        return [f"{number:05d}.tar"]

    def write(self, number: int, samples: Verified) -> Written:
        (name,) = self.names(number, ())
        with _scratch_file(self._store, name) as path:
            with path.open("wb") as file:
                images = _write_tar(file, samples)
            digest = sha256_of(path)
            info = self._store.put_file(name, path)
        return Written(files=(PartFile(name=name, bytes=info.bytes, sha256=digest),), images=images)


@contextmanager
def _scratch_file(store: Store, name: str) -> Iterator[Path]:
    """Yield a temporary path on the store's own disk, or in the system's temporary directory."""
    if not isinstance(store, LocalStore):
        with tempfile.TemporaryDirectory(prefix="batchgen-") as scratch:
            yield Path(scratch, name)
        return
    path = store.part_of(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write_tar(file: BinaryIO, samples: Verified) -> int:
    images = 0
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for sample, _, data in samples:
            name = sample_name(sample)
            _add(tar, file_name(sample), data)
            _add(tar, f"{name}.txt", sample.prompt.encode(errors="replace"))
            _add(tar, f"{name}.json", record_bytes(sample))
            images += 1
    return images


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file without time and owner, so that equal samples give equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = _MODE
    tar.addfile(info, io.BytesIO(data))


_MODE: Final = 0o644


class ImageDirectoryWriter:
    """Writes ``00000/NAME.png`` for each sample and ``00000/metadata.parquet``.

    See https://huggingface.co/docs/datasets/image_dataset#imagefolder.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def names(self, number: int, samples: Sequence[Sample]) -> list[str]:
        images = [f"{number:05d}/{file_name(sample)}" for sample in samples]
        return [*images, f"{number:05d}/metadata.parquet"]

    def write(self, number: int, samples: Verified) -> Written:
        files, rows = list[PartFile](), list[tuple[str, Sample]]()
        for sample, _, data in samples:
            name = file_name(sample)
            files.append(_put(self._store, f"{number:05d}/{name}", data))
            rows.append((name, sample))
        if rows:
            table = table_bytes("file_name", rows)
            files.append(_put(self._store, f"{number:05d}/metadata.parquet", table))
        return Written(files=tuple(files), images=len(rows))


class IndexWriter:
    """Writes ``00000.parquet`` with the URL of each image."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def names(self, number: int, samples: Sequence[Sample]) -> list[str]:
        return [f"{number:05d}.parquet"]

    def write(self, number: int, samples: Verified) -> Written:
        (name,) = self.names(number, ())
        rows = [(url, sample) for sample, url, _ in samples]
        file = _put(self._store, name, table_bytes("url", rows))
        return Written(files=(file,), images=len(rows))


def _put(store: Store, name: str, data: bytes) -> PartFile:
    info = store.put(name, data)
    return PartFile(name=name, bytes=info.bytes, sha256=hashlib.sha256(data).hexdigest())
