"""The cost of the current month, extrapolated to its end."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from batchgen.ledger.budgets import month_forecast, set_budgets
from batchgen.ledger.ledger import Ledger
from batchgen.money import Micros
from batchgen.report.costs import forecast_text


def spend(ledger: Ledger, **days: int) -> None:
    for day, micros in days.items():
        ledger.conn.execute("INSERT INTO days VALUES (?, ?)", (day[1:].replace("_", "-"), micros))


@pytest.mark.parametrize(
    ("now", "projected"),
    [
        (datetime(2026, 11, 16, tzinfo=UTC), 20_000_000),
        (datetime(2026, 11, 1, 1, tzinfo=UTC), 300_000_000),
        (datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC), 10_000_004),
    ],
)
def test_forecast_is_linear_with_at_least_a_day(
    ledger: Ledger, now: datetime, projected: int
) -> None:
    spend(ledger, d2026_10_31=7, d2026_11_01=4_000_000, d2026_11_02=6_000_000, d2026_12_01=9)
    found = month_forecast(ledger.conn, now)
    assert (found.month, found.spent) == ("2026-11", 10_000_000)
    assert found.projected == pytest.approx(projected, abs=200)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (None, "at this pace"),
        (15_000_000, "at this pace; $5.00 over the budget of $15.00"),
        (25_000_000, "at this pace, within the budget of $25.00"),
    ],
)
def test_forecast_compares_with_the_budget(
    ledger: Ledger, budget: int | None, expected: str
) -> None:
    spend(ledger, d2026_11_01=10_000_000)
    set_budgets(ledger.conn, {"month": None if budget is None else Micros(budget)})
    text = forecast_text(month_forecast(ledger.conn, datetime(2026, 11, 16, tzinfo=UTC)))
    assert text.startswith("2026-11: $10.00 so far (possible costs included), $20.00 by the end")
    assert text.endswith(expected)
