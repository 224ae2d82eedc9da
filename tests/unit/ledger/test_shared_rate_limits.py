"""Runs of one ledger share the limits of their key, now and after a stop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.engine.throttle.core import ThrottleCore
from batchgen.engine.throttle.limits import DispatchLimits, DispatchStopped, Ticket
from batchgen.engine.throttle.throttle import LEAD_S, Throttle
from batchgen.ledger.database import in_memory, open_for_writing
from batchgen.ledger.shared_rate_limits import (
    SharedPace,
    SharedRate,
    key_id,
    share_pace,
    take_place,
)
from batchgen.ledger.writer import LedgerWriter

TENTH = SharedRate(unit="requests", interval_s=0.1)
NOW = 1_800_000_000.0


def test_two_runs_of_a_ledger_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    one, other = open_for_writing(path), open_for_writing(path)
    try:
        waits = [take_place(conn, "k", [(TENTH, 1)], NOW) for conn in (one, other, one, other)]
        assert waits == pytest.approx([0.0, 0.1, 0.2, 0.3], abs=1e-5)
    finally:
        one.close()
        other.close()


def test_run_continues_where_the_last_one_stopped(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    conn = open_for_writing(path)
    for _ in range(5):
        take_place(conn, "k", [(TENTH, 1)], NOW)
    conn.close()
    conn = open_for_writing(path)
    assert take_place(conn, "k", [(TENTH, 1)], NOW + 0.2) == pytest.approx(0.3, abs=1e-5)
    assert take_place(conn, "k", [(TENTH, 1)], NOW + 60) == 0.0
    assert take_place(conn, "other", [(TENTH, 1)], NOW) == 0.0
    conn.close()


@pytest.mark.fault("XC9")
@pytest.mark.parametrize("ahead_s", [2.0, 60.0, 3000.0, 86_400.0])
def test_a_place_that_a_wrong_clock_gave_is_ignored(ahead_s: float) -> None:
    with closing(in_memory()) as conn:
        assert take_place(conn, "k", [(TENTH, 1)], NOW + ahead_s) == 0.0
        assert take_place(conn, "k", [(TENTH, 1)], NOW) == 0.0
        assert take_place(conn, "k", [(TENTH, 1)], NOW) == pytest.approx(0.1, abs=1e-5)


@pytest.mark.anyio
@pytest.mark.fault("XC9")
async def test_a_long_wait_for_a_place_is_shown() -> None:
    now = 100.0

    async def place(images: int, gaps: Mapping[str, float], lead_s: float) -> float:
        return now + 40.0

    throttle = Throttle(
        ThrottleCore(DispatchLimits(requests_per_minute=6e5)), lambda: now, reserve_start=place
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(throttle.start)
        await anyio.wait_all_tasks_blocked()
        waiting = throttle.status().waiting_for
        tasks.cancel_scope.cancel()
    assert waiting == "rate limit, shared by all runs of this key: 40 s"


def test_clock_that_was_set_back_causes_no_wait() -> None:
    with closing(in_memory()) as conn:
        take_place(conn, "k", [(TENTH, 1)], NOW)
        assert take_place(conn, "k", [(TENTH, 1)], NOW - 86_400) == 0.0


@given(
    st.integers(1, 20),
    st.lists(st.floats(0.0, 1.0, allow_nan=False), min_size=30, max_size=60),
    st.integers(1, 4),
)
def test_no_span_holds_more_than_the_burst_and_the_even_rate(
    burst: int, gaps: list[float], units: int
) -> None:
    rate = SharedRate(unit="images", interval_s=0.5, burst=burst)
    now, leaves = NOW, []
    with closing(in_memory()) as conn:
        for gap in gaps:
            now += gap
            leaves.append(now + take_place(conn, "k", [(rate, units)], now))
    for first, start in enumerate(leaves):
        for last in range(first + 1, len(leaves)):
            sent = (last - first) * units
            allowed = (leaves[last] - start) / rate.interval_s + max(burst, units)
            assert sent <= allowed + 1e-3


def pace(value: float | None, changed_at: float, kind: str = "interval") -> SharedPace:
    return SharedPace(kind=kind, value=value, changed_at=changed_at)


def test_newer_pace_of_a_key_is_shared() -> None:
    with closing(in_memory()) as conn:
        assert share_pace(conn, "k", pace(None, -math.inf), NOW) is None
        assert share_pace(conn, "k", pace(0.5, NOW - 60), NOW) is None
        assert share_pace(conn, "k", pace(None, -math.inf), NOW) == pace(0.5, NOW - 60)
        assert share_pace(conn, "k", pace(0.9, NOW - 90), NOW) == pace(0.5, NOW - 60)
        assert share_pace(conn, "k", pace(0.7, NOW - 10), NOW) is None
        assert share_pace(conn, "k", pace(0.5, NOW - 60), NOW) == pace(0.7, NOW - 10)
        assert share_pace(conn, "k", pace(0.7, NOW - 10), NOW) is None
        assert share_pace(conn, "other", pace(None, -math.inf), NOW) is None
        assert share_pace(conn, "k", pace(None, -math.inf, "slack"), NOW) is None


@pytest.mark.parametrize("age_s", [86_401.0, -60.0])
def test_old_pace_or_one_of_the_future_is_replaced(age_s: float) -> None:
    with closing(in_memory()) as conn:
        share_pace(conn, "k", pace(0.5, NOW - age_s), NOW - age_s)
        assert share_pace(conn, "k", pace(None, -math.inf), NOW) is None
        share_pace(conn, "k", pace(0.1, NOW - 3600), NOW)
        assert share_pace(conn, "k", pace(None, -math.inf), NOW) == pace(0.1, NOW - 3600)


def test_a_key_is_not_in_its_name() -> None:
    assert "sk-1" not in key_id("https://api.example/v1", "sk-1")
    assert key_id("https://api.example/v1", "sk-1") != key_id("https://api.example/v1", "sk-2")


@pytest.mark.anyio
async def test_a_start_waits_for_its_place_among_all_runs(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    open_for_writing(path).close()
    waited: list[float] = []
    async with LedgerWriter(path) as writer:

        async def place(images: int, gaps: Mapping[str, float], lead_s: float) -> float:
            rates = [(SharedRate(unit="requests", interval_s=0.001), 1)]
            waited.append(await writer.run(lambda ledger: take_place(ledger.conn, "k", rates, NOW)))
            return time.monotonic() + waited[-1]

        throttle = Throttle(
            ThrottleCore(DispatchLimits(concurrency=3, requests_per_minute=6e5)),
            reserve_start=place,
        )
        for _ in range(3):
            await throttle.start()
    assert waited == pytest.approx([0.0, 0.001, 0.002], abs=1e-5)


@pytest.mark.anyio
async def test_requests_leave_as_far_apart_as_their_places() -> None:
    """Writing the first one down takes longer than the second, and their places are kept."""
    begin = time.monotonic()
    places = [begin, begin + 0.02]

    async def place(images: int, gaps: Mapping[str, float], lead_s: float) -> float:
        return places[images - 1] + lead_s

    throttle = Throttle(
        ThrottleCore(DispatchLimits(concurrency=2, requests_per_minute=6e5)), reserve_start=place
    )
    left: dict[int, float] = {}

    async def send(images: int, work_s: float) -> None:
        ticket = await throttle.start(images)
        await anyio.sleep(work_s)
        await throttle.wait_to_send(ticket)
        left[images] = time.monotonic()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, 1, LEAD_S / 2)
        tasks.start_soon(send, 2, 0.0)
    assert left[1] >= begin + LEAD_S
    assert left[2] >= begin + LEAD_S + 0.02


@pytest.mark.anyio
async def test_a_request_that_leaves_late_delays_the_next() -> None:
    """An event loop that was held up lets none catch up at the cost of the provider's limit."""
    begin = time.monotonic()

    async def place(images: int, gaps: Mapping[str, float], lead_s: float) -> float:
        return begin - 60.0

    limits = DispatchLimits(concurrency=3, requests_per_minute=3000)
    throttle = Throttle(ThrottleCore(limits), reserve_start=place)
    tickets = [await throttle.start() for _ in range(3)]
    left: list[float] = []

    async def leave(ticket: Ticket) -> None:
        await throttle.wait_to_send(ticket)
        left.append(time.monotonic())

    async with anyio.create_task_group() as tasks:
        for ticket in tickets:
            tasks.start_soon(leave, ticket)
    gaps = [later - earlier for earlier, later in pairwise(left)]
    assert min(gaps) > 0.019


