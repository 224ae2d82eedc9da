"""The directories of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchgen.session.prepare import Prepared

SPOOL_SUFFIX: Final = ".spool"


def spool_directory(prepared: Prepared) -> Path:
    """Return where the responses of a ledger are kept: next to it."""
    return prepared.ledger.with_name(prepared.ledger.name + SPOOL_SUFFIX)


def image_directory(prepared: Prepared) -> Path:
    """Return where the images go, except for jobs that name a directory of their own."""
    loaded = prepared.loaded
    output = loaded.manifest.output
    return loaded.base / (output.dir if output and output.dir else f"out/{loaded.name}")
