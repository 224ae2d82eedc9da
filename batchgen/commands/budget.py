"""`batchgen budget`: limit the cost of all batches of a ledger per day and per month."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, SettingsError
from batchgen.ledger.budgets import PERIODS, Budget, period_budgets, set_budgets, spent_in
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.money import Micros, decimal_string, dollars, parse_dollars, rounded_dollars
from batchgen.report.plan_summary import budget_record
from batchgen.session.settings import Environment


def budget(db: Path | None, *, day: str | None, month: str | None, as_json: bool) -> ExitCode:
    """Set the given budgets, where ``none`` removes one, and show all."""
    ledger = Environment.load().ledger_path(db, None)
    limits = {
        period: _limit(period, text)
        for period, text in (("day", day), ("month", month))
        if text is not None
    }
    if limits:
        with closing(open_for_writing(ledger)) as conn:
            set_budgets(conn, limits)
    now = timestamp(utc_now())
    with closing(open_for_reading(ledger)) as conn:
        found = period_budgets(conn, now)
        spent = {"day": spent_in(conn, now[:10]), "month": spent_in(conn, now[:7])}
    if as_json:
        record = {
            "budgets": [budget_record(one) for one in found],
            "spent": {period: decimal_string(amount) for period, amount in spent.items()},
        }
        write_line(sys.stdout, json.dumps(record))
    else:
        for period in PERIODS:
            write_line(sys.stdout, _line(period, spent[period], found))
    return ExitCode.DONE


def _limit(period: str, text: str) -> Micros | None:
    if text.strip().lower() == "none":
        return None
    try:
        return parse_dollars(text)
    except ValueError as exc:
        raise SettingsError(f"--{period}: {exc}; none takes the limit away") from exc


_NOW = {"day": "today (UTC)", "month": "this month (UTC)"}


def _line(period: str, spent: Micros, budgets: list[Budget]) -> str:
    for one in budgets:
        if one.period == period:
            used = f"{rounded_dollars(spent)} of {dollars(one.max_cost)} used or reserved"
            return f"{_NOW[period]}: {used}, {rounded_dollars(one.left)} left"
    return f"{_NOW[period]}: {rounded_dollars(spent)} used or reserved, no limit"
