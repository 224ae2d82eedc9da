"""`batchgen check`: report the errors of manifests, for a person or an editor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from batchgen.commands.plan import ledger_of, warn
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, Fault, ManifestError
from batchgen.ledger.reference_urls import NeededUrls
from batchgen.ledger.staging import Staging
from batchgen.report.plan_text import unfetched_text
from batchgen.session.prepare import prepare
from batchgen.session.stage_plan import PlanObserver, stage
from batchgen.text import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    """What a manifest without errors plans."""

    jobs: int
    rows_at_fault: int
    unfetched: int
    """Reference images given by URL that no run has fetched yet."""


def check(manifests: list[Path], *, as_json: bool = False) -> ExitCode:
    """Report all errors of each manifest, its rows and templates, and how its table was read.

    Exits with 1 if only single rows are at fault: a run would do the others. Reference images given
    by URL are checked if an earlier run has fetched them. Raises ManifestError with the errors of
    all manifests, unless ``as_json``: then each manifest is one JSON object.
    """
    directory = manifests[0].absolute().parent
    faults: list[Fault] = []
    code = ExitCode.DONE
    for path in manifests:
        tables: list[str] = []
        table_read = tables.append if as_json else partial(write_line, sys.stdout)
        try:
            found = _check(path, directory, table_read)
        except ManifestError as exc:
            faults += exc.faults
            if as_json:
                write_line(sys.stdout, json.dumps(_record(path, tables, None, exc.faults)))
            continue
        if found.rows_at_fault:
            code = ExitCode.UNFINISHED
        text = json.dumps(_record(path, tables, found, ())) if as_json else _line(path, found)
        write_line(sys.stdout, text)
    if faults and as_json:
        return ExitCode.USAGE
    if faults:
        raise ManifestError(faults)
    return code


def _check(path: Path, directory: Path, table_read: Callable[[str], None]) -> _Checked:
    prepared = prepare(path, None, ledger_directory=directory)
    with closing(ledger_of(prepared)) as conn:
        urls = NeededUrls(conn, prepared.references)
        staging = stage(
            Staging(conn),
            prepared,
            accept_unknown_price=True,
            reference_urls=urls,
            observer=PlanObserver(warned=warn, table_read=table_read),
        )
        return _Checked(
            jobs=staging.jobs, rows_at_fault=staging.rows_at_fault(), unfetched=urls.missing
        )


def _line(path: Path, found: _Checked) -> str:
    at_fault = found.rows_at_fault
    rows = "1 row is" if at_fault == 1 else f"{at_fault:,} rows are"
    what = f"{rows} at fault" if at_fault else "no faults"
    more = f"; {found.unfetched:,} {unfetched_text(found.unfetched)}" if found.unfetched else ""
    return f"{path}: {what}, {counted(found.jobs, 'job')}{more}"


def _record(
    path: Path, tables: list[str], found: _Checked | None, faults: tuple[Fault, ...]
) -> dict[str, object]:
    return {
        "manifest": str(path),
        "table": tables[0] if tables else None,
        "jobs": found.jobs if found else None,
        "rows_at_fault": found.rows_at_fault if found else None,
        "unfetched": found.unfetched if found else None,
        "errors": [
            {
                "file": fault.file,
                "line": fault.line,
                "column": fault.column,
                "path": fault.path,
                "message": fault.message,
            }
            for fault in faults
        ],
    }
