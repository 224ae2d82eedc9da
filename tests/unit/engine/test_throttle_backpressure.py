"""The throttle after a 429: waits, width and cool-down."""

from __future__ import annotations

import math
import random

import pytest

from batchgen.engine.throttle.limits import (
    RETRY_AFTER,
    THROTTLED,
    DispatchLimits,
    Signal,
    Ticket,
    WaitReason,
)
from batchgen.engine.throttle.rules import Backpressure
from tests.support.throttle_run import Run


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
