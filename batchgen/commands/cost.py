"""`batchgen cost`: sum up costs by batch, run, day, month, model, provider or tag."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from batchgen.console.csv_cells import without_formulas
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, SettingsError
from batchgen.ledger.batches import find_batch
from batchgen.ledger.budgets import MonthForecast, month_forecast
from batchgen.ledger.clock import utc_now
from batchgen.ledger.costs import CostBy, Costs, costs
from batchgen.ledger.database import open_for_reading
from batchgen.report.costs import cost_text, forecast_text
from batchgen.session.settings import Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """An inclusive range of days in UTC; None is open."""

    since: date | None = None
    until: date | None = None


def cost(
    name: str | None, db: Path | None, *, by: Sequence[str], days: Days, file_format: str
) -> ExitCode:
    """Show the sums of one batch, or of all, as ``text``, ``json`` or ``csv``.

    Raises SettingsError for an unknown word in ``by``.
    """
    groups = _groups(by)
    ledger = Environment.load().ledger_path(db, None)
    with closing(open_for_reading(ledger)) as conn:
        batch = None if name is None else find_batch(conn, name).id
        found = costs(conn, groups, batch=batch, since=days.since, until=days.until)
        is_by_month = CostBy.MONTH in groups and batch is None
        forecast = month_forecast(conn, utc_now()) if is_by_month else None
    match file_format:
        case "json":
            write_line(sys.stdout, json.dumps(_document(found, days, forecast)))
        case "csv":
            _write_csv(found)
        case _:
            write_line(sys.stdout, cost_text(found))
            if forecast is not None:
                write_line(sys.stdout, forecast_text(forecast))
    return ExitCode.DONE


def _groups(by: Sequence[str]) -> list[CostBy]:
    words = [word.strip() for written in by for word in written.split(",")]
    try:
        return list(dict.fromkeys(CostBy(word) for word in words)) or [CostBy.BATCH]
    except ValueError:
        wrong = next(word for word in words if word not in {*CostBy})
        raise SettingsError(f"--by: {wrong!r}; expected one of {', '.join(CostBy)}") from None


def _document(found: Costs, days: Days, forecast: MonthForecast | None) -> dict[str, object]:
    return {
        "by": list(found.by),
        "since": days.since.isoformat() if days.since else None,
        "until": days.until.isoformat() if days.until else None,
        "currency": "USD",
        "rows": found.records(),
        "total": found.total.as_record(),
        "forecast": forecast.as_record() if forecast else None,
    }


def _write_csv(found: Costs) -> None:
    names = [*found.by, *found.total.as_record()]
    writer = csv.DictWriter(sys.stdout, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(without_formulas, found.records()))
