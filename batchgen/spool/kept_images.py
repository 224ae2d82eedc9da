"""Verified images kept in the spool because their output path cannot be written yet."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchgen.job import AttemptId
from batchgen.system.atomic_files import PRIVATE_DIRECTORY, PartFile, make_directories
from batchgen.system.claiming import replace

IMAGE: Final = ".answer.image."
"""Separator of attempt and position in the name of a kept image."""


class KeptImages:
    """The kept images of one spool. Their names are in memory, so most lookups need no I/O."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._names = set[str]()

    def load(self) -> None:
        """List the images that earlier runs kept. Raises OSError."""
        self._names.update(one.name for one in self._directory.iterdir() if IMAGE in one.name)

    def keep(self, attempt: AttemptId, position: int, image: Path) -> None:
        """Move a verified image into the spool, durably. Raises OSError."""
        make_directories(self._directory, mode=PRIVATE_DIRECTORY)
        kept = self._path(attempt, position)
        replace(image, kept)
        self._names.add(kept.name)

    def part(self, attempt: AttemptId, position: int) -> PartFile:
        """Return a temporary file for a download that `keep` will then take."""
        return PartFile(self._path(attempt, position), directory_mode=PRIVATE_DIRECTORY)

    def has(self, attempt: AttemptId, position: int) -> bool:
        """Return whether an image is kept, without I/O."""
        return bool(self._names) and self._path(attempt, position).name in self._names

    def find(self, attempt: AttemptId, position: int) -> Path | None:
        """Return the file of a kept image, if it exists."""
        kept = self._path(attempt, position)
        return kept if kept.name in self._names and kept.exists() else None

    def drop(self, attempt: AttemptId, position: int) -> None:
        """Remove a kept image after it was placed. Raises OSError."""
        self._remove(self._path(attempt, position).name)

    def drop_all(self, attempt: AttemptId) -> None:
        """Remove all kept images of an attempt. Raises OSError."""
        for name in [one for one in self._names if one.startswith(attempt + IMAGE)]:
            self._remove(name)

    def _remove(self, name: str) -> None:
        if name in self._names:
            (self._directory / name).unlink(missing_ok=True)
            self._names.discard(name)

    def _path(self, attempt: AttemptId, position: int) -> Path:
        return self._directory / f"{attempt}{IMAGE}{position}"
