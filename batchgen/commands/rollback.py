"""`batchgen rollback`: restore the previous versions of images, and record it in the ledger."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from batchgen.commands.locked_batch import locked_batch
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode
from batchgen.ledger.batches import check_run
from batchgen.ledger.key_patterns import Only, resolve_jobs
from batchgen.ledger.manifest_paths import base_of
from batchgen.ledger.saved_images import Rollback, Version, find_rollbacks, record_rollback
from batchgen.output.bucket_rollback import object_refusal, put_objects_back
from batchgen.output.previous_versions import MAX_KEPT, find_kept, keep, keep_edited, put_back
from batchgen.output.sidecar import remove_sidecar
from batchgen.session.storage import stores_of_batch
from batchgen.system.atomic_files import sha256_of
from batchgen.system.claiming import is_one_name
from batchgen.urls import is_bucket


def rollback(
    name: str, db: Path | None, *, only: Only | None, run: int | None, as_json: bool = False
) -> ExitCode:
    """Restore replaced images; exit with 1 if one is not kept.

    A second rollback restores the newer versions. The jobs stay done, so the next run leaves them
    alone unless the manifest changes.
    """
    done, lost = 0, 0
    with locked_batch(name, db) as batch:
        base = base_of(batch.ledger, batch.row)
        stores = stores_of_batch(batch.ledger, batch.row)
        if run is not None:
            check_run(batch.conn, batch.row, run)
        only = resolve_jobs(batch.conn, only, batch.row.id, name)
        for one in list(find_rollbacks(batch.conn, batch.row.id, only=only, run=run)):
            in_bucket = any(is_bucket(image.root) for image in (*one.current, *one.earlier))
            refused = object_refusal(stores, one) if in_bucket else _refusal(base, one)
            if refused is not None:
                lost += 1
                if as_json:
                    write_line(sys.stdout, _record(one, refused))
                else:
                    write_line(sys.stderr, f"{one.key}: {refused}")
                continue
            if in_bucket:
                put_objects_back(stores, name, one)
            else:
                _put_back(base, name, one)
            record_rollback(batch.conn, one)
            done += 1
            text = _record(one, None) if as_json else f"{one.key}: back to {one.earlier[0].path}"
            write_line(sys.stdout, text)
    code = ExitCode.UNFINISHED if lost else ExitCode.DONE
    if as_json:
        return code
    if not done and not lost:
        write_line(sys.stdout, f"{name}: no image has a previous version; nothing was changed")
        return code
    images = "image is" if done == 1 else "images are"
    failed = f", {lost:,} cannot be" if lost else ""
    write_line(sys.stdout, f"{name}: {done:,} {images} restored{failed}")
    return code


def _record(rollback: Rollback, refused: str | None) -> str:
    paths = [version.path for version in rollback.earlier]
    return json.dumps({"key": rollback.key, "paths": paths, "refused": refused})


def _refusal(base: Path, rollback: Rollback) -> str | None:
    """Return why the previous images cannot be restored; None if they can."""
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
    """Restore the files. After a kill in between, each is at its path or kept, and a second call
    continues.
    """
    for now in rollback.current:
        _keep_present(base, now, rollback.earlier)
    for earlier in rollback.earlier:
        root = base / earlier.root
        if not _is(root / earlier.path, earlier):
            put_back(root, earlier.path, earlier.sha256)
    restored = [base / one.root / one.path for one in rollback.earlier]
    for now in rollback.current:
        final = base / now.root / now.path
        remove_sidecar(base / now.root, final, name, rollback.key)  # it describes this image
        if final.exists() and not any(is_one_name(final, one) for one in restored):
            final.unlink()


def _keep_present(base: Path, now: Version, earlier: tuple[Version, ...]) -> None:
    """Keep the current file of a path below its own root; an edited file is moved."""
    root, final = base / now.root, base / now.root / now.path
    if not final.exists():
        return
    if _is(final, now):
        keep(root, now.path, count=MAX_KEPT + 1)
    elif not any(_is(final, one) for one in earlier):
        keep_edited(root, now.path)
