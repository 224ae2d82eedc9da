"""The throttle: its rules on a manual clock, its waiting on a real event loop."""

from __future__ import annotations

import heapq
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from hypothesis import example, given
from hypothesis import strategies as st

from batchgen.engine.throttle.core import ThrottleCore
from batchgen.engine.throttle.limits import (
    BREAKER,
    OUTAGE,
    RETRY_AFTER,
    THROTTLED,
    UNREACHABLE,
    DispatchLimits,
    DispatchStatus,
    DispatchStopped,
    Signal,
    Stopped,
    Ticket,
    Wait,
    WaitReason,
)
from batchgen.engine.throttle.pace import FIRST_SLACK
from batchgen.engine.throttle.rules import Backpressure
from batchgen.engine.throttle.throttle import LEAD_S, Throttle
from batchgen.http.request import BytesBody, TimedBody

GAP = 1 + FIRST_SLACK
"""Seconds between requests at 60 per minute."""


class Run:
    """A core with a manual clock."""

    def __init__(self, limits: DispatchLimits, seed: int = 1) -> None:
        self.core = ThrottleCore(limits, random.Random(seed))
        self.now = 1000.0

    def start(self, images: int = 1) -> Ticket:
        ticket = self.core.try_start(self.now, images)
        assert isinstance(ticket, Ticket), ticket
        return ticket

    def starts(self, count: int) -> list[Ticket]:
        return [self.start() for _ in range(count)]

    def wait(self, images: int = 1) -> Wait:
        wait = self.core.try_start(self.now, images)
        assert isinstance(wait, Wait), wait
        return wait

    def seconds(self, images: int = 1) -> float:
        seconds = self.wait(images).seconds
        assert seconds is not None
        return seconds

    def sleep(self, images: int = 1) -> float:
        """Advance the clock by the required wait."""
        seconds = self.seconds(images)
        self.now += seconds
        return seconds

    def finish(
        self,
        ticket: Ticket,
        signal: Signal,
        *,
        after: float = 0.0,
        retry_after: float | None = None,
    ) -> None:
        self.now += after
        self.core.finish(ticket, signal, self.now, retry_after)

    def once(self, signal: Signal, *, after: float = 0.0, retry_after: float | None = None) -> None:
        self.finish(self.start(), signal, after=after, retry_after=retry_after)

    def status(self) -> DispatchStatus:
        return self.core.status(self.now)

    def stopped(self) -> str:
        stopped = self.core.try_start(self.now)
        assert isinstance(stopped, Stopped), stopped
        return stopped.reason


# Slots


def test_concurrency_limits_requests_in_flight() -> None:
    run = Run(DispatchLimits(concurrency=3))
    tickets = run.starts(3)
    assert run.wait() == Wait(seconds=None, reason=WaitReason.SLOT)
    run.finish(tickets[1], Signal.OK)
    run.start()
    assert run.wait().reason is WaitReason.SLOT


def test_ticket_is_returned_only_once() -> None:
    run = Run(DispatchLimits(concurrency=3))
    run.start()
    ticket = run.start()
    run.finish(ticket, Signal.OK)
    with pytest.raises(KeyError):
        run.finish(ticket, Signal.OK)
    assert run.status().in_flight == 1


# Rates


def test_requests_are_spaced_slightly_below_the_rate() -> None:
    run = Run(DispatchLimits(requests_per_minute=60))
    run.start()
    assert run.wait().reason is WaitReason.RATE
    for _ in range(3):
        assert run.sleep() == pytest.approx(GAP)
        run.start()


def test_unused_rate_is_not_saved_without_a_burst() -> None:
    run = Run(DispatchLimits(requests_per_minute=60))
    run.start()
    run.now += 50
    run.start()
    assert run.seconds() == pytest.approx(GAP)


def test_burst_starts_at_once_and_refills() -> None:
    run = Run(DispatchLimits(concurrency=20, requests_per_minute=60, burst=5))
    run.starts(5)
    assert run.sleep() == pytest.approx(1.01)
    run.start()
    run.now += 50
    run.starts(5)


def test_image_rate_counts_images_not_requests() -> None:
    run = Run(DispatchLimits(images_per_minute=60))
    run.start(images=4)
    assert run.sleep(images=2) == pytest.approx(4 * GAP)
    run.start(images=2)
    assert run.seconds() == pytest.approx(2 * GAP)


