"""`batchgen report`: what a run came to, and what is to be done about it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, ManifestError
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.manifest_paths import manifest_path
from batchgen.ledger.run_report import RunReport, run_report
from batchgen.manifest.lines import RowsFault
from batchgen.manifest.loader import parse_manifest
from batchgen.manifest.rows import open_rows
from batchgen.outcomes.blocked_words import BlockedPrompt, suspects
from batchgen.providers.registry import PROFILES
from batchgen.report.run import Morning, report_markdown, report_record, report_text
from batchgen.report.status import next_step
from batchgen.session.settings import Environment


def report(name: str, db: Path | None, *, run: int | None, file_format: str) -> ExitCode:
    """Write the report of a run, the newest by default. Raises UnknownBatchError."""
    morning = morning_of(Environment.load().ledger_path(db, None), name, run)
    match file_format:
        case "json":
            text = json.dumps(report_record(morning), ensure_ascii=False)
        case "markdown":
            text = report_markdown(morning)
        case _:
            text = report_text(morning)
    write_line(sys.stdout, text)
    return ExitCode.DONE


def morning_of(
    ledger: Path, name: str, run: int | None = None, *, only_news: bool = False
) -> Morning:
    """A run's report, with the columns that blocked prompts are put down to."""
    with closing(open_for_reading(ledger)) as conn:
        found = run_report(conn, name, run, only_news=only_news)
    profile = PROFILES.get(found.status.provider)
    has_log = profile is not None and profile.has_log
    return Morning(
        report=found,
        suspects=suspects(_with_rows(found, ledger), found.made_prompts),
        next_step=next_step(found.status, "", has_log=has_log),
    )


def _with_rows(found: RunReport, ledger: Path) -> Sequence[BlockedPrompt]:
    """Blocked prompts with the rows they were made of, where those can still be read."""
    if not found.blocked:
        return ()
    rows = _rows(found, ledger, {one.source for one in found.blocked})
    return [replace(one, values=rows.get(one.source, {})) for one in found.blocked]


def _rows(found: RunReport, ledger: Path, wanted: set[str]) -> Mapping[str, Mapping[str, object]]:
    path = manifest_path(ledger, found.manifest_path)
    rows: dict[str, Mapping[str, object]] = {}
    try:
        loaded = parse_manifest(found.manifest.encode(), file=path.name, path=path)
        source = loaded.manifest.rows
        if source is None:
            return rows
        with closing(open_rows(source, loaded.base, report=lambda fault: None)) as table:
            for row in table:
                if row.source in wanted:
                    rows[row.source] = row.values
                    if len(rows) == len(wanted):
                        break
    except (ManifestError, RowsFault, OSError):
        return rows  # the night's table is gone; the prompts' words tell something too
    return rows
