"""Sidecar: a JSON file next to an image with its prompt, model, cost and hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from batchgen.job import Job, SavedImage
from batchgen.ledger.records import Provenance
from batchgen.money import decimal_string
from batchgen.output.previous_versions import keep_edited
from batchgen.system.atomic_files import rename_durably, write_atomically

_MAX_BYTES: Final = 16 * 1024 * 1024
_CHECKSUM: Final = "sidecar_sha256"
"""The last field: SHA-256 of the file as it would be without this field."""


def sidecar_of(image: Path) -> Path:
    """Return the path of the sidecar: ``mug.json`` next to ``mug.png``."""
    return image.with_suffix(".json")


def is_sidecar(path: Path, batch: str, key: str) -> bool:
    """Return whether a file is the sidecar of this job, as it was written or edited."""
    return _is_of(_read(path), batch, key)


def is_sidecar_data(data: bytes, batch: str, key: str) -> bool:
    """Return whether the content of an object is the sidecar of this job; see `is_sidecar`."""
    return len(data) <= _MAX_BYTES and _is_of(_parse(data), batch, key)


def sidecar_digest(data: bytes) -> object:
    """Return the SHA-256 of the image that a sidecar describes; None if it is not a sidecar."""
    return _parse(data).get("sha256") if len(data) <= _MAX_BYTES else None


def is_edited(data: bytes) -> bool:
    """Return whether the content of a sidecar differs from what batchgen wrote."""
    return _CHECKSUM not in _parse(data) or _with_checksum(_without_checksum(data)) != data


def _without_checksum(data: bytes) -> dict[str, object]:
    return {name: value for name, value in _parse(data).items() if name != _CHECKSUM}


def free_sidecar_path(root: Path, image: Path, batch: str, key: str) -> None:
    """Move the sidecar of an image into the history unless it is what batchgen wrote for the job.

    Raises OSError.
    """
    sidecar = sidecar_of(image)
    try:
        data = sidecar.read_bytes()
    except FileNotFoundError:
        return
    if not is_sidecar_data(data, batch, key) or is_edited(data):
        keep_edited(root, sidecar.relative_to(root).as_posix())


def describes(image: Path, sha256: str) -> bool:
    """Return whether the sidecar at the place of an image describes an image with this hash."""
    return _read(sidecar_of(image)).get("sha256") == sha256


def remove_sidecar(root: Path, image: Path, batch: str, key: str) -> None:
    """Remove the sidecar of an image if it is that of the job; an edited one is kept.

    Raises OSError.
    """
    sidecar = sidecar_of(image)
    if is_sidecar(sidecar, batch, key):
        free_sidecar_path(root, image, batch, key)
        sidecar.unlink(missing_ok=True)


def _is_of(found: dict[str, object], batch: str, key: str) -> bool:
    return (found.get("batch"), found.get("key")) == (batch, key)


def _read(path: Path) -> dict[str, object]:
    """Return the content of a possible sidecar; empty if it cannot be one."""
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_BYTES:
            return {}
        return _parse(path.read_bytes())
    except OSError:
        return {}


def _parse(data: bytes) -> dict[str, object]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def move_sidecar(old: Path, new: Path, sha256: str) -> None:
    """Move the sidecar of a moved image; the sidecar of another image stays.

    A second call after a kill does nothing more. Raises OSError.
    """
    source, target = sidecar_of(old), sidecar_of(new)
    found = _read(source)
    if source == target or found.get("sha256") != sha256:
        return
    if not target.exists():
        if found.get("file") == new.name or is_edited(source.read_bytes()):
            rename_durably(source, target)
            return
        write_atomically(target, renamed_sidecar(source.read_bytes(), new.name))
    if describes(new, sha256):
        source.unlink()


def renamed_sidecar(data: bytes, name: str) -> bytes:
    """Return a sidecar for another file name of its image; an edited one is left as it is."""
    return data if is_edited(data) else _with_checksum(_without_checksum(data) | {"file": name})


def write_sidecar(image: Path, job: Job, saved: SavedImage, origin: Provenance) -> None:
    """Write the sidecar of an image durably. Raises OSError."""
    write_atomically(sidecar_of(image), sidecar_data(image.name, job, saved, origin))


def sidecar_data(name: str, job: Job, saved: SavedImage, origin: Provenance) -> bytes:
    """Return the content of the sidecar of an image file with this name."""
    record = {
        "batch": origin.batch,
        "key": job.key,
        **described(job, origin),
        "options": dict(job.options) if origin.is_current else None,
        "run": origin.run,
        "file": name,
        "sha256": saved.sha256,
        "bytes": saved.bytes,
        "width": saved.width,
        "height": saved.height,
        "format": saved.format,
    }
    return _with_checksum(record)


def _with_checksum(record: Mapping[str, object]) -> bytes:
    return _text({**record, _CHECKSUM: hashlib.sha256(_text(record)).hexdigest()})


def _text(record: Mapping[str, object]) -> bytes:
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    return text.encode(errors="replace")


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