def test_images_of_a_request_share_the_burst() -> None:
    run = Run(DispatchLimits(images_per_minute=60, burst=6))
    run.start(images=4)
    run.start(images=2)
    assert run.seconds(images=3) == pytest.approx(3 * 1.01)
    assert run.seconds(images=9) == pytest.approx(6 * 1.01)


def test_slower_of_two_rates_applies() -> None:
    run = Run(DispatchLimits(requests_per_minute=60, images_per_minute=120))
    run.start(images=1)
    assert run.sleep() == pytest.approx(GAP)
    run.start(images=10)
    assert run.seconds() == pytest.approx(5 * GAP)


def test_cancelled_request_returns_its_rate() -> None:
    run = Run(DispatchLimits(requests_per_minute=60, images_per_minute=60))
    run.start()
    run.sleep()
    run.finish(run.start(images=4), Signal.CANCELLED)
    run.start()
    assert run.seconds() == pytest.approx(GAP)


def test_late_return_keeps_requests_apart() -> None:
    run = Run(DispatchLimits(requests_per_minute=60))
    never_sent = run.start()
    run.sleep()
    run.start()
    run.finish(never_sent, Signal.CANCELLED)
    assert run.seconds() == pytest.approx(GAP)


@dataclass
class StrictServer:
    """A token bucket that counts accepted and refused requests."""

    per_s: float
    burst: float
    level: float = 0.0
    seen_at: float = 0.0
    accepted: int = 0
    rejected: int = 0

    def __post_init__(self) -> None:
        self.level = self.burst

    def take(self, now: float) -> None:
        self.level = min(self.burst, self.level + (now - self.seen_at) * self.per_s)
        self.seen_at = now
        if self.level >= 1 - 1e-9:
            self.level -= 1
            self.accepted += 1
        else:
            self.rejected += 1


@pytest.mark.parametrize(("server_burst", "burst"), [(1, 1), (10, 1), (10, 10)])
def test_strict_server_is_fully_used_without_refusals(server_burst: int, burst: int) -> None:
    server = StrictServer(per_s=10, burst=server_burst)
    core = ThrottleCore(DispatchLimits(concurrency=64, requests_per_minute=600, burst=burst))
    under_way: list[tuple[float, int, Ticket]] = []
    latency = random.Random(7)
    now = 0.0
    while now < 60:
        decision = core.try_start(now)
        if isinstance(decision, Ticket):
            server.take(now)
            heapq.heappush(under_way, (now + latency.uniform(2, 6), decision.id, decision))
            continue
        assert isinstance(decision, Wait)
        times = [under_way[0][0]] if under_way else []
        if decision.seconds is not None:
            times.append(now + decision.seconds)
        now = min(times)
        while under_way and under_way[0][0] <= now:
            core.finish(heapq.heappop(under_way)[2], Signal.OK, now)
    assert server.rejected == 0
    assert server.accepted >= (0.97 if burst > 1 else 0.95) * 600


# Backpressure


@pytest.mark.fault("H14", "H15")
def test_429_delays_every_worker() -> None:
    run = Run(DispatchLimits(concurrency=4))
    tickets = run.starts(3)
    run.finish(tickets[0], Signal.THROTTLED, retry_after=7)
    assert run.wait().reason is WaitReason.COOL_DOWN
    assert 7 <= run.sleep() <= 7.5


@pytest.mark.fault("H18")
@pytest.mark.parametrize("value", [None, 0.0, -3.0, math.nan, math.inf, -math.inf])
def test_invalid_retry_after_is_ignored(value: float | None) -> None:
    run = Run(DispatchLimits())
    run.once(Signal.THROTTLED, retry_after=value)
    assert 1 <= run.seconds() <= 1.5


def test_only_a_longer_retry_after_extends_the_wait() -> None:
    run = Run(DispatchLimits())
    tickets = run.starts(3)
    for ticket, seconds in zip(tickets, (5, 20, 1), strict=True):
        run.finish(ticket, Signal.THROTTLED, retry_after=seconds)
    assert 20 <= run.seconds() <= 20.5


@pytest.mark.fault("H19")
def test_wait_of_hours_stops_the_run() -> None:
    run = Run(DispatchLimits())
    tickets = run.starts(2)
    run.finish(tickets[0], Signal.THROTTLED, retry_after=3600)
    assert 3600 <= run.seconds() <= 3600.5
    run.finish(tickets[1], Signal.THROTTLED, retry_after=86_400)
    assert run.stopped() == RETRY_AFTER


