"""Verified images in the spool that found no place in their output directories yet."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchgen.job import AttemptId
from batchgen.system.atomic_files import PartFile, make_directories
from batchgen.system.claiming import replace

IMAGE: Final = ".answer.image."
"""Between the attempt and the position in the name of a kept image."""
PRIVATE_DIRECTORY: Final = 0o700


class KeptImages:
    """The kept images of one spool, known without a look at the disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._names = set[str]()

    def look(self) -> None:
        """See what a run before has kept. Raises OSError."""
        self._names.update(one.name for one in self._directory.iterdir() if IMAGE in one.name)

    def keep(self, attempt: AttemptId, position: int, image: Path) -> None:
        """Take a verified image; it is durable afterwards. Raises OSError."""
        make_directories(self._directory, mode=PRIVATE_DIRECTORY)
        kept = self._place(attempt, position)
        replace(image, kept)
        self._names.add(kept.name)

    def part(self, attempt: AttemptId, position: int) -> PartFile:
        """Return a file to download an image to whose place can't be written; `keep` keeps it."""
        return PartFile(self._place(attempt, position), directory_mode=PRIVATE_DIRECTORY)

    def has(self, attempt: AttemptId, position: int) -> bool:
        """Whether there is a kept image."""
        return bool(self._names) and self._place(attempt, position).name in self._names

    def find(self, attempt: AttemptId, position: int) -> Path | None:
        """Return the file of a kept image, if there is one."""
        kept = self._place(attempt, position)
        return kept if kept.name in self._names and kept.exists() else None

    def drop(self, attempt: AttemptId, position: int) -> None:
        """Remove a kept image: it has its place now. Raises OSError."""
        self._remove(self._place(attempt, position).name)

    def drop_all(self, attempt: AttemptId) -> None:
        """Remove all kept images of an attempt. Raises OSError."""
        for name in [one for one in self._names if one.startswith(attempt + IMAGE)]:
            self._remove(name)

    def _remove(self, name: str) -> None:
        if name in self._names:
            (self._directory / name).unlink(missing_ok=True)
            self._names.discard(name)

    def _place(self, attempt: AttemptId, position: int) -> Path:
        return self._directory / f"{attempt}{IMAGE}{position}"
