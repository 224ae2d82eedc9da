"""At the start of a run, find images that the ledger lists as saved but that are not on disk."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from batchgen.job import BatchId
from batchgen.ledger.saved_places import done_places
from batchgen.system.shell_command import batch_command

_THREADS: Final = 8
_AT_ONCE: Final = 2_000
_EXAMPLES: Final = 3


@dataclass(slots=True)
class Missing:
    """How many images are missing, and some of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, paths: list[str]) -> None:
        """Count images that are missing."""
        self.count += len(paths)
        self.examples += paths[: _EXAMPLES - len(self.examples)]

    def text(self, name: str) -> str:
        """Return a warning with what to do."""
        images = "image is" if self.count == 1 else "images are"
        more = ", ..." if self.count > len(self.examples) else ""
        return (
            f"warning: {name}: {self.count:,} saved {images} missing: {', '.join(self.examples)}"
            f"{more}; no run rebuys them unasked; `{batch_command('verify', name, '--repair')}`"
            " downloads what the provider still has"
        )


def missing_images(conn: sqlite3.Connection, batch: BatchId, base: Path) -> Missing:
    """Find missing files of all done jobs of a batch, without reading file contents."""
    found = Missing()
    places = done_places(conn, batch)
    with ThreadPoolExecutor(_THREADS) as threads:
        waiting: list[Future[list[str]]] = []
        while page := list(islice(places, _AT_ONCE)):
            waiting.append(threads.submit(_missing_of, f"{base}{os.sep}", page))
            if len(waiting) >= 2 * _THREADS:
                found.add(waiting.pop(0).result())
        for look in waiting:
            found.add(look.result())
    return found


def _missing_of(base: str, places: list[str]) -> list[str]:
    join, exists = os.path.join, os.access  # strings: a Path takes twice the time
    return [
        place
        for place in places
        # Half the time of `lstat`, which has the last word: this one follows links, and says no
        # for errors too.
        if not exists(path := join(base, place), os.F_OK) and _is_missing(path)
    ]


def _is_missing(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # an error is not proof that it is gone
    return False