@pytest.mark.fault("H14")
def test_simultaneous_429s_halve_the_width_once() -> None:
    run = Run(DispatchLimits(concurrency=16))
    for ticket in run.starts(16):
        run.finish(ticket, Signal.THROTTLED, after=0.01)
    assert run.status().width == 8
    assert run.seconds() <= 1.5


def test_each_episode_halves_the_width_down_to_one() -> None:
    run = Run(DispatchLimits(concurrency=10))
    widths = []
    for _ in range(6):
        run.once(Signal.THROTTLED, retry_after=1)
        widths.append(run.status().width)
        run.sleep()
    assert widths == [5, 2, 1, 1, 1, 1]
    run.start()
    assert run.wait().reason is WaitReason.SLOT


@pytest.mark.fault("H14")
def test_width_regrows_by_a_tenth_of_the_limit() -> None:
    run = Run(DispatchLimits(concurrency=20))
    tickets = run.starts(20)
    run.finish(tickets[0], Signal.THROTTLED, retry_after=2)
    run.sleep()
    assert run.status().width == 10
    assert run.wait().reason is WaitReason.SLOT
    assert run.sleep() == pytest.approx(10)
    assert run.status().width == 12
    run.finish(tickets[1], Signal.THROTTLED)
    run.now += 9.9
    assert run.status().width == 12
    run.now += 0.1 + 30
    assert run.status().width == 20
    run.now += 3600
    assert run.status().width == 20


def test_width_never_exceeds_the_limit() -> None:
    run = Run(DispatchLimits(concurrency=1))
    run.once(Signal.THROTTLED)
    run.now += 3600
    assert run.status().width == 1


def test_next_429_applies_pending_regrowth_first() -> None:
    run = Run(DispatchLimits(concurrency=8))
    run.once(Signal.THROTTLED)
    run.sleep()
    run.once(Signal.THROTTLED, after=45)
    assert run.status().width == 4


@pytest.mark.fault("XC7")
def test_large_width_recovers_within_a_minute() -> None:
    run = Run(DispatchLimits(concurrency=1000))
    for ticket in run.starts(1000):
        run.finish(ticket, Signal.THROTTLED, retry_after=2)
    run.sleep()
    assert run.status().width == 500
    run.now += 10
    assert run.status().width == 600
    run.now += 40
    assert run.status().width == 1000


@pytest.mark.fault("XC8", "W08", "K12")
def test_half_an_hour_of_429s_stops_the_run() -> None:
    run = Run(DispatchLimits())
    run.once(Signal.OK)
    began = run.now
    while run.now < began + 1800:
        run.once(Signal.THROTTLED)
        assert 1 <= run.sleep() <= 60.5
    run.once(Signal.THROTTLED)
    assert run.stopped() == THROTTLED


@pytest.mark.fault("XC8")
def test_success_between_429s_restarts_the_half_hour() -> None:
    run = Run(DispatchLimits())
    for _ in range(100):
        run.once(Signal.THROTTLED, after=1700)
        run.sleep()
        run.once(Signal.OK)
    run.start()


@pytest.mark.fault("XC8", "K12")
def test_cool_down_status_quotes_the_429() -> None:
    run = Run(DispatchLimits())
    run.core.finish(run.start(), Signal.THROTTLED, run.now, 12.0, "429 slow_down: Easy")
    waiting = run.status().waiting_for
    assert waiting is not None
    assert waiting.startswith("cool-down after 429 slow_down: Easy: 1")
    assert run.status().last_error == "429 slow_down: Easy"


@pytest.mark.fault("H14")
def test_cool_down_doubles_up_to_a_minute() -> None:
    longest = [0.0] * 9
    for seed in range(200):
        rule = Backpressure(1, random.Random(seed))
        for episode in range(9):
            rule.throttled(Ticket(id=episode, images=1, probe=False), 0.0, episode + 1, None)
            longest[episode] = max(longest[episode], rule.cool_until)
            rule.cool_until = 0.0
    ceilings = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    for seconds, ceiling in zip(longest, ceilings, strict=True):
        assert 0.9 * ceiling < seconds <= ceiling + 0.5


@pytest.mark.parametrize(("sent_before", "longest_s"), [(False, 1.5), (True, 8.5)])
def test_only_a_success_after_the_cool_down_resets_it(sent_before: bool, longest_s: float) -> None:
    waits = []
    for seed in range(100):
        rule = Backpressure(64, random.Random(seed))
        for episode in range(4):
            number = 10 * (episode + 1)
            rule.throttled(Ticket(id=number, images=1, probe=False), 0.0, number + 1, None)
            waits.append(rule.cool_until)
            rule.cool_until = 0.0
            success = number - 1 if sent_before else number + 1
            rule.succeeded(Ticket(id=success, images=1, probe=False))
    assert 0.9 * (longest_s - 0.5) < max(waits) <= longest_s


