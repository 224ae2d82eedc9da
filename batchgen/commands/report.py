"""`batchgen report`: show the result of a run and what to do about it."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

from batchgen.commands.export import opened_output
from batchgen.console.color import shown
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, SettingsError
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.run_list import run_list
from batchgen.report.gather import morning_of
from batchgen.report.run import Morning, report_markdown, report_record, report_text
from batchgen.report.run_list import run_list_text
from batchgen.session.settings import Environment
from batchgen.text import counted, file_size

_MAX_RUNS: Final = 100


def report(
    name: str, db: Path | None, *, run: int | None, file_format: str, output: Path | None = None
) -> ExitCode:
    """Write the report of a run, by default the newest, to ``output`` or stdout.

    Raises UnknownBatchError, and SettingsError for a file that cannot be written.
    """
    ledger = Environment.load().ledger_path(db, None)
    morning = morning_of(ledger, name, run)
    match file_format:
        case "json":
            text = json.dumps(report_record(morning), ensure_ascii=False)
        case "markdown":
            text = report_markdown(morning)
        case "html":
            text = _html(ledger, morning)
        case _:
            text = report_text(morning)
    what = f"report of run {morning.report.run.id}"
    return _write(text, output, what, file_format=file_format)


def list_runs(
    name: str, db: Path | None, *, file_format: str, output: Path | None = None
) -> ExitCode:
    """List the newest runs of a batch, the newest first; ``file_format`` is text, json or html.

    Raises UnknownBatchError, and SettingsError for a file that cannot be written.
    """
    ledger = Environment.load().ledger_path(db, None)
    with closing(open_for_reading(ledger)) as conn:
        rows = run_list(conn, name, _MAX_RUNS)
    match file_format:
        case "json":
            text = "\n".join(json.dumps(row.as_record()) for row in rows)
        case "html":
            from batchgen.review.report_page import runs_page

            text = runs_page(name, rows)
        case _:
            text = run_list_text(rows) if rows else f"{name}: no run yet"
    if file_format == "json" and not rows and output is None:
        return ExitCode.DONE
    return _write(text, output, counted(len(rows), "run"), file_format=file_format)


def _html(ledger: Path, morning: Morning) -> str:
    """Return the report as a page, with thumbnails of the images that the run made."""
    from batchgen.ledger.batches import find_batch
    from batchgen.ledger.budgets import period_budgets
    from batchgen.ledger.made_images import made_images
    from batchgen.ledger.manifest_paths import manifest_path
    from batchgen.review.image_files import ImageFiles
    from batchgen.review.report_page import MOST_IMAGES, ReportSources, report_page

    found = morning.report
    with closing(open_for_reading(ledger)) as conn:
        sources = ReportSources(
            images=made_images(conn, found.run.id, MOST_IMAGES),
            budgets=period_budgets(conn, timestamp(utc_now())),
            files=ImageFiles(
                ledger,
                find_batch(conn, found.status.batch),
                manifest_path(ledger, found.manifest_path).parent,
            ),
        )
    return report_page(morning, sources)


def _write(text: str, output: Path | None, what: str, *, file_format: str) -> ExitCode:
    """Write a report to a file or stdout. A page replaces an earlier one, and no other file."""
    if output is None:
        write_line(sys.stdout, shown(text, sys.stdout) if file_format == "text" else text)
        return ExitCode.DONE
    content = f"{text}\n"
    if file_format == "html":
        from batchgen.review.written_files import check_own, replace_file

        try:
            check_own(output, kind="report")
            replace_file(output, content.encode())
        except OSError as exc:
            raise SettingsError(f"{output}: cannot be written: {exc.strerror or exc}") from exc
    else:
        with opened_output(output) as stream:
            stream.write(content)
    write_line(sys.stdout, f"{output}: {what} ({file_size(len(content.encode()))})")
    return ExitCode.DONE
