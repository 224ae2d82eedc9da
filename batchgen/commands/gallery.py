"""`batchgen gallery`: write a static page of the images of a batch."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

from batchgen.commands.comparison import comparison
from batchgen.commands.shown_images import ShownImages
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, SettingsError
from batchgen.ledger.batches import BatchRow, find_batch
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.gallery import gallery_images, unfinished_jobs
from batchgen.ledger.manifest_paths import base_of, manifest_of
from batchgen.ledger.unpublished import unpublished_counts
from batchgen.manifest.loader import parse_manifest
from batchgen.manifest.rows import open_rows
from batchgen.manifest.table import RowsFault, ignore
from batchgen.output.presigned_links import Links
from batchgen.review.gallery import GalleryOptions, GalleryWriter, Written
from batchgen.review.image_files import ImageFiles
from batchgen.session.bucket_tables import with_kept_table
from batchgen.session.directories import references_directory
from batchgen.session.settings import Environment
from batchgen.session.storage import check_opened, stores_of_batch
from batchgen.text import counted, names_html

_TROUBLES_SHOWN: Final = 20


def gallery(
    name: str,
    db: Path | None,
    shown: ShownImages,
    output: Path | None,
    options: GalleryOptions,
    *,
    as_json: bool = False,
) -> ExitCode:
    """Write the gallery. Exits with 1 if an image is missing or damaged. Raises BatchgenError."""
    if output is not None and names_html(output):
        options = replace(options, single=True)
    if options.single and options.has_originals:
        place = "--single" if output is None else output
        raise SettingsError(
            f"{place}: a single file holds no full images; expected --size 320 or 640, or a"
            " directory"
        )
    ledger = Environment.load().ledger_path(db, None)
    with closing(open_for_reading(ledger)) as conn:
        batch = find_batch(conn, name)
        chosen = shown.of_batch(conn, batch)
        images = gallery_images(conn, batch.id, chosen, with_before=options.before)
        unfinished = unfinished_jobs(conn, batch.id) if options.compare else {}
        counts = unpublished_counts(conn, batch.id)
    check_opened(ledger, batch, {one.file.root for one in images})
    if not images:
        waits = counts.undecided and shown.which == "published"
        hint = "; new images wait for your decision: --unpublished shows them" if waits else ""
        raise SettingsError(f"{name}: no image to show; nothing was written{hint}")
    base = base_of(ledger, batch)
    values = _columns(ledger, batch, options.columns, {image.source for image in images})
    grid = None
    if options.compare:
        grid = comparison(ledger, batch, images, options.compare, unfinished)
    links = None
    if options.presigned is not None:
        links = Links.lasting(stores_of_batch(ledger, batch), options.presigned)
    default = f"gallery-{name}.html" if options.single else f"gallery-{name}"
    target = output or Path(default)
    try:
        writer = GalleryWriter(target, options, ImageFiles(ledger, batch, base), links)
        written = writer.write(images, values, grid)
    except OSError as exc:
        raise SettingsError(f"{target}: cannot be written: {exc.strerror or exc}") from exc
    if links is not None:
        write_line(sys.stderr, f"{name}: {links.notice('a link to a full image')}")
    page = target if options.single else target / "index.html"
    if as_json:
        record = {"batch": name, "page": str(page), "images": written.images}
        write_line(sys.stdout, json.dumps(record | {"not_available": written.troubles}))
        return ExitCode.UNFINISHED if written.troubles else ExitCode.DONE
    return _report(name, page, written)


def _report(name: str, page: Path, written: Written) -> ExitCode:
    for trouble in written.troubles[:_TROUBLES_SHOWN]:
        write_line(sys.stderr, f"{name}: {trouble}")
    more = len(written.troubles) - _TROUBLES_SHOWN
    if more > 0:
        write_line(sys.stderr, f"{name}: and {more:,} more")
    missing = f", {len(written.troubles):,} not available" if written.troubles else ""
    write_line(sys.stdout, f"{page}: {counted(written.images, 'image')}{missing}")
    return ExitCode.UNFINISHED if written.troubles else ExitCode.DONE


def _columns(
    ledger: Path, batch: BatchRow, wanted: Sequence[str], sources: Collection[str]
) -> dict[str, dict[str, str]]:
    """Return the wanted columns of lines of the manifest's table, by their source text.

    Raises SettingsError for a column that the table does not have, or a table that is not there.
    """
    if not wanted:
        return {}
    manifest = manifest_of(ledger, batch)
    loaded = parse_manifest(batch.manifest.encode(), file=manifest.name, path=manifest)
    loaded = with_kept_table(loaded, references_directory(ledger))
    rows = loaded.manifest.rows
    if rows is None:
        raise SettingsError("--columns: the manifest has no table; expected one with rows")
    found, known = dict[str, dict[str, str]](), set[str]()
    try:
        with closing(open_rows(rows, loaded.base, report=ignore, copies=loaded.copies)) as table:
            for row in table:
                cells = {**row.values, **row.raw}
                known |= cells.keys()
                if row.source in sources:
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