@pytest.mark.fault("H33")
def test_half_an_hour_of_503s_sends_few_requests() -> None:
    run = Run(DispatchLimits(concurrency=16))
    end = run.now + 1800
    sent = 0
    while run.now < end:
        tickets = []
        while isinstance(decision := run.core.try_start(run.now), Ticket):
            tickets.append(decision)
        sent += len(tickets)
        for ticket in tickets:
            run.finish(ticket, Signal.THROTTLED)
        run.sleep()
    assert sent <= 16 + 8 + 4 + 2 + 1800 / 15


# Connectivity


@pytest.mark.fault("N01", "N03")
def test_five_refused_connections_pause_dispatch() -> None:
    run = Run(DispatchLimits())
    for _ in range(4):
        run.once(Signal.UNREACHABLE)
    run.once(Signal.OK)
    for _ in range(5):
        run.once(Signal.UNREACHABLE)
    assert run.wait() == Wait(seconds=1.0, reason=WaitReason.UNREACHABLE)


def test_unreachable_provider_is_probed_with_backoff() -> None:
    run = Run(DispatchLimits())
    for ticket in run.starts(8)[:5]:
        run.finish(ticket, Signal.UNREACHABLE)
    pauses = []
    for _ in range(7):
        pauses.append(run.sleep())
        probe = run.start()
        assert probe.probe
        assert run.wait() == Wait(seconds=None, reason=WaitReason.UNREACHABLE)
        run.finish(probe, Signal.UNREACHABLE, after=0.5)
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30])


@pytest.mark.fault("N36")
@pytest.mark.parametrize(
    "signal", [Signal.OK, Signal.NEUTRAL, Signal.AMBIGUOUS, Signal.THROTTLED], ids=str
)
def test_successful_probe_resumes_dispatch(signal: Signal) -> None:
    run = Run(DispatchLimits(concurrency=8))
    for _ in range(5):
        run.once(Signal.UNREACHABLE)
    run.sleep()
    run.once(signal)
    run.now += 2
    assert not any(ticket.probe for ticket in run.starts(4))


def test_backoff_restarts_after_a_connection() -> None:
    run = Run(DispatchLimits())
    for _ in range(5):
        run.once(Signal.UNREACHABLE)
    for _ in range(3):
        run.sleep()
        run.once(Signal.UNREACHABLE)
    run.sleep()
    run.once(Signal.OK)
    for _ in range(5):
        run.once(Signal.UNREACHABLE)
    assert run.seconds() == pytest.approx(1)


def test_late_refused_connection_is_not_a_failed_probe() -> None:
    run = Run(DispatchLimits(concurrency=8))
    for ticket in run.starts(8):
        run.finish(ticket, Signal.UNREACHABLE, after=0.1)
    assert run.seconds() == pytest.approx(0.7)


def test_request_sent_before_the_outage_keeps_the_pause() -> None:
    run = Run(DispatchLimits(concurrency=8))
    older = run.start()
    for _ in range(5):
        run.once(Signal.UNREACHABLE)
    run.finish(older, Signal.AMBIGUOUS)
    assert run.wait().reason is WaitReason.UNREACHABLE


def test_provider_unreachable_too_long_stops_the_run() -> None:
    run = Run(DispatchLimits(unreachable_s=300))
    began = run.now
    for _ in range(5):
        run.once(Signal.UNREACHABLE)
    while isinstance(run.core.try_start(run.now), Wait):
        run.sleep()
        probe = run.start()
        assert run.now <= began + 300
        run.finish(probe, Signal.UNREACHABLE)
        assert run.now < began + 300 or run.stopped() == UNREACHABLE
    assert run.now == pytest.approx(began + 300)


def test_idle_hour_does_not_count_as_unreachable() -> None:
    run = Run(DispatchLimits(unreachable_s=300))
    run.once(Signal.OK)
    run.now += 3600
    for _ in range(5):
        run.once(Signal.UNREACHABLE)
    assert run.wait().reason is WaitReason.UNREACHABLE


def test_cancelled_probe_is_replaced() -> None:
    run = Run(DispatchLimits())
    for _ in range(5):
        run.once(Signal.UNREACHABLE)
    run.sleep()
    run.once(Signal.CANCELLED)
    assert run.start().probe


