"""Rates of the throttle: requests are spaced below what the provider allows."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

import pytest

from batchgen.engine.throttle.core import ThrottleCore
from batchgen.engine.throttle.limits import (
    DispatchLimits,
    Signal,
    Ticket,
    Wait,
    WaitReason,
)
from tests.support.throttle_run import GAP, Run


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
