"""Sidecar: a JSON file next to an image with its prompt, model, cost and hashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from batchgen.job import Job, SavedImage
from batchgen.ledger.records import Provenance
from batchgen.money import decimal_string
from batchgen.system.atomic_files import rename_durably, write_atomically

_MAX_BYTES: Final = 16 * 1024 * 1024


def sidecar_of(image: Path) -> Path:
    """Return the path of the sidecar: ``mug.json`` next to ``mug.png``."""
    return image.with_suffix(".json")


def is_sidecar(path: Path, batch: str, key: str) -> bool:
    """Return whether a file is the sidecar of this job, so that it may be replaced or removed."""
    found = _read(path)
    return (found.get("batch"), found.get("key")) == (batch, key)


def _read(path: Path) -> dict[str, object]:
    """Return the content of a possible sidecar; empty if it cannot be one."""
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_BYTES:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def move_sidecar(old: Path, new: Path, sha256: str) -> None:
    """Move the sidecar of a moved image; the sidecar of another image stays.

    Raises OSError.
    """
    source, target = sidecar_of(old), sidecar_of(new)
    if _read(source).get("sha256") == sha256 and not target.exists():
        rename_durably(source, target)


def write_sidecar(image: Path, job: Job, saved: SavedImage, origin: Provenance) -> None:
    """Write the sidecar of an image durably. Raises OSError."""
    record = {
        "batch": origin.batch,
        "key": job.key,
        **described(job, origin),
        "options": dict(job.options) if origin.is_current else None,
        "run": origin.run,
        "file": image.name,
        "sha256": saved.sha256,
        "bytes": saved.bytes,
        "width": saved.width,
        "height": saved.height,
        "format": saved.format,
    }
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    write_atomically(sidecar_of(image), text.encode(errors="replace"))


def described(job: Job, origin: Provenance) -> dict[str, str | None]:
    """Return the origin of an image and its cost in dollars.

    The prompt is None if the manifest has changed since the request was sent.
    """
    return {
        "prompt": job.prompt if origin.is_current else None,
        "provider": origin.provider,
        "model": origin.model,
        "cost": decimal_string(origin.cost),
        "request_id": origin.request_id,
        "made_at": origin.made_at,
    }