# Breaker


@pytest.mark.fault("N37", "N38")
@pytest.mark.parametrize(("concurrency", "row"), [(1, 3), (2, 3), (8, 8)])
def test_lost_responses_of_all_slots_open_the_breaker(concurrency: int, row: int) -> None:
    run = Run(DispatchLimits(concurrency=concurrency))
    for _ in range(row):
        run.once(Signal.AMBIGUOUS)
    assert run.wait() == Wait(seconds=60.0, reason=WaitReason.BREAKER)


@pytest.mark.parametrize("signal", [Signal.OK, Signal.NEUTRAL, Signal.THROTTLED], ids=str)
def test_any_response_resets_the_lost_responses(signal: Signal) -> None:
    run = Run(DispatchLimits(concurrency=3))
    for _ in range(2):
        run.once(Signal.AMBIGUOUS)
    run.once(signal)
    run.now += 2
    for _ in range(2):
        run.once(Signal.AMBIGUOUS)
    run.start()


@pytest.mark.parametrize("signal", [Signal.UNREACHABLE, Signal.CANCELLED], ids=str)
def test_unsent_request_does_not_change_the_count(signal: Signal) -> None:
    run = Run(DispatchLimits(concurrency=3))
    for _ in range(2):
        run.once(Signal.AMBIGUOUS)
        run.once(signal)
    run.once(Signal.AMBIGUOUS)
    assert run.wait().reason is WaitReason.BREAKER


def open_breaker(run: Run, concurrency: int = 3) -> None:
    for _ in range(concurrency):
        run.once(Signal.AMBIGUOUS)


@pytest.mark.fault("N38", "B01")
def test_open_breaker_probes_once_a_minute_then_stops() -> None:
    run = Run(DispatchLimits(concurrency=3, max_probes=3))
    open_breaker(run)
    for _ in range(3):
        assert run.sleep() == pytest.approx(60)
        probe = run.start()
        assert probe.probe
        assert run.wait() == Wait(seconds=None, reason=WaitReason.BREAKER)
        run.finish(probe, Signal.AMBIGUOUS, after=100)
    assert run.stopped() == BREAKER


@pytest.mark.parametrize("signal", [Signal.OK, Signal.NEUTRAL, Signal.THROTTLED], ids=str)
def test_probe_with_a_response_closes_the_breaker(signal: Signal) -> None:
    run = Run(DispatchLimits(concurrency=3))
    open_breaker(run)
    run.sleep()
    run.once(signal)
    run.now += 2
    assert not run.start().probe


def test_closing_the_breaker_resets_failed_probes() -> None:
    run = Run(DispatchLimits(concurrency=3, max_probes=3))
    for _ in range(3):
        open_breaker(run)
        for _ in range(2):
            run.sleep()
            run.once(Signal.AMBIGUOUS)
        run.sleep()
        run.once(Signal.OK)
    run.start()


def test_loss_from_before_the_opening_is_not_a_probe() -> None:
    run = Run(DispatchLimits(concurrency=8, max_probes=3))
    older = run.starts(7)
    open_breaker(run, 8)
    for ticket in older[:4]:
        run.finish(ticket, Signal.AMBIGUOUS, after=10)
    assert run.seconds() == pytest.approx(20)
    run.sleep()
    run.once(Signal.OK)
    for ticket in older[4:]:
        run.finish(ticket, Signal.AMBIGUOUS)
    for _ in range(7):
        run.once(Signal.AMBIGUOUS)
    run.once(Signal.OK)


def test_late_response_closes_the_breaker() -> None:
    run = Run(DispatchLimits(concurrency=3))
    older = run.start()
    open_breaker(run)
    run.finish(older, Signal.OK)
    assert not run.start().probe


def test_unconnected_probe_is_not_a_failed_probe() -> None:
    run = Run(DispatchLimits(concurrency=3, max_probes=1))
    open_breaker(run)
    for _ in range(4):
        assert run.sleep() == pytest.approx(60)
        run.once(Signal.UNREACHABLE)
    run.sleep()
    run.once(Signal.AMBIGUOUS)
    assert run.stopped() == BREAKER


# Stop and status


def test_stop_keeps_its_first_reason() -> None:
    run = Run(DispatchLimits())
    ticket = run.start()
    run.core.stop("budget")
    run.core.stop("key")
    run.finish(ticket, Signal.OK)
    assert run.stopped() == "budget"
    assert run.status() == DispatchStatus(in_flight=0, width=8, waiting_for=None, stopped="budget")


