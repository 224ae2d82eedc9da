"""Gather the report of a run from the ledger and the manifest's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from batchgen.errors import ManifestError
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.manifest_paths import manifest_path
from batchgen.ledger.run_report import RunReport, run_report
from batchgen.manifest.loader import parse_manifest
from batchgen.manifest.rows import open_rows
from batchgen.manifest.table import RowsFault, ignore
from batchgen.outcomes.blocked_words import BlockedPrompt, suspects
from batchgen.providers.registry import PROFILES
from batchgen.report.run import Morning, report_record, report_text
from batchgen.report.status import next_step
from batchgen.session.bucket_tables import with_kept_table
from batchgen.session.channels import FinishedReport
from batchgen.session.directories import references_directory


def morning_of(
    ledger: Path, name: str, run: int | None = None, *, only_news: bool = False
) -> Morning:
    """Return the report of a run, the newest by default. Raises UnknownBatchError.

    Includes the table columns that probably caused blocked prompts.
    """
    with closing(open_for_reading(ledger)) as conn:
        found = run_report(conn, name, run, only_news=only_news)
    profile = PROFILES.get(found.status.provider)
    has_log = profile is not None and profile.has_log
    return Morning(
        report=found,
        suspects=suspects(_with_rows(found, ledger), found.made_prompts),
        next_step=next_step(found.status, has_log=has_log),
    )


def finished_report(ledger: Path, name: str) -> FinishedReport:
    """Return the report of the newest run for a notification, with new failures only.

    Raises UnknownBatchError.
    """
    morning = morning_of(ledger, name, only_news=True)
    return FinishedReport(
        report=morning.report, text=report_text(morning), record=report_record(morning)
    )


def _with_rows(found: RunReport, ledger: Path) -> Sequence[BlockedPrompt]:
    """Return the blocked prompts with the values of their table rows, if these can be read."""
    if not found.blocked:
        return ()
    rows = _rows(found, ledger, {one.source for one in found.blocked})
    return [replace(one, values=rows.get(one.source, {})) for one in found.blocked]


def _rows(found: RunReport, ledger: Path, wanted: set[str]) -> Mapping[str, Mapping[str, object]]:
    path = manifest_path(ledger, found.manifest_path)
    rows: dict[str, Mapping[str, object]] = {}
    try:
        loaded = parse_manifest(found.manifest.encode(), file=path.name, path=path)
        loaded = with_kept_table(loaded, references_directory(ledger))
        source = loaded.manifest.rows
        if source is None:
            return rows
        with closing(open_rows(source, loaded.base, report=ignore, copies=loaded.copies)) as table:
            for row in table:
                if row.source in wanted:
                    rows[row.source] = row.values
                    if len(rows) == len(wanted):
                        break
    except (ManifestError, RowsFault, OSError):
        return rows  # the table is gone or has changed; the words of the prompts still help
    return rows
