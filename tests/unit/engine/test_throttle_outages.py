"""The throttle without a provider: connectivity, breaker and outages."""

from __future__ import annotations

import pytest

from batchgen.engine.throttle.limits import (
    BREAKER,
    OUTAGE,
    UNREACHABLE,
    DispatchLimits,
    Signal,
    Wait,
    WaitReason,
)
from tests.support.throttle_run import Run, open_breaker

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
