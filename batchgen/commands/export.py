"""`batchgen export`: write jobs, attempts, images or decisions of a batch as a stream of rows."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TextIO

from batchgen.console.csv_cells import without_formulas
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, SettingsError
from batchgen.job import ROW_REASON, OutputOptions
from batchgen.ledger.batches import check_run, find_batch
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.exports import Waiting, export_columns, waiting
from batchgen.ledger.exports import export as export_rows
from batchgen.ledger.manifest_paths import manifest_of
from batchgen.ledger.review_summary import DECISION_COLUMNS, exported_decisions
from batchgen.manifest.export import WrittenJob, partial_manifest
from batchgen.manifest.loader import parse_manifest
from batchgen.manifest.model import Manifest
from batchgen.output.presigned_links import Links
from batchgen.session.settings import DB_NAME, Environment
from batchgen.session.storage import stores_of_batch
from batchgen.system.shell_command import shell_command
from batchgen.text import cause_of


def export(
    name: str,
    db: Path | None,
    *,
    what: str,
    file_format: str,
    output: Path | None,
    run: int | None = None,
    presigned: timedelta | None = None,
) -> ExitCode:
    """Write the rows to ``output``, or to stdout; with ``run``, only those of that run.

    ``presigned`` adds links to images in buckets that last so long. ``file_format`` is jsonl, csv
    (without formulas of a spreadsheet) or csv-raw. Raises UnknownBatchError for a batch or a run
    that does not exist, and SettingsError.
    """
    ledger = Environment.load().ledger_path(db, None)
    with closing(open_for_reading(ledger)) as conn:
        batch = find_batch(conn, name)
        if run is not None:
            check_run(conn, batch, run)
        if what == "decisions":
            rows: Iterator[dict[str, object]] = iter(exported_decisions(conn, batch.id))
            columns: tuple[str, ...] = DECISION_COLUMNS
        else:
            rows = export_rows(conn, batch.id, what, run)
            columns = export_columns(conn, what)
        links = None
        if presigned is not None:
            links = Links.lasting(stores_of_batch(ledger, batch), presigned)
            rows, columns = links.added_to(rows), (*columns, *links.columns)
        with opened_output(output) as stream:
            _write(rows, columns, file_format, stream)
    if links is not None:
        write_line(sys.stderr, links.notice("presigned_url"))
    return ExitCode.DONE


@contextmanager
def opened_output(output: Path | None) -> Iterator[TextIO]:
    """Open a new file, or stdout where ``output`` is None. Raises SettingsError."""
    if output is None:
        yield sys.stdout
        return
    try:
        with output.open("x", encoding="utf-8", newline="") as stream:
            yield stream
    except FileExistsError:
        raise SettingsError(f"{output}: exists already, and is not overwritten") from None
    except OSError as exc:
        raise SettingsError(f"{output}: can't be written: {cause_of(exc)}") from exc


def export_failed(name: str, db: Path | None, *, output: Path | None) -> ExitCode:
    """Write a manifest of the failed and blocked jobs with their keys, to edit and run."""
    ledger = Environment.load().ledger_path(db, None)
    with closing(open_for_reading(ledger)) as conn:
        batch = find_batch(conn, name)
        path = manifest_of(ledger, batch)
        manifest = parse_manifest(batch.manifest.encode(), file=path.name, path=path).manifest
        jobs = waiting(conn, batch.id)
        first = next(jobs, None)
        if first is None:
            text = f"{name}: no failed or blocked job; no manifest was written"
            write_line(sys.stderr, text)
            return ExitCode.DONE
        pieces = partial_manifest(
            name,
            _settings(manifest, path.parent),
            map(_written, chain([first], jobs)),
        )
        with opened_output(output) as stream:
            stream.writelines(pieces)
    if output is not None:
        is_found = (output.absolute().parent / DB_NAME).resolve() == ledger
        named: tuple[str | Path, ...] = () if is_found else ("--db", ledger)
        next_step = shell_command("run", output, *named)
        write_line(sys.stderr, f"next: {next_step}   # after you fixed the jobs in it")
    return ExitCode.DONE


def _settings(manifest: Manifest, base: Path) -> dict[str, object]:
    """Return the settings of a manifest under which its failed jobs are sent again.

    Paths relative to its directory ``base`` are made absolute: the file may be put elsewhere.
    """
    provider, storage = manifest.provider, manifest.storage
    if not isinstance(provider, str) and provider.ca_file is not None:
        is_relative = not provider.ca_file.startswith(("~", "${"))
        ca_file = str(base / provider.ca_file) if is_relative else provider.ca_file
        provider = provider.model_copy(update={"ca_file": ca_file})
    return {
        "provider": (
            provider if isinstance(provider, str) else provider.model_dump(exclude_none=True)
        ),
        "limits": manifest.limits.model_dump(exclude_none=True),
        "rules": manifest.rules if manifest.rules != "refuse" else None,
        "share": manifest.share,
        "storage": storage.model_dump(exclude_none=True) if storage is not None else None,
    }


def _output(job: Waiting) -> dict[str, object]:
    """Return the options of a job's output that are not the defaults."""
    found = dict[str, object]()
    for name, default in asdict(OutputOptions()).items():
        value = type(default)(job.output[name])
        if value != default:
            found[name] = value
    return found


def _written(job: Waiting) -> WrittenJob:
    return WrittenJob(
        key=job.key,
        why=f"{job.state}, {job.reason}\nfrom {job.source}",
        model=job.model,
        prompt=job.prompt,
        options=json.loads(job.options),
        images=job.images,
        mask=job.mask,
        root=job.root,
        path=job.path,
        output=_output(job),
        tags=tuple(json.loads(job.tags)),
        is_whole=not job.reason.startswith(f"{ROW_REASON}:"),
    )


def _write(
    rows: Iterator[dict[str, object]], columns: Sequence[str], file_format: str, stream: TextIO
) -> None:
    if file_format == "jsonl":
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    if file_format == "csv":
        rows = map(without_formulas, rows)
    writer = csv.DictWriter(stream, fieldnames=columns)
    writer.writeheader()
    writer.writerows(rows)
