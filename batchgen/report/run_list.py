"""Format the runs of a batch as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from batchgen.ledger.run_list import RunRow
from batchgen.money import rounded_dollars
from batchgen.report.status import minute
from batchgen.text import duration

RUN_COLUMNS: Final = ("run", "started", "took", "new", "replaced", "charged", "possible", "exit")
_LEFT = {"started"}


def run_list_text(rows: Sequence[RunRow]) -> str:
    """Return a line per run; the cause of a stop follows its line."""
    table = [RUN_COLUMNS, *(run_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [_line(table[0], widths)]
    for row, cells in zip(rows, table[1:], strict=True):
        lines.append(_line(cells, widths))
        if row.stopped:
            lines.append(f"{'':{widths[0]}}  stopped: {row.stopped}")
    return "\n".join(lines)


def run_cells(row: RunRow) -> tuple[str, ...]:
    """Return the texts of a run, one for each of `RUN_COLUMNS`."""
    took = "-"
    if row.ended_at is not None:
        took = duration((_moment(row.ended_at) - _moment(row.started_at)).total_seconds())
    return (
        str(row.id),
        minute(row.started_at),
        took,
        f"{row.new:,}",
        f"{row.replaced:,}",
        rounded_dollars(row.charged),
        rounded_dollars(row.maybe),
        "-" if row.exit_code is None else str(row.exit_code),
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        f"{cell:<{width}}" if name in _LEFT else f"{cell:>{width}}"
        for name, cell, width in zip(RUN_COLUMNS, cells, widths, strict=True)
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
