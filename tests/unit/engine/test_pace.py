"""The gap between requests: by table, and against strict servers on a virtual clock."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.engine.throttle.core import ThrottleCore
from batchgen.engine.throttle.limits import DispatchLimits, Signal, Ticket, Wait
from batchgen.engine.throttle.pace import FIRST_SLACK, LEAST_SLACK, DeclaredPace, LearnedPace

REFUSAL_S = 0.02
"""How fast a server refuses."""


@dataclass
class Bucket:
    """A strict token bucket that records what it accepted and refused."""

    per_minute: float
    burst: float
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    level: float = 0.0
    seen_at: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.burst

    def take(self, now: float) -> bool:
        refill = (now - self.seen_at) * self.per_minute / 60
        self.level, self.seen_at = min(self.burst, self.level + refill), now
        is_accepted = self.level >= 1 - 1e-9
        self.level -= is_accepted
        (self.accepted if is_accepted else self.refused).append(now)
        return is_accepted

    def used(self, start: float, end: float) -> float:
        """Return the accepted share of what the rate allows in a span."""
        taken = sum(start <= at < end for at in self.accepted)
        return taken / ((end - start) * self.per_minute / 60)

    def refused_share(self, start: float) -> float:
        """Return the refused share of the requests from a time on."""
        refused = sum(at >= start for at in self.refused)
        return refused / (refused + sum(at >= start for at in self.accepted))


class Simulation:
    """A core without a shortage of jobs, and a server, on a virtual clock."""

    def __init__(
        self, limits: DispatchLimits, server: Bucket, *, jitter_s: float, latency_s: float
    ) -> None:
        self.core = ThrottleCore(limits, random.Random(3))
        self.server = server
        self._jitter_s = jitter_s
        self._latency_s = latency_s
        self._rng = random.Random(7)
        self._order = count()
        self._events: list[tuple[float, int, Ticket, Signal | None]] = []
        self.now = 0.0

    def run(self, until: float) -> None:
        while self.now < until:
            decision = self.core.try_start(self.now)
            if isinstance(decision, Ticket):
                self._put(self.now + self._rng.uniform(0, self._jitter_s), decision, None)
                continue
            assert isinstance(decision, Wait), decision
            times = [self._events[0][0]] if self._events else []
            if decision.seconds is not None:
                times.append(self.now + max(decision.seconds, 1e-6))
            self.now = min(times)
            while self._events and self._events[0][0] <= self.now:
                self._happen(*heapq.heappop(self._events))

    def _put(self, at: float, ticket: Ticket, signal: Signal | None) -> None:
        heapq.heappush(self._events, (at, next(self._order), ticket, signal))

    def _happen(self, at: float, _: int, ticket: Ticket, signal: Signal | None) -> None:
        if signal is not None:
            self.core.finish(ticket, signal, at)
        elif self.server.take(at):
            latency_s = self._latency_s * self._rng.uniform(0.5, 1.5)
            self._put(at + latency_s, ticket, Signal.OK)
        else:
            self._put(at + REFUSAL_S, ticket, Signal.THROTTLED)


@pytest.mark.parametrize(
    ("burst", "jitter_s", "least", "most_refused"),
    [
        (1, 0.0, 0.95, 0),
        (1, 0.005, 0.95, 4),
        (10, 0.0, 0.98, 0),
        (10, 0.005, 0.98, 0),
        (10, 0.03, 0.98, 0),
    ],
)
def test_declared_rate_is_used_with_few_refusals(
    burst: int, jitter_s: float, least: float, most_refused: int
) -> None:
    server = Bucket(600, burst)
    limits = DispatchLimits(concurrency=64, requests_per_minute=600, burst=burst)
    Simulation(limits, server, jitter_s=jitter_s, latency_s=0.1).run(240)
    assert server.used(0, 240) >= least
    assert len(server.refused) <= most_refused


def test_jitter_longer_than_the_slack_is_learned() -> None:
    """A bucket of 1 with 30 ms of jitter needs gaps of 130 ms: 77 % of 600 per minute."""
    server = Bucket(600, 1)
    limits = DispatchLimits(concurrency=64, requests_per_minute=600)
    Simulation(limits, server, jitter_s=0.03, latency_s=0.1).run(600)
    assert server.used(60, 600) >= 0.75
    assert server.refused_share(60) <= 0.005


@pytest.mark.parametrize("per_minute", [60, 240, 600])
@pytest.mark.parametrize("burst", [1, 10])
@pytest.mark.parametrize("latency_s", [0.1, 4.0])
def test_undeclared_rate_is_learned_within_a_minute(
    per_minute: int, burst: int, latency_s: float
) -> None:
    server = Bucket(per_minute, burst)
    limits = DispatchLimits(concurrency=64)
    Simulation(limits, server, jitter_s=0.005, latency_s=latency_s).run(900)
    assert server.refused_share(60) <= 0.02
    assert server.used(180, 900) >= 0.85


def test_endless_refusals_do_not_slow_down_the_time_after() -> None:
    server = Bucket(600, 10)
    simulation = Simulation(DispatchLimits(concurrency=64), server, jitter_s=0.005, latency_s=0.1)
    simulation.run(120)
    server.per_minute, server.burst = 1e-6, 0
    simulation.run(420)
    server.per_minute, server.burst = 600, 10
    simulation.run(900)
    assert server.used(600, 900) >= 0.8


def test_refusal_widens_the_gap_a_little() -> None:
    pace = DeclaredPace(0.1, burst=1)
    assert pace.value == FIRST_SLACK
    pace.throttled(5, 100.0, 8)
    assert pace.value == pytest.approx(FIRST_SLACK + 0.005)
    pace.throttled(7, 100.1, 9)  # sent before the first refusal was known
    assert pace.value == pytest.approx(FIRST_SLACK + 0.005)
    pace.throttled(8, 100.2, 10)
    assert pace.value == pytest.approx(FIRST_SLACK + 0.015)
    pace.throttled(10, 200.0, 11)
    assert pace.value == pytest.approx(FIRST_SLACK + 0.005 + 0.01 - 0.1 * 0.05, abs=0.01)


def test_quiet_time_narrows_the_gap_to_the_least_slack() -> None:
    pace = DeclaredPace(0.1, burst=1)
    pace.throttled(0, 0.0, 1)
    values = []
    for minutes in (0.9, 1, 2, 10, 600):
        pace.advance(minutes * 60)
        values.append(pace.value)
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(FIRST_SLACK + 0.005)
    assert values[-1] == pytest.approx(LEAST_SLACK, abs=1e-4)


def test_refusals_before_any_success_teach_no_rate() -> None:
    pace = LearnedPace()
    for ticket in range(50):
        pace.throttled(ticket, float(ticket), ticket + 1)
    assert pace.value is None


def test_stated_gap_is_where_the_search_begins() -> None:
    pace = LearnedPace()
    pace.succeeded(0, 0.1)
    pace.suggest(0.25)
    pace.throttled(1, 0.2, 2)
    assert pace.value == 0.25
    pace.suggest(9.0)
    pace.throttled(2, 0.5, 4)
    assert pace.value == 0.5


def test_adopted_pace_is_used_and_ages() -> None:
    pace = LearnedPace()
    pace.adopt(0.5, 1000.0)
    pace.advance(1000.0)
    assert pace.value == 0.5
    pace.advance(1300.0)
    assert pace.value == pytest.approx(0.5)
    for second in range(1601, 1700, 10):
        pace.succeeded(1, second)
        pace.advance(second)
    assert pace.value is not None
    assert pace.value < 0.4


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ok", "429", "advance", "adopt"]), st.floats(0, 300), st.floats(0, 1e9)
    ),
    max_size=60,
)


@given(_STEPS, st.sampled_from([0.001, 0.1, 60.0]))
def test_pace_stays_within_its_bounds(
    steps: list[tuple[str, float, float]], interval_s: float
) -> None:
    now = 0.0
    for pace in (DeclaredPace(interval_s, 1), LearnedPace()):
        for number, (kind, wait_s, value) in enumerate(steps):
            now += wait_s
            match kind:
                case "ok":
                    pace.succeeded(number, now)
                case "429":
                    pace.throttled(number, now, number + 1)
                case "advance":
                    pace.advance(now)
                case _:
                    pace.adopt(value, now)
            assert pace.value is None or 0.005 <= pace.value <= 60
