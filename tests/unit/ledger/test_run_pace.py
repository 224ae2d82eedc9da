"""The pace of a run as the ledger shows it to other processes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from batchgen.ledger.clock import timestamp
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.run_pace import run_pace
from tests.support.builders import enroll, planned, start

NOW = datetime(2026, 11, 29, 10, tzinfo=UTC)


def add(ledger: Ledger, run: int, number: int, ago_s: float, outcome: str = "ok") -> None:
    ended = timestamp(NOW - timedelta(seconds=ago_s))
    billed = "yes" if outcome == "ok" else "no"
    ledger.conn.execute(
        "INSERT INTO attempts (id, job_id, run_id, fingerprint, provider, model, started_at,"
        " ended_at, outcome, billed, price) VALUES (?, 1, ?, 'f', 'p', 'm', ?, ?, ?, ?, 0)",
        (f"a{number}", run, ended, ended, outcome, billed),
    )


@pytest.mark.parametrize(
    ("ends", "age_s", "per_minute"),
    [([], 600, 0.0), ([1, 30, 110], 600, 1.5), ([1, 130, 500], 600, 0.5), ([1, 5], 10, 12.0)],
)
def test_pace_counts_two_minutes(
    ledger: Ledger, ends: list[float], age_s: float, per_minute: float
) -> None:
    batch = enroll(ledger, [planned(1)])
    run = start(ledger, batch)
    for number, ago_s in enumerate(reversed(ends)):
        add(ledger, run, number, ago_s)
    found = run_pace(ledger.conn, run, timestamp(NOW - timedelta(seconds=age_s)), NOW)
    assert found.per_minute == pytest.approx(per_minute)
    assert found.last_image_at == (NOW - timedelta(seconds=ends[0]) if ends else None)
    assert found.left_s(60) == (None if not ends else pytest.approx(60 / per_minute * 60))


def test_pace_counts_throttled_responses_of_a_minute(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(1)])
    run, other = start(ledger, batch), start(ledger, batch)
    for number, (owner, ago_s) in enumerate([(run, 61), (run, 59), (run, 1), (other, 1)]):
        add(ledger, owner, number, ago_s, "throttled")
    found = run_pace(ledger.conn, run, timestamp(NOW - timedelta(hours=1)), NOW)
    assert found.throttled == 2
    assert found.per_minute == 0


def test_pace_names_a_rate_learned_since_the_start(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(1)])
    run, other = start(ledger, batch), start(ledger, batch)
    add(ledger, run, 1, 60, "throttled")
    began = NOW - timedelta(minutes=5)
    for kind, value, ago_s in (("interval", 1.25, 60), ("slack", 0.05, 5)):
        at = (NOW - timedelta(seconds=ago_s)).timestamp()
        ledger.conn.execute("INSERT INTO paces VALUES ('k', ?, ?, ?)", (kind, value, at))
    assert run_pace(ledger.conn, run, timestamp(began), NOW).learned_per_minute == 48
    later = timestamp(NOW - timedelta(seconds=30))
    assert run_pace(ledger.conn, run, later, NOW).learned_per_minute is None
    began_at = timestamp(began)
    assert run_pace(ledger.conn, other, began_at, NOW).learned_per_minute is None, "another key"