@pytest.mark.anyio
async def test_without_a_rate_a_request_leaves_at_once() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=1)))
    ticket = await throttle.start()
    assert ticket.send_at is None
    await throttle.wait_to_send(ticket)


@pytest.mark.anyio
async def test_a_stop_ends_the_wait_for_a_place_and_frees_the_slot() -> None:
    async def place(images: int, gaps: Mapping[str, float], lead_s: float) -> float:
        return time.monotonic() + 3600.0

    throttle = Throttle(
        ThrottleCore(DispatchLimits(concurrency=1, requests_per_minute=60)), reserve_start=place
    )
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(DispatchStopped, match="enough"):
                await throttle.start()

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        throttle.stop("enough")
    assert throttle.status().in_flight == 0


@pytest.mark.anyio
async def test_runs_with_different_leads_depart_in_turn() -> None:
    now = NOW
    with closing(in_memory()) as conn:

        async def place(images: int, gaps: Mapping[str, float], lead_s: float) -> float:
            earliest = now + lead_s
            return earliest + take_place(conn, "k", [(TENTH, 1)], earliest)

        limits = DispatchLimits(concurrency=9, requests_per_minute=6e5)
        quick, slow = (
            Throttle(ThrottleCore(limits), lambda: now, reserve_start=place) for _ in range(2)
        )
        late = await slow.start()
        now += 0.5
        await slow.wait_to_send(late)  # its lead grows to 0.6 s
        now += 10
        first = await slow.start()
        now += 1
        second = await quick.start()
        third = await slow.start()
    assert first.send_at is not None
    assert second.send_at is not None
    assert third.send_at is not None
    assert second.send_at - first.send_at >= 0.0999
    assert third.send_at - second.send_at >= 0.0999
