"""`batchgen rollback`: the images before the present ones, put back with their ledger."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

from batchgen.console.progress import write_line
from batchgen.errors import ExitCode
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.manifest_paths import base_of
from batchgen.ledger.only import Only, resolve_jobs
from batchgen.ledger.queries import find_batch
from batchgen.ledger.saved_images import Rollback, Version, find_rollbacks, record_rollback
from batchgen.output.previous_versions import MAX_KEPT, find_kept, keep, keep_edited, put_back
from batchgen.output.sidecar import is_sidecar, sidecar_of
from batchgen.session.batch_lock import batch_lock
from batchgen.session.settings import Environment
from batchgen.system.atomic_files import sha256_of


def rollback(name: str, db: Path | None, *, only: Only | None, run: int | None) -> ExitCode:
    """Exchange images with the ones that they replaced; exit with 1 if any is not kept.

    Rolling back twice brings the newer ones back. The jobs stay done, so the next run leaves them
    alone unless the manifest changes.
    """
    ledger = Environment.load().ledger_path(db, None)
    done, lost = 0, 0
    with batch_lock(ledger, name), closing(open_for_writing(ledger)) as conn:
        batch = find_batch(conn, name)
        base = base_of(ledger, batch)
        only = resolve_jobs(conn, only, batch.id, name)
        for rollback in list(find_rollbacks(conn, batch.id, only=only, run=run)):
            refused = _refusal(base, rollback)
            if refused is not None:
                lost += 1
                write_line(sys.stderr, f"{rollback.key}: {refused}")
                continue
            _put_back(base, name, rollback)
            record_rollback(conn, rollback)
            done += 1
            write_line(sys.stdout, f"{rollback.key}: back to {rollback.earlier[0].path}")
    images = "image is" if done == 1 else "images are"
    told = f", {lost:,} can't be" if lost else ""
    write_line(sys.stdout, f"{name}: {done:,} {images} put back{told}")
    return ExitCode.UNFINISHED if lost else ExitCode.DONE


def _refusal(base: Path, rollback: Rollback) -> str | None:
    """Why the earlier images can't be put back; None where they can."""
    ours = {base / now.root / now.path for now in rollback.current}
    for earlier in rollback.earlier:
        final = base / earlier.root / earlier.path
        if _is(final, earlier):
            continue
        if os.path.lexists(final) and final not in ours:
            return f"{earlier.path} is another image by now"
        if find_kept(base / earlier.root, earlier.path, earlier.sha256) is None:
            return f"{earlier.path} is not kept any more"
    for place in sorted(ours):
        if os.path.lexists(place) and (place.is_symlink() or not place.is_file()):
            return f"{place} is not a file"
    return None


def _is(path: Path, version: Version) -> bool:
    return path.is_file() and not path.is_symlink() and sha256_of(path) == version.sha256


def _put_back(base: Path, name: str, rollback: Rollback) -> None:
    """Exchange the files; killed in between, each is in its place or kept, and it can go on."""
    for now in rollback.current:
        _keep_present(base, now, rollback.earlier)
    for earlier in rollback.earlier:
        root = base / earlier.root
        if not _is(root / earlier.path, earlier):
            put_back(root, earlier.path, earlier.sha256)
    present = {(one.root, one.path) for one in rollback.earlier}
    for now in rollback.current:
        final = base / now.root / now.path
        sidecar = sidecar_of(final)
        if is_sidecar(sidecar, name, rollback.key):
            sidecar.unlink()  # it describes the image that went
        if (now.root, now.path) not in present:
            final.unlink(missing_ok=True)


def _keep_present(base: Path, now: Version, earlier: tuple[Version, ...]) -> None:
    """Keep what is in a present place below its own root; a file that was edited is moved."""
    root, final = base / now.root, base / now.root / now.path
    if not final.exists():
        return
    if _is(final, now):
        keep(root, now.path, count=MAX_KEPT + 1)
    elif not any(_is(final, one) for one in earlier):
        keep_edited(root, now.path)
