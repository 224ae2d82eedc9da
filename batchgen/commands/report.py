"""`batchgen report`: show the result of a run and what to do about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from batchgen.console.color import shown
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode
from batchgen.report.gather import morning_of
from batchgen.report.run import report_markdown, report_record, report_text
from batchgen.session.settings import Environment


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
