"""What all batches of a ledger may cost in a day and in a month of UTC, and what is used of it.

What an attempt spends is added up by day in the table ``days``, by triggers: code that changes an
attempt can't forget it.
"""

from __future__ import annotations

import sqlite3
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from batchgen.ledger.transaction import write_transaction
from batchgen.money import Micros, decimal_string

PERIODS: Final = ("day", "month")
_DAY_S: Final = 86_400
PERIOD_TEXT: Final = {"run": "this run", "day": "today (UTC)", "month": "this month (UTC)"}
_PREFIX_CHARS: Final = {"day": 10, "month": 7}
"""Of a timestamp: the part that names the period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit and what counts against it: charged, maybe charged, and reserved."""

    period: str
    max_cost: Micros
    used: Micros

    @property
    def left(self) -> Micros:
        """What may still be spent; never below zero."""
        return Micros(max(0, self.max_cost - self.used))


def period_budgets(conn: sqlite3.Connection, now: str) -> list[Budget]:
    """Return the ledger's budgets at the timestamp ``now``; most ledgers have none."""
    rows = conn.execute(
        "SELECT period, max_cost FROM budgets WHERE period IN ('day', 'month') ORDER BY period"
    ).fetchall()
    return [
        Budget(
            period=row["period"],
            max_cost=Micros(row["max_cost"]),
            used=spent_in(conn, now[: _PREFIX_CHARS[row["period"]]]),
        )
        for row in rows
    ]


def spent_in(conn: sqlite3.Connection, prefix: str) -> Micros:
    """Return the micros that attempts of day ``2026-11-23`` or month ``2026-11`` may have cost."""
    row = conn.execute(
        "SELECT coalesce(sum(spent), 0) AS spent FROM days WHERE day BETWEEN ? AND ?",
        (prefix, f"{prefix}~"),
    ).fetchone()
    return Micros(row["spent"])


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthForecast:
    """What the current month will have cost at its end, if it continues as it began."""

    month: str
    """Such as ``2026-11``, in UTC."""
    spent: Micros
    """Charged, possibly charged and reserved until now."""
    projected: Micros
    budget: Micros | None
    """None without a budget for the month."""

    def as_record(self) -> dict[str, str | None]:
        """Return the forecast as JSON-compatible values, with money as decimal strings."""
        return {
            "month": self.month,
            "spent": decimal_string(self.spent),
            "projected": decimal_string(self.projected),
            "budget": None if self.budget is None else decimal_string(self.budget),
        }


def month_forecast(conn: sqlite3.Connection, now: datetime) -> MonthForecast:
    """Extrapolate the spending of the month linearly, from its first day in UTC to its last.

    At least one day counts as over, so that the first hours do not exaggerate.
    """
    now = now.astimezone(UTC)
    month = f"{now:%Y-%m}"
    spent = spent_in(conn, month)
    begin = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    days = monthrange(now.year, now.month)[1]
    month_s = days * _DAY_S
    passed_s = min(month_s, max(_DAY_S, (now - begin) // timedelta(seconds=1)))
    budget = conn.execute("SELECT max_cost FROM budgets WHERE period = 'month'").fetchone()
    return MonthForecast(
        month=month,
        spent=spent,
        projected=Micros(spent * month_s // passed_s),
        budget=None if budget is None else Micros(budget["max_cost"]),
    )


def set_budgets(conn: sqlite3.Connection, limits: Mapping[str, Micros | None]) -> None:
    """Set the limits of periods, in one transaction; None takes a limit away."""
    with write_transaction(conn):
        for period, limit in limits.items():
            conn.execute("DELETE FROM budgets WHERE period = ?", (period,))
            if limit is not None:
                conn.execute(
                    "INSERT INTO budgets (period, max_cost) VALUES (?, ?)", (period, limit)
                )
