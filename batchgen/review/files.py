"""Files of images by their ids in the ledger: originals, earlier versions, thumbnails, references.

No path of a request is ever used: an id leads to a row, and the row to a file.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from batchgen.images.formats import BadImage
from batchgen.images.inspect import sniff
from batchgen.ledger.review import ImageFile, image_file, references_of
from batchgen.ledger.saved_places import saved_roots
from batchgen.review.batch import ReviewBatch
from batchgen.review.image_files import ImageFiles, NoFileError, check_shown
from batchgen.urls import is_bucket, is_url

MOST_PREPARED: Final = 20_000
MOST_PREPARED_OBJECTS: Final = 500
"""Each of them is downloaded, which costs money."""
SIZES: Final = (320, 1280)
"""Sides of thumbnails in pixels."""
_AT_ONCE: Final = 2
_HEAD_BYTES: Final = 64


class Files:
    """Finds and makes the files that the page shows. For threads."""

    def __init__(self, batch: ReviewBatch) -> None:
        self._batch = batch
        self._images = ImageFiles(batch.ledger, batch.row, batch.base)
        self._slots = threading.Semaphore(_AT_ONCE)

    @property
    def most_prepared(self) -> int:
        """How many thumbnails may be made before anybody looks at them."""
        roots = self._batch.read(saved_roots, self._batch.id)
        return MOST_PREPARED_OBJECTS if any(map(is_bucket, roots)) else MOST_PREPARED

    def original(self, image: int) -> tuple[Path, ImageFile]:
        """Return the file of an image. Raises NoFileError."""
        row = self._batch.read(image_file, self._batch.id, image)
        if row is None:
            raise NoFileError("no such image in this batch")
        return self._images.find(row), row

    def thumbnail(self, image: int, side: int) -> Path:
        """Return a thumbnail, made now if it is not there. Raises NoFileError."""
        row = self._batch.read(image_file, self._batch.id, image)
        if row is None or side not in SIZES:
            raise NoFileError("no such image in this batch")
        target = self._images.thumbnails.place(row.sha256, side)
        if target.is_file():
            return target
        source, row = self.original(image)
        check_shown(row)
        with self._slots:
            if target.is_file():
                return target
            try:
                self._images.thumbnails.read(source, row.sha256, side)
            except BadImage as exc:
                raise NoFileError(f"the file cannot be shown: {exc}") from exc
            except OSError as exc:
                raise NoFileError(f"the file cannot be read: {exc.strerror or exc}") from exc
        if not target.is_file():
            raise NoFileError(f"the thumbnail cannot be written: {target.parent}")
        return target

    def reference(self, job: int, number: int) -> tuple[Path, str]:
        """Return a reference image of a job and its media type. Raises NoFileError."""
        listed = self._batch.read(references_of, self._batch.id, job)
        if not 0 <= number < len(listed) or is_url(listed[number]):
            raise NoFileError("no such reference image")
        path = Path(listed[number])
        try:
            with path.open("rb") as stream:
                kind = sniff(stream.read(_HEAD_BYTES))
        except OSError as exc:
            raise NoFileError(f"the reference image cannot be read: {exc.strerror}") from exc
        if kind is None:
            raise NoFileError("the reference is not an image")
        return path, kind.mime
