"""The snapshot that the dashboard shows: figures, curves and the state of one run."""

from __future__ import annotations

import threading
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from batchgen.engine.throttle.limits import WaitReason
from batchgen.job import JobState
from batchgen.ledger.batch_status import BatchStatus, status
from batchgen.ledger.budgets import period_budgets
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.dashboard import (
    RunRow,
    attempt_span,
    attempts_after,
    attempts_of,
    newest_failures,
    newest_images,
    recent_runs,
    run_row,
    soonest_expiry,
)
from batchgen.ledger.samples import SAMPLE_EVERY_S, RecordedSample, samples_of
from batchgen.money import decimal_string
from batchgen.review.batch import ReviewBatch
from batchgen.review.series import Series
from batchgen.session.batch_lock import owner_of
from batchgen.system.process_owner import BatchOwner

_KEPT: Final = 8
_FRESH_S: Final = 2.5 * SAMPLE_EVERY_S


class Dashboard:
    """Makes snapshots of the runs of one batch. For threads."""

    def __init__(self, batch: ReviewBatch) -> None:
        self._batch = batch
        self._series = dict[int, Series]()
        self._lock = threading.Lock()
        self._limit = batch.images_per_minute()

    def snapshot(self, run: int | None, compare: int | None) -> dict[str, Any] | None:
        """Return everything that the page shows of a run, by default the newest; None of none."""
        batch = self._batch
        row = batch.read(run_row, batch.id, run)
        if row is None:
            return None
        row, owner = self._owned(row)
        now = timestamp(utc_now())
        found = batch.read(status, batch.row.name)
        samples = batch.read(samples_of, row.id)
        with self._lock:
            series = self._followed(row)
            curves = series.curves(row.ended_at or now)
            rates = series.rates(row.ended_at or now)
            other = self._compared(compare)
        state = _state(row, owner, samples, now)
        return {
            "batch": batch.row.name,
            "now": now,
            "run": self._run(row),
            "state": state,
            "status": found.as_json(),
            "queue": {
                "paid": found.jobs[JobState.PAID],
                "expires_at": batch.read(soonest_expiry, batch.id),
            },
            "curves": asdict(curves),
            "samples": [asdict(one) for one in _thinned(samples)],
            "rates": rates,
            "limit": self._limit,
            "left": _left(found, rates) if state["name"] in ("running", "waiting") else None,
            "budgets": self._budgets(row),
            "images": batch.read(newest_images, batch.id, row.id, series.last),
            "failures": batch.read(newest_failures, batch.id),
            "runs": [_money(one) for one in batch.read(recent_runs, batch.id)],
            "compared": other,
        }

    def _owned(self, row: RunRow) -> tuple[RunRow, BatchOwner | None]:
        """Return the run with its owner; None for a run that has ended or was killed."""
        batch = self._batch
        if row.is_closed:
            return row, None
        owner = owner_of(batch.ledger, batch.row.name)
        if owner is None:
            # It may have ended after its row was read; only one without an end still was killed.
            row = batch.read(run_row, batch.id, row.id) or row
        return row, owner

    def _followed(self, row: RunRow) -> Series:
        batch, series, end = self._batch, self._series.get(row.id), None
        if series is None:
            if len(self._series) >= _KEPT:
                del self._series[next(iter(self._series))]
            series = self._series[row.id] = Series(row.started_at)
        if not series.last:
            first, end = batch.read(attempt_span, row.id)
            series.last = max(0, first - 1)
        series.follow(
            lambda last: batch.read(attempts_after, row.id, last, end),
            lambda opened: batch.read(attempts_of, opened),
            is_closed=row.is_closed,
        )
        return series

    def _compared(self, run: int | None) -> dict[str, Any] | None:
        row = None if run is None else self._batch.read(run_row, self._batch.id, run)
        if row is None:
            return None
        curves = self._followed(row).curves(row.ended_at or timestamp(utc_now()))
        return {"run": self._run(row), "curves": asdict(curves)}

    def _run(self, row: RunRow) -> dict[str, Any]:
        money = {
            name: decimal_string(getattr(row, name))
            for name in ("estimate", "charged", "maybe", "reserved")
        }
        most = None if row.max_cost is None else decimal_string(row.max_cost)
        return asdict(row) | money | {"max_cost": most}

    def _budgets(self, row: RunRow) -> list[dict[str, str]]:
        used = row.charged + row.maybe + row.reserved
        found = [] if row.max_cost is None else [("run", row.max_cost, used)]
        found += [
            (one.period, one.max_cost, one.used)
            for one in self._batch.read(period_budgets, timestamp(utc_now()))
        ]
        return [
            {
                "period": period,
                "max_cost": decimal_string(most),
                "left": decimal_string(max(0, most - spent)),
            }
            for period, most, spent in found
        ]


def _state(
    row: RunRow, owner: BatchOwner | None, samples: list[RecordedSample], now: str
) -> dict[str, Any]:
    """Return the state; running, waiting, ended, stopped and killed differ by the lock."""
    if row.ended_at is not None:
        name = "stopped" if row.stopped else "ended"
        return {"name": name, "text": row.stopped or "", "owner": None}
    if owner is None:
        then = "run it again" if row.next is None else f"run {row.next} came after it"
        return {"name": "killed", "text": f"its process is gone; {then}", "owner": None}
    text = owner.text(utc_now().astimezone())
    last = samples[-1] if samples else None
    if last is None or _age_s(last.at, now) > _FRESH_S:
        return {"name": "running", "text": "", "owner": text}
    if last.waiting_for is not None and not last.waiting_for.startswith(WaitReason.RATE):
        return {"name": "waiting", "text": last.waiting_for, "owner": text}
    slowed = f"slowed to {last.width} of {last.allowed} by 429 or 503"
    return {
        "name": "running",
        "text": slowed if last.width < last.allowed else "",
        "owner": text,
    }


def _money(run: dict[str, Any]) -> dict[str, Any]:
    return run | {name: decimal_string(run[name]) for name in ("charged", "possible")}


def _thinned(samples: list[RecordedSample]) -> list[RecordedSample]:
    """Return at most 600 samples, the newest among them."""
    step = -(-len(samples) // 600) or 1
    return samples[::-1][::step][::-1]


def _left(
    found: BatchStatus, rates: tuple[float, float, float] | None
) -> dict[str, float | None] | None:
    """Return the seconds until the batch is done: likely, least and most. None if unknown."""
    if rates is None or not rates[0]:
        return None
    jobs = found.to_request
    recent, lowest, highest = rates
    return {
        "jobs": jobs,
        "seconds": jobs / recent * 60,
        "least": jobs / highest * 60,
        "most": jobs / lowest * 60 if lowest else None,
    }


def _age_s(at: str, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(at)).total_seconds()
