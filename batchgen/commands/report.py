"""`batchgen report`: show the result of a run and what to do about it."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

from batchgen.console.color import shown
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.run_list import run_list
from batchgen.report.gather import morning_of
from batchgen.report.run import report_markdown, report_record, report_text
from batchgen.report.run_list import run_list_text
from batchgen.session.settings import Environment

_MAX_RUNS: Final = 100


def report(name: str, db: Path | None, *, run: int | None, file_format: str) -> ExitCode:
    """Write the report of a run, by default the newest. Raises UnknownBatchError."""
    morning = morning_of(Environment.load().ledger_path(db, None), name, run)
    match file_format:
        case "json":
            text = json.dumps(report_record(morning), ensure_ascii=False)
        case "markdown":
            text = report_markdown(morning)
        case _:
            text = shown(report_text(morning), sys.stdout)
    write_line(sys.stdout, text)
    return ExitCode.DONE


def list_runs(name: str, db: Path | None, *, as_json: bool) -> ExitCode:
    """List the newest runs of a batch, the newest first. Raises UnknownBatchError."""
    ledger = Environment.load().ledger_path(db, None)
    with closing(open_for_reading(ledger)) as conn:
        rows = run_list(conn, name, _MAX_RUNS)
    if as_json:
        for row in rows:
            write_line(sys.stdout, json.dumps(row.as_record()))
    else:
        text = run_list_text(rows) if rows else f"{name}: no run yet"
        write_line(sys.stdout, shown(text, sys.stdout))
    return ExitCode.DONE
