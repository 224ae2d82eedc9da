"""The thumbnails of a ledger's images: one per content, size and format, made once.

The review page, galleries and reports share them, in a directory next to the ledger. It can be
deleted at any time.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from batchgen.images.thumbnail import ThumbnailKind, thumbnail_bytes
from batchgen.review.written_files import replace_file
from batchgen.system.atomic_files import (
    PRIVATE_DIRECTORY,
    PRIVATE_FILE,
    make_directories,
    make_private_directory,
)

THUMBNAILS_SUFFIX: Final = ".thumbs"


class Thumbnails:
    """The thumbnails of one ledger. For threads."""

    def __init__(self, ledger: Path) -> None:
        self._directory = ledger.with_name(ledger.name + THUMBNAILS_SUFFIX)

    def place(self, sha256: str, side: int, kind: ThumbnailKind = "webp") -> Path:
        """Return the path of a thumbnail, whether or not it is there."""
        return self._directory / sha256[:2] / f"{sha256}.{side}.{kind}"

    def read(self, source: Path, sha256: str, side: int, kind: ThumbnailKind = "webp") -> bytes:
        """Return the content of a thumbnail of ``source``, whose bytes have this sha256.

        It is made and kept unless it is there. Where nothing can be written, it is only made.
        Raises BadImage for a file that cannot be decoded, and OSError for one that cannot be read.
        """
        place = self.place(sha256, side, kind)
        with suppress(OSError):
            if content := place.read_bytes():
                return content
        content = thumbnail_bytes(source, side, kind)
        with suppress(OSError):
            make_private_directory(self._directory)
            make_directories(place.parent, PRIVATE_DIRECTORY)
            replace_file(place, content)
            place.chmod(PRIVATE_FILE)
        return content
