"""Find the bytes of images by their rows in the ledger, in directories and in buckets.

No path of a request is ever used. What is found has the SHA-256 of the row.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from batchgen.errors import SettingsError
from batchgen.images.formats import BadImage, ImageFormat
from batchgen.images.thumbnail import ThumbnailKind
from batchgen.ledger.batches import BatchRow
from batchgen.ledger.review import ImageFile
from batchgen.output.bucket_copies import ChangedObjectError, ObjectCopies
from batchgen.output.previous_versions import find_kept
from batchgen.review.thumbnails import Thumbnails
from batchgen.session.storage import stores_of_batch
from batchgen.storage.store import StoreError
from batchgen.system.atomic_files import sha256_of
from batchgen.urls import is_bucket

_THREADS: Final = 8
_PAUSE_S: Final = 30.0
"""A bucket that failed is not tried again for this time: each try may take a minute."""


class NoFileError(Exception):
    """There is nothing to show; the message says why."""


def check_shown(row: ImageFile) -> None:
    """Raise NoFileError for a format that cannot be decoded here, with what to do."""
    if row.format == ImageFormat.HEIC:
        raise NoFileError(f"HEIC images cannot be shown here; open the file itself: {row.path}")


class ImageFiles:
    """Finds the files of a batch's images, and their thumbnails. For threads."""

    def __init__(self, ledger: Path, batch: BatchRow, base: Path) -> None:
        """Images in directories are below ``base``. No bucket is opened yet."""
        self.thumbnails = Thumbnails(ledger)
        self._base = base
        self._copies = ObjectCopies(ledger, stores_of_batch(ledger, batch))
        self._located: dict[int, str] = {}
        """Objects that `prepare` has found, by the ids of their images."""
        self._failed: dict[str, tuple[float, str]] = {}
        """When and how each bucket failed."""

    def find(self, row: ImageFile) -> Path:
        """Return a file with the bytes that the ledger recorded for an image.

        That of an image in a bucket is a copy. Raises NoFileError.
        """
        if not is_bucket(row.root):
            return _find_file(self._base, row)
        name = self._locate(row)
        try:
            return self._copies.copy(row.root, name, row.sha256)
        except (OSError, ChangedObjectError) as exc:
            raise self._no_object(row, exc) from exc

    def check(self, row: ImageFile) -> None:
        """Raise NoFileError unless the bytes of an image are there."""
        if is_bucket(row.root):
            self._locate(row)
        else:
            _find_file(self._base, row)

    def thumbnail(self, row: ImageFile, side: int, kind: ThumbnailKind = "webp") -> bytes:
        """Return a thumbnail; that of an object which is unchanged needs no copy.

        Raises NoFileError, BadImage and OSError.
        """
        if is_bucket(row.root):
            self._locate(row)
            place = self.thumbnails.place(row.sha256, side, kind)
            with suppress(OSError):
                if content := place.read_bytes():
                    return content
        return self.thumbnails.read(self.find(row), row.sha256, side, kind)

    def prepare(self, rows: Iterable[ImageFile], side: int) -> None:
        """Look up objects and make their thumbnails, several at a time; errors are left."""

        def work(row: ImageFile) -> None:
            with suppress(NoFileError, BadImage, OSError):
                check_shown(row)
                self._located[row.id] = self._locate(row)
                self.thumbnail(row, side)

        with ThreadPoolExecutor(_THREADS) as threads:
            for _ in threads.map(work, (row for row in rows if is_bucket(row.root))):
                pass

    def _locate(self, row: ImageFile) -> str:
        if row.id in self._located:
            return self._located[row.id]
        failed_at, why = self._failed.get(row.root, (0.0, ""))
        if why and time.monotonic() - failed_at < _PAUSE_S:
            raise NoFileError(why)
        try:
            return self._copies.locate(
                row.root, row.path, row.sha256, is_saved=row.state == "saved"
            )
        except (OSError, ChangedObjectError, SettingsError) as exc:
            raise self._no_object(row, exc) from exc

    def _no_object(self, row: ImageFile, error: Exception) -> NoFileError:
        """Return the error to show, which does not name the bucket."""
        if isinstance(error, ChangedObjectError):
            return NoFileError(f"the object was changed after batchgen saved it: {row.path}")
        if isinstance(error, FileNotFoundError):
            what = "is missing" if row.state == "saved" else "is not kept any more"
            return NoFileError(f"the object {what}: {row.path}")
        if isinstance(error, SettingsError):
            why = "the bucket cannot be opened; `batchgen verify` says why"
        elif isinstance(error, StoreError):
            why = f"the bucket cannot be read: {error.strerror}"
        else:
            why = f"the copy of the object cannot be written: {error}"
        self._failed[row.root] = (time.monotonic(), why)
        return NoFileError(why)


def _find_file(base: Path, row: ImageFile) -> Path:
    root = base / row.root
    current = root / row.path
    if row.state == "saved" and current.is_file():
        if sha256_of(current) == row.sha256:
            return current
        raise NoFileError(f"the file was changed after batchgen saved it: {row.path}")
    kept = find_kept(root, row.path, row.sha256)
    if kept is None:
        what = "is missing" if row.state == "saved" else "is not kept any more"
        raise NoFileError(f"the file {what}: {row.path}")
    return kept
