"""Which jobs a run takes up, and which images it regenerates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from batchgen.ledger.key_patterns import Only


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What the command line adds to a manifest: which jobs, and which images are too old."""

    only: Only | None = None
    """Other jobs are left as they are."""
    refresh: str | None = None
    """In place of the manifest's ``refresh``."""
    since: datetime | None = None
    """Images that were made before are regenerated."""
    keep_rejected: bool = False
    """Leave images alone that were rejected in review."""


EVERYTHING: Final = Selection()