def test_status_names_the_reason_to_wait() -> None:
    run = Run(DispatchLimits(concurrency=4, requests_per_minute=5))
    assert run.status() == DispatchStatus(in_flight=0, width=4, waiting_for=None, stopped=None)
    ticket = run.start()
    assert run.status().waiting_for == "rate limit: 13 s"
    run.finish(ticket, Signal.THROTTLED, retry_after=20)
    assert run.status().waiting_for == "cool-down after 429 or 503: 21 s"
    assert run.status().width == 4


def test_status_shows_the_time_of_the_next_probe() -> None:
    run = Run(DispatchLimits(concurrency=3))
    open_breaker(run)
    run.now += 17
    assert run.status().waiting_for == "breaker: probe in 43 s"
    run.sleep()
    run.start()
    assert run.status().waiting_for == "breaker: probe in flight"
    run = Run(DispatchLimits())
    for _ in range(5):
        run.once(Signal.UNREACHABLE)
    assert run.status().waiting_for == "provider unreachable: probe in 1 s"


# Outages


def test_half_an_hour_of_server_errors_stops_the_run() -> None:
    run = Run(DispatchLimits(concurrency=2))
    for _ in range(3):
        run.once(Signal.ERRORED)
    for _ in range(29):
        assert run.sleep() == 60.0
        run.once(Signal.ERRORED)
    run.sleep()
    run.once(Signal.ERRORED)
    assert run.stopped() == OUTAGE


def test_response_closes_breaker_opened_by_errors() -> None:
    run = Run(DispatchLimits(concurrency=2))
    for _ in range(3):
        run.once(Signal.ERRORED)
    run.sleep()
    run.once(Signal.OK)
    run.starts(2)


@pytest.mark.fault("H33")
@pytest.mark.parametrize("signal", [Signal.ERRORED, Signal.THROTTLED, Signal.AMBIGUOUS], ids=str)
def test_repeats_in_an_outage_are_limited(
    signal: Signal,
) -> None:
    run = Run(DispatchLimits(concurrency=100))
    for _ in range(50):
        run.core.count_try(repeat=False)
    assert run.core.repeat_wait_s(run.now) == 0
    run.once(signal)
    repeated = 0
    for minute in range(5):
        while run.core.repeat_wait_s(run.now) == 0:
            run.core.count_try(repeat=True)
            repeated += 1
        assert repeated == 5 + minute + 1
        run.now += run.core.repeat_wait_s(run.now)


def test_success_resets_the_repeat_budget() -> None:
    run = Run(DispatchLimits(concurrency=100))
    run.core.count_try(repeat=False)
    run.once(Signal.ERRORED)
    run.core.count_try(repeat=True)
    assert run.core.repeat_wait_s(run.now) == 60.0
    run.once(Signal.OK)
    assert run.core.repeat_wait_s(run.now) == 0.0


# Invariants

SECONDS = st.floats(0, 120, allow_nan=False)
ACTIONS = st.one_of(
    st.tuples(st.just("start"), st.integers(1, 4)),
    st.tuples(st.just("sleep"), SECONDS),
    st.tuples(st.just("obey"), st.integers(1, 4)),
    st.tuples(
        st.just("finish"),
        st.integers(0, 100),
        st.sampled_from(Signal),
        st.none() | st.floats(-1, 5000),
    ),
)
LIMITS = st.builds(
    DispatchLimits,
    concurrency=st.integers(1, 6),
    requests_per_minute=st.none() | st.floats(1, 6000),
    images_per_minute=st.none() | st.floats(1, 6000),
    burst=st.integers(1, 5),
    max_probes=st.integers(1, 3),
    unreachable_s=st.floats(1, 300),
)


def most_in_a_window(starts: list[tuple[float, int]], per_minute: float) -> float:
    """Return by how many units the starts of any window exceed the rate."""
    over = 0.0
    for first, (begin, _) in enumerate(starts):
        units = 0
        for at, count in starts[first:]:
            units += count
            over = max(over, units - (at - begin) * per_minute / 60)
    return over


