"""The throttle on a manual clock: slots, stops, and limits under any sequence of events."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchgen.engine.throttle.core import ThrottleCore
from batchgen.engine.throttle.limits import (
    DispatchLimits,
    DispatchStatus,
    Signal,
    Ticket,
    Wait,
    WaitReason,
)
from tests.support.throttle_run import Run, open_breaker

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
