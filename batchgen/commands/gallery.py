"""`batchgen gallery`: write a static page of the images of a batch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, SettingsError
from batchgen.ledger.batches import BatchRow, find_batch
from batchgen.ledger.clock import timestamp
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.gallery import gallery_images
from batchgen.ledger.manifest_paths import manifest_of
from batchgen.ledger.only import Only, resolve_jobs
from batchgen.ledger.review import ImageFilter
from batchgen.ledger.unpublished import unpublished_counts
from batchgen.manifest.loader import parse_manifest
from batchgen.manifest.rows import open_rows
from batchgen.manifest.table import RowsFault
from batchgen.review.gallery import GalleryOptions, GalleryWriter, Written
from batchgen.session.settings import Environment
from batchgen.session.storage import refuse_buckets
from batchgen.text import counted

_TROUBLES_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryImages:
    """Which images a gallery shows, by the options of the command."""

    run: int | None = None
    since: datetime | None = None
    only: Only | None = None
    decisions: Sequence[str] = ()
    tags: Sequence[str] = ()
    with_before: bool = False
    unpublished: bool = False
    """Images that wait for a decision, not the published ones."""


def gallery(
    name: str, db: Path | None, wanted: GalleryImages, output: Path | None, options: GalleryOptions
) -> ExitCode:
    """Write the gallery. Exits with 1 if an image is missing or damaged. Raises BatchgenError."""
    ledger = Environment.load().ledger_path(db, None)
    with closing(open_for_reading(ledger)) as conn:
        batch = find_batch(conn, name)
        refuse_buckets(conn, batch, "gallery")
        chosen = ImageFilter(
            runs=() if wanted.run is None else (wanted.run,),
            since=timestamp(wanted.since) if wanted.since is not None else None,
            only=resolve_jobs(conn, wanted.only, batch.id, name),
            decisions=wanted.decisions,
            tags=wanted.tags,
            which="unpublished" if wanted.unpublished else "published",
        )
        images = gallery_images(conn, batch.id, chosen, with_before=wanted.with_before)
        counts = unpublished_counts(conn, batch.id)
    if not images:
        waits = counts.undecided and not wanted.unpublished
        hint = "; new images wait for your decision: --unpublished shows them" if waits else ""
        raise SettingsError(f"{name}: no image to show; nothing was written{hint}")
    manifest = manifest_of(ledger, batch)
    values = _columns(batch, manifest, options.columns)
    is_file = output is not None and output.suffix.lower() in (".html", ".htm")
    options = replace(options, single=options.single or is_file)
    default = f"gallery-{name}.html" if options.single else f"gallery-{name}"
    target = output or Path(default)
    try:
        written = GalleryWriter(manifest.parent, target, options).write(images, values)
    except OSError as exc:
        raise SettingsError(f"{target}: cannot be written: {exc.strerror or exc}") from exc
    return _report(name, target, written, is_single=options.single)


def _report(name: str, target: Path, written: Written, *, is_single: bool) -> ExitCode:
    for trouble in written.troubles[:_TROUBLES_SHOWN]:
        write_line(sys.stderr, f"{name}: {trouble}")
    more = len(written.troubles) - _TROUBLES_SHOWN
    if more > 0:
        write_line(sys.stderr, f"{name}: and {more:,} more")
    page = target if is_single else target / "index.html"
    missing = f", {len(written.troubles):,} not available" if written.troubles else ""
    write_line(sys.stdout, f"{page}: {counted(written.images, 'image')}{missing}")
    return ExitCode.UNFINISHED if written.troubles else ExitCode.DONE


def _columns(batch: BatchRow, manifest: Path, wanted: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the wanted columns of each line of the manifest's table, by their source text.

    Raises SettingsError for a column that the table does not have, or a table that is not there.
    """
    if not wanted:
        return {}
    loaded = parse_manifest(batch.manifest.encode(), file=manifest.name, path=manifest)
    rows = loaded.manifest.rows
    if rows is None:
        raise SettingsError("--columns: the manifest has no table; expected one with rows")
    found, known = dict[str, dict[str, str]](), set[str]()
    try:
        with closing(open_rows(rows, loaded.base, report=lambda fault: None)) as table:
            for row in table:
                cells = {**row.values, **row.raw}
                known |= cells.keys()
                found[row.source] = {
                    name: str(cells[name]) for name in wanted if cells.get(name) is not None
                }
    except RowsFault as fault:
        raise SettingsError(f"--columns: {fault.message}") from fault
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SettingsError(
            f"--columns: the table has no column {unknown[0]!r}; it has {', '.join(sorted(known))}"
        )
    return found
