"""The sums of money of a run: the only statements that change them.

Invariants, for the attempts of each run:

- ``charged`` is the sum of their costs.
- ``maybe`` is the sum of what else may be charged for those that have ended.
- ``reserved`` is the sum of the prices of those in flight.
- ``wasted`` is the price of the rebuys that used the waste allowance of the run.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from batchgen.job import RunId
from batchgen.ledger.budgets import Budget
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.records import RunTotals
from batchgen.ledger.runs import taken_over_error
from batchgen.money import Micros

UNLIMITED: Final = Micros(2**62)
"""The ``max_cost`` of a run without a budget."""


def run_totals(ledger: Ledger, run: RunId) -> RunTotals:
    """Return the sums of the run so far."""
    row = ledger.conn.execute(
        "SELECT estimate, max_cost, max_waste, reserved, charged, maybe, wasted"
        " FROM runs WHERE id = ?",
        (run,),
    ).fetchone()
    return RunTotals(**dict(row))


def run_budget(ledger: Ledger, run: RunId) -> Budget:
    """Return the budget of the run and what is used of it, reserved prices included."""
    totals = run_totals(ledger, run)
    used = Micros(totals.charged + totals.maybe + totals.reserved)
    limit = totals.max_cost
    return Budget(period="run", max_cost=UNLIMITED if limit is None else limit, used=used)


def reserve_price(ledger: Ledger, run: RunId, price: Micros) -> None:
    """Reserve the price of an attempt. Raises RunTakenOver."""
    updated = ledger.conn.execute(
        "UPDATE runs SET reserved = reserved + ? WHERE id = ? AND taken_by IS NULL", (price, run)
    )
    if updated.rowcount != 1:
        raise taken_over_error(ledger, run)


def settle_price(
    ledger: Ledger, run: RunId, price: Micros, *, charged: Micros, possible: Micros
) -> None:
    """Replace the reserved price of an attempt by what it is charged and may be charged."""
    ledger.conn.execute(
        "UPDATE runs SET reserved = reserved - ?, charged = charged + ?, maybe = maybe + ?"
        " WHERE id = ?",
        (price, charged, possible, run),
    )


def adjust_sums(conn: sqlite3.Connection, run: RunId, *, charged: int, possible: int) -> None:
    """Add the differences, in micros, after a correction of an attempt that was settled before."""
    conn.execute(
        "UPDATE runs SET charged = charged + ?, maybe = maybe + ? WHERE id = ?",
        (charged, possible, run),
    )


def adjust_reserved(conn: sqlite3.Connection, run: RunId, price: Micros) -> None:
    """Reserve the price of an attempt in a run that may have ended."""
    conn.execute("UPDATE runs SET reserved = reserved + ? WHERE id = ?", (price, run))


def add_waste(ledger: Ledger, run: RunId, price: Micros) -> None:
    """Count the price of a rebuy against the waste allowance of the run."""
    ledger.conn.execute("UPDATE runs SET wasted = wasted + ? WHERE id = ?", (price, run))
