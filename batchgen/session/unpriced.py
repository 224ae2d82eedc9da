"""Jobs whose price is unknown, and jobs of which an option leaves the price open."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping

from batchgen.errors import SettingsError
from batchgen.job import OptionValue
from batchgen.ledger.budgets import PERIODS, period_budgets
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.money import Micros, dollars
from batchgen.outcomes.retry_policy import Waste, parse_waste
from batchgen.providers.price_list import PriceSpan
from batchgen.providers.profile import Profile
from batchgen.session.prepare import RunSpec
from batchgen.session.run_limits import RunLimits
from batchgen.text import counted


def refuse_unpriced(conn: sqlite3.Connection, spec: RunSpec, models: Mapping[str, int]) -> None:
    """Refuse jobs of unknown price if a budget or allowance is set. Raises SettingsError.

    ``models`` counts planned jobs of price 0. Unless the manifest sets that price, it is unknown.
    """
    profile = spec.prepared.profile
    if profile.flat_price is not None or not models:
        return
    bounds = _bounds(conn, spec.limits)
    if not bounds:
        return
    jobs = counted(sum(models.values()), "job")
    raise SettingsError(
        f"{spec.name}: the price of {jobs} is unknown ({', '.join(sorted(models))}), so"
        f" {' and '.join(bounds)} can't be kept; set it as `provider: {{name:"
        f" {profile.name}, price: 0.05}}`, or remove what bounds the money."
        " Nothing was sent"
    )


def _bounds(conn: sqlite3.Connection, limits: RunLimits) -> list[str]:
    """Return the names of the limits on money; an allowance of 0 holds at any price."""
    found = []
    if limits.max_cost is not None:
        found.append("max_cost")
    if limits.max_waste not in (None, _NO_SHARE, _NO_AMOUNT):
        found.append("max_waste")
    budgets = {budget.period for budget in period_budgets(conn, timestamp(utc_now()))}
    return found + [f"the budget of a {period}" for period in PERIODS if period in budgets]


_NO_SHARE, _NO_AMOUNT = parse_waste("0%"), Waste(percent=None)


class OpenPrices:
    """Notes jobs whose price an option leaves open, to warn of each kind once."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._jobs: Counter[tuple[str, str]] = Counter()

    def note(
        self,
        model: str,
        options: Mapping[str, OptionValue],
        references: int,
        price: Micros,
        jobs: int,
    ) -> None:
        """Take up some jobs of one kind."""
        span = self._profile.price_span(model, options, references)
        if span is not None and span.open is not None:
            self._jobs[model, _open_text(span)] += jobs

    def lines(self) -> list[str]:
        """One line for each kind, with the number of its jobs."""
        return [
            f"{model}: {text} ({counted(jobs, 'job')})"
            for (model, text), jobs in sorted(self._jobs.items())
        ]


def _open_text(span: PriceSpan) -> str:
    option = span.open
    assert option is not None
    return (
        f"{option.name} is not set: priced as {option.highest} at {dollars(span.most)};"
        f" say {option.lowest} for {dollars(span.least)}"
    )


def unpriced_jobs(profile: Profile, models: Mapping[str, int]) -> int:
    """Return how many of the jobs of price 0 have an unknown price."""
    return 0 if profile.flat_price is not None else sum(models.values())
