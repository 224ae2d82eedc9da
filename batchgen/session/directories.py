"""The directories of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchgen.urls import is_bucket

if TYPE_CHECKING:
    from batchgen.session.prepare import Prepared

SPOOL_SUFFIX: Final = ".spool"
REFERENCES_SUFFIX: Final = ".references"


def spool_directory(prepared: Prepared) -> Path:
    """Return where the responses of a ledger are kept: next to it."""
    return prepared.ledger.with_name(prepared.ledger.name + SPOOL_SUFFIX)


def references_directory(ledger: Path) -> Path:
    """Return where copies of reference images and tables are kept: next to the ledger."""
    return ledger.with_name(ledger.name + REFERENCES_SUFFIX)


def image_directory(prepared: Prepared) -> Path:
    """Return where the images go, except for jobs that name a directory of their own."""
    loaded = prepared.loaded
    output = loaded.manifest.output
    directory = output.dir if output and output.dir else f"out/{loaded.name}"
    # On their way to a bucket, images are on the disk of the spool.
    return spool_directory(prepared) if is_bucket(directory) else prepared.base / directory


def image_place(prepared: Prepared) -> str:
    """Return where the images of most jobs go, as a path or the URL of a bucket."""
    output = prepared.loaded.manifest.output
    if output and output.dir and is_bucket(output.dir):
        return output.dir
    return str(image_directory(prepared))