@given(limits=LIMITS, actions=st.lists(ACTIONS, max_size=80), seed=st.integers(0, 99))
@example(  # the slack of a 429 wears off during the wait
    limits=DispatchLimits(concurrency=1, images_per_minute=1.0, burst=2),
    actions=[("start", 1), ("finish", 0, Signal.THROTTLED, None), ("start", 1), ("obey", 1)],
    seed=0,
)
def test_limits_hold_for_any_sequence_of_events(
    limits: DispatchLimits, actions: list[tuple[object, ...]], seed: int
) -> None:
    core = ThrottleCore(limits, random.Random(seed))
    now = 0.0
    in_flight: list[Ticket] = []
    sent: dict[int, tuple[float, int]] = {}
    stopped = False

    def check_wait(wait: Wait) -> None:
        if wait.seconds is None:
            assert in_flight
        else:
            assert 0 < wait.seconds <= limits.max_retry_after_s + 0.5

    for name, *values in actions:
        match name, values:
            case (("start" | "obey"), [int(images)]):
                decision = core.try_start(now, images)
                if name == "obey" and isinstance(decision, Wait) and decision.seconds:
                    check_wait(decision)
                    now += decision.seconds
                    decision = core.try_start(now, images)
                    assert not isinstance(decision, Wait) or decision.reason is WaitReason.SLOT
                if isinstance(decision, Ticket):
                    assert not stopped
                    in_flight.append(decision)
                    sent[decision.id] = (now, images)
                    assert len(in_flight) <= core.status(now).width <= limits.concurrency
                    assert sum(ticket.probe for ticket in in_flight) <= 1
                elif isinstance(decision, Wait):
                    check_wait(decision)
            case "sleep", [float(seconds)]:
                now += seconds
            case "finish", [int(index), Signal() as signal, retry_after] if in_flight:
                assert retry_after is None or isinstance(retry_after, float)
                ticket = in_flight.pop(index % len(in_flight))
                core.finish(ticket, signal, now, retry_after)
                if signal is Signal.CANCELLED:
                    del sent[ticket.id]
        status = core.status(now)
        assert status.in_flight == len(in_flight)
        assert status.width >= 1
        assert stopped <= (status.stopped is not None)
        stopped = status.stopped is not None

    if limits.requests_per_minute is not None:
        requests = [(at, 1) for at, _ in sent.values()]
        assert most_in_a_window(requests, limits.requests_per_minute) <= limits.burst + 0.01
    if limits.images_per_minute is not None:
        units = list(sent.values())
        allowed = max([limits.burst, *(count for _, count in units)])
        assert most_in_a_window(units, limits.images_per_minute) <= allowed + 0.01


# Waiting on an event loop


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


class Queue:
    """Tasks that request a start, and the order of their starts."""

    def __init__(self, throttle: Throttle, group: TaskGroup) -> None:
        self.throttle = throttle
        self.group = group
        self.started: list[tuple[str, Ticket]] = []
        self.refused: list[str] = []

    async def add(self, name: str, images: int = 1) -> anyio.CancelScope:
        scope = anyio.CancelScope()

        async def want() -> None:
            with scope:
                try:
                    ticket = await self.throttle.start(images)
                except DispatchStopped as stopped:
                    self.refused.append(stopped.reason)
                else:
                    self.started.append((name, ticket))

        self.group.start_soon(want)
        await settle()
        return scope

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.started]


@pytest.mark.anyio
async def test_tasks_start_in_arrival_order() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=1)))
    async with anyio.create_task_group() as group:
        queue = Queue(throttle, group)
        for name in "abcd":
            await queue.add(name)
        for count in range(1, 5):
            assert queue.names == list("abcd"[:count])
            throttle.finish(queue.started[-1][1], Signal.OK)
            await settle()
    assert throttle.status().in_flight == 0


@pytest.mark.anyio
async def test_one_finish_starts_one_task() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=2)))
    async with anyio.create_task_group() as group:
        queue = Queue(throttle, group)
        for name in "abcde":
            await queue.add(name)
        throttle.finish(queue.started[0][1], Signal.OK)
        await settle()
        assert queue.names == ["a", "b", "c"]
        throttle.stop("over")


@pytest.mark.anyio
async def test_stop_wakes_every_waiting_task() -> None:
    limits = DispatchLimits(concurrency=4, requests_per_minute=0.01)
    throttle = Throttle(ThrottleCore(limits))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            queue = Queue(throttle, group)
            for name in "abcdef":
                await queue.add(name)
            throttle.stop("budget")
    assert queue.names == ["a"]
    assert queue.refused == ["budget"] * 5
    with pytest.raises(DispatchStopped, match="budget"):
        await throttle.start()


