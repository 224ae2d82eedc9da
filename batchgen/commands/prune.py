"""`batchgen prune`: list or delete the images of jobs that left the manifest."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from batchgen.commands.locked_batch import locked_batch
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode
from batchgen.ledger.manifest_paths import base_of
from batchgen.ledger.saved_images import Saved, forget_pruned, saved_images
from batchgen.output.bucket_sidecar import remove_sidecar_object
from batchgen.output.sidecar import remove_sidecar
from batchgen.session.storage import stores_of_batch
from batchgen.storage.stores import Stores
from batchgen.system.atomic_files import sha256_of
from batchgen.text import counted, file_size
from batchgen.urls import is_bucket


def prune(name: str, db: Path | None, *, yes: bool, as_json: bool = False) -> ExitCode:
    """List the images of retired jobs; with ``yes``, delete and record them.

    A file that was edited stays. So does the row of an image whose output directory is missing,
    because its disk may not be mounted.
    """
    with locked_batch(name, db) as batch:
        base = base_of(batch.ledger, batch.row)
        retired = [saved for saved in saved_images(batch.conn, batch.row.id) if saved.retired]
        stores = stores_of_batch(batch.ledger, batch.row)
        kept = {saved.image: why for saved in retired if (why := _why_kept(base, stores, saved))}
        removable = [saved for saved in retired if saved.image not in kept]
        for saved in retired:
            write_line(sys.stdout, _line(saved, kept.get(saved.image), yes=yes, as_json=as_json))
        if yes:
            for saved in removable:
                # The file goes first: after a kill in between, the image is known to be missing.
                _remove(base, stores, saved, name)
            forget_pruned(batch.conn, [saved.image for saved in removable])
    if not as_json:
        write_line(sys.stdout, _summary(name, removable, yes=yes))
    return ExitCode.DONE


def _remove(base: Path, stores: Stores, saved: Saved, name: str) -> None:
    if is_bucket(saved.root):
        store = stores.of(saved.root)
        store.delete(saved.path)
        remove_sidecar_object(store, saved.path, name, saved.key)
        return
    image = base / saved.root / saved.path
    image.unlink(missing_ok=True)
    remove_sidecar(base / saved.root, image, name, saved.key)


def _why_kept(base: Path, stores: Stores, saved: Saved) -> str | None:
    """Return why an image is left alone; None if it may be removed."""
    if not is_bucket(saved.root):
        return _kept(base, saved)
    present = stores.of(saved.root).digest(saved.path)
    return None if present in (None, saved.sha256) else "changed since, and left alone"


def _line(saved: Saved, kept: str | None, *, yes: bool, as_json: bool) -> str:
    """Return one image of a retired job; ``kept`` is why it stays."""
    if not as_json:
        left = f" ({kept})" if kept else ""
        waits = ", not published" if saved.unpublished else ""
        return f"{saved.root}/{saved.path} (job {saved.key}{waits}){left}"
    return json.dumps(
        {
            "key": saved.key,
            "root": saved.root,
            "path": saved.path,
            "bytes": saved.bytes,
            "unpublished": saved.unpublished,
            "deleted": yes and kept is None,
            "kept": kept,
        }
    )


def _kept(base: Path, saved: Saved) -> str | None:
    """Return why an image is kept; None if it may be deleted."""
    path = base / saved.root / saved.path
    if not (base / saved.root).is_dir():
        return f"{saved.root} does not exist; left alone"
    if not path.exists():
        return None
    same = path.stat().st_size == saved.bytes and sha256_of(path) == saved.sha256
    return None if same else "edited; left alone"


def _summary(name: str, removable: list[Saved], *, yes: bool) -> str:
    if not removable:
        return f"{name}: nothing to remove"
    size = file_size(sum(saved.bytes for saved in removable))
    jobs = len({saved.key for saved in removable})
    of_jobs = "a job that left the manifest" if jobs == 1 else "jobs that left the manifest"
    what = f"{counted(len(removable), 'image')} of {of_jobs} ({size})"
    if yes:
        return f"{name}: removed {what}"
    return f"{name}: {what}; --yes removes {'it' if len(removable) == 1 else 'them'}"
