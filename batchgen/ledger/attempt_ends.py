"""Write the ends of attempts in flight. Each function is part of a step in a transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from batchgen.job import AttemptId, Billed, JobId, RunId
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.run_sums import settle_price
from batchgen.ledger.runs import taken_over_error
from batchgen.ledger.value_rows import with_rows
from batchgen.money import Micros
from batchgen.outcomes.classify import Classification


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """How an attempt in flight ended."""

    attempt: AttemptId
    classification: Classification
    response: str | None
    """Name of the spooled response."""
    cost: Micros | None = None
    """The cost that the response states. Without it the attempt is charged its price; if an option
    leaves the price open, the least, and the rest is possible."""


@dataclass(frozen=True, slots=True)
class Closed:
    """An attempt whose end is written, and what it costs."""

    job: JobId
    run: RunId
    price: Micros
    charged: Micros
    possible: Micros


_COLUMNS: Final = (
    *("attempt", "new_outcome", "new_billed", "is_charged", "stated", "status", "code", "text"),
    *("request", "spooled"),
)
_CLOSE: Final = """
    UPDATE attempts SET ended_at = ?, outcome = new_outcome, billed = new_billed,
    cost = iif(is_charged, coalesce(stated, least, price), 0),
    possible = iif(is_charged AND stated IS NULL, price - coalesce(least, price), 0),
    price_known = price_known OR stated IS NOT NULL,
    http_status = status, error_code = code, message = text, request_id = request,
    response = spooled
    FROM one WHERE attempts.id = one.attempt AND outcome = 'sending'
    RETURNING id, price, cost, possible, job_id, run_id
"""


def close_attempts(ledger: Ledger, ends: Sequence[AttemptEnd]) -> list[Closed]:
    """Write the ends of attempts in flight, and settle the sums of their runs.

    Raises RunTakenOver.
    """
    clause, values = with_rows(_COLUMNS, [_row(end) for end in ends])
    rows = ledger.conn.execute(clause + _CLOSE, [*values, ledger.timestamp()])
    closed = {
        row["id"]: Closed(
            job=JobId(row["job_id"]),
            run=RunId(row["run_id"]),
            price=Micros(row["price"]),
            charged=Micros(row["cost"]),
            possible=Micros(row["possible"]),
        )
        for row in rows.fetchall()
    }
    for end in ends:
        if end.attempt not in closed:
            _raise_if_taken_over(ledger, end.attempt)
            raise AssertionError(f"attempt {end.attempt} is closed already")
    found = [closed[end.attempt] for end in ends]
    _settle_sums(ledger, ends, found)
    return found


def _row(end: AttemptEnd) -> tuple[object, ...]:
    classification = end.classification
    return (
        end.attempt,
        classification.outcome,
        classification.billed,
        classification.billed is Billed.YES,
        end.cost,
        classification.status,
        classification.code or None,
        classification.message or None,
        classification.request_id,
        end.response,
    )


def _settle_sums(ledger: Ledger, ends: Sequence[AttemptEnd], closed: Sequence[Closed]) -> None:
    """Move the prices from reserved to charged and possible, once for each run."""
    sums: defaultdict[RunId, list[int]] = defaultdict(lambda: [0, 0, 0])
    for end, one in zip(ends, closed, strict=True):
        is_open = end.classification.billed is Billed.MAYBE
        sums[one.run][0] += one.price
        sums[one.run][1] += one.charged
        sums[one.run][2] += one.price if is_open else one.possible
    for run, (price, charged, possible) in sums.items():
        settle_price(ledger, run, Micros(price), charged=Micros(charged), possible=Micros(possible))


def _raise_if_taken_over(ledger: Ledger, attempt: AttemptId) -> None:
    row = ledger.conn.execute(
        "SELECT runs.id AS id FROM attempts JOIN runs ON runs.id = run_id"
        " WHERE attempts.id = ? AND taken_by IS NOT NULL",
        (attempt,),
    ).fetchone()
    if row is not None:
        raise taken_over_error(ledger, RunId(row["id"]))