@pytest.mark.anyio
async def test_stop_by_a_rule_wakes_every_waiting_task() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=1)))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            queue = Queue(throttle, group)
            for name in "abc":
                await queue.add(name)
            throttle.finish(queue.started[0][1], Signal.THROTTLED, retry_after_s=1e6)
    assert queue.refused == [RETRY_AFTER] * 2


@pytest.mark.anyio
async def test_task_starts_on_time_without_other_events() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(requests_per_minute=600)))
    with anyio.fail_after(5):
        for number in range(4):
            assert (await throttle.start()).id == number


@pytest.mark.anyio
async def test_waiting_for_a_slot_does_not_poll() -> None:
    asked = 0

    def clock() -> float:
        nonlocal asked
        asked += 1
        return time.monotonic()

    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=1)), clock)
    async with anyio.create_task_group() as group:
        queue = Queue(throttle, group)
        for name in "abc":
            await queue.add(name)
        before = asked
        await anyio.sleep(0.05)
        assert asked == before
        throttle.stop("over")


@pytest.mark.anyio
@pytest.mark.parametrize("cancelled", [1, 2], ids=["first in line", "second in line"])
async def test_cancelled_task_leaves_no_trace(cancelled: int) -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=1)))
    async with anyio.create_task_group() as group:
        queue = Queue(throttle, group)
        scopes = [await queue.add(name) for name in "abcd"]
        scopes[cancelled].cancel()
        await settle()
        assert throttle.status().in_flight == 1
        for _ in range(3):
            throttle.finish(queue.started[-1][1], Signal.OK)
            await settle()
    assert queue.names == [name for name in "abcd" if name != "abcd"[cancelled]]
    assert throttle.status().in_flight == 0


@pytest.mark.anyio
async def test_start_racing_with_cancellation_loses_no_ticket() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=1)))
    held = await throttle.start()

    def finish_then_cancel(scope: anyio.CancelScope) -> None:
        throttle.finish(held, Signal.OK)
        scope.cancel()

    def cancel_then_finish(scope: anyio.CancelScope) -> None:
        scope.cancel()
        throttle.finish(held, Signal.OK)

    orders: list[Callable[[anyio.CancelScope], None]] = [finish_then_cancel, cancel_then_finish]
    for meet in orders:
        async with anyio.create_task_group() as group:
            queue = Queue(throttle, group)
            meet(await queue.add("a"))
            await settle()
        for _, ticket in queue.started:
            throttle.finish(ticket, Signal.OK)
        assert throttle.status().in_flight == 0
        with anyio.fail_after(5):
            held = await throttle.start()


@pytest.mark.anyio
async def test_hundred_workers_share_all_slots() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=7)))
    most = done = 0

    async def work(rng: random.Random) -> None:
        nonlocal most, done
        for _ in range(20):
            with anyio.move_on_after(rng.choice([None, 0.0])):
                ticket = await throttle.start()
                try:
                    most = max(most, throttle.status().in_flight)
                    for _ in range(rng.randrange(60)):
                        await anyio.lowlevel.checkpoint()
                finally:
                    throttle.finish(ticket, Signal.OK)
                done += 1

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for seed in range(100):
                group.start_soon(work, random.Random(seed))
    assert most == 7
    assert done >= 700
    assert throttle.status().in_flight == 0


@pytest.mark.anyio
async def test_timed_body_waits_before_its_first_byte() -> None:
    opened = anyio.Event()
    body = TimedBody(BytesBody(b"abc"), opened.wait)
    assert body.headers == BytesBody(b"abc").headers
    pieces = body.stream()
    received: list[bytes] = []

    async def receive() -> None:
        received.extend([piece async for piece in pieces])

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await settle()
        assert received == []
        opened.set()
    assert received == [b"abc"]


@pytest.mark.anyio
async def test_slow_preparation_lengthens_the_lead() -> None:
    now = 100.0

    async def place(images: int, gaps: Mapping[str, float], lead_s: float) -> float:
        return now + lead_s

    limits = DispatchLimits(concurrency=3, requests_per_minute=6e5)
    throttle = Throttle(ThrottleCore(limits), lambda: now, reserve_start=place)
    first = await throttle.start()
    assert first.send_at == pytest.approx(now + LEAD_S)
    now += 0.2
    await throttle.wait_to_send(first)
    now += 1
    second = await throttle.start()
    assert second.send_at == pytest.approx(now + 0.25)
    now += 0.3
    await throttle.wait_to_send(second)
    await throttle.wait_to_send(second)
