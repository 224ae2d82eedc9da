"""The attempts of one run as curves: read once, followed from then on, at most 600 points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from batchgen.ledger.dashboard import SeenAttempt

STEP_S: Final = 10
MOST_POINTS: Final = 600
_RATE_WINDOW_S: Final = 300
_SHORT_WINDOW_S: Final = 60
MIN_SAMPLES: Final = 20
"""Images that a rate needs; before, no time left is shown."""


@dataclass(slots=True)
class _Step:
    """The attempts that ended within one step."""

    ok: int = 0
    throttled: int = 0
    other: int = 0
    cost: int = 0
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """One point per step; ``step_s`` seconds each, from the start of the run."""

    step_s: int
    ok: list[int]
    throttled: list[int]
    other: list[int]
    cost: list[int]
    """Micros charged so far."""
    p50: list[float | None]
    p95: list[float | None]


class Series:
    """Follows the attempts of one run."""

    def __init__(self, started_at: str) -> None:
        self._start = _seconds(started_at)
        self._steps = dict[int, _Step]()
        self.last = 0
        """The rowid of the newest attempt that was read; before the first, where to begin."""
        self._is_whole = False
        self._open = set[int]()
        self.images = 0

    def follow(
        self,
        after: Callable[[int], Sequence[SeenAttempt]],
        now: Callable[[set[int]], Sequence[SeenAttempt]],
        *,
        is_closed: bool = False,
    ) -> None:
        """Read what is new: ``after`` returns a page of newer attempts, ``now`` ended ones.

        After a read of a closed run, only attempts that were open are looked at again.
        """
        if self._open:
            for attempt in now(self._open):
                self._open.discard(attempt.rowid)
                self._count(attempt)
        while not self._is_whole and (page := after(self.last)):
            self.last = page[-1].rowid
            for attempt in page:
                if attempt.ended_at is None:
                    self._open.add(attempt.rowid)
                else:
                    self._count(attempt)
        self._is_whole = self._is_whole or is_closed

    def _count(self, attempt: SeenAttempt) -> None:
        ended = _seconds(attempt.ended_at or attempt.started_at)
        step = self._steps.setdefault(max(0, int((ended - self._start) // STEP_S)), _Step())
        step.cost += attempt.cost
        if attempt.outcome == "ok":
            step.ok += 1
            self.images += 1
            step.seconds.append(ended - _seconds(attempt.started_at))
        elif attempt.outcome == "throttled" or attempt.http_status in (429, 503):
            step.throttled += 1
        else:
            step.other += 1

    def curves(self, until: str) -> Curves:
        """Return the curves from the start of the run to a moment."""
        steps = max(1, int((_seconds(until) - self._start) // STEP_S) + 1, *self._ends())
        width = -(-steps // MOST_POINTS)
        points = -(-steps // width)
        merged = [_Step() for _ in range(points)]
        for place, step in self._steps.items():
            point = merged[min(points - 1, place // width)]
            point.ok += step.ok
            point.throttled += step.throttled
            point.other += step.other
            point.cost += step.cost
            point.seconds += step.seconds
        total, costs = 0, list[int]()
        for point in merged:
            total += point.cost
            costs.append(total)
        return Curves(
            step_s=width * STEP_S,
            ok=[one.ok for one in merged],
            throttled=[one.throttled for one in merged],
            other=[one.other for one in merged],
            cost=costs,
            p50=[percentile(one.seconds, 50) for one in merged],
            p95=[percentile(one.seconds, 95) for one in merged],
        )

    def _ends(self) -> list[int]:
        return [place + 1 for place in self._steps]

    def rates(self, now: str) -> tuple[float, float, float] | None:
        """Return the images a minute lately, and the lowest and highest plausible rate.

        None with fewer than `MIN_SAMPLES` images.
        """
        if self.images < MIN_SAMPLES:
            return None
        elapsed = max(1.0, _seconds(now) - self._start)
        windows = {min(elapsed, span) for span in (_SHORT_WINDOW_S, _RATE_WINDOW_S, elapsed)}
        found = [self._rate(elapsed, span) for span in sorted(windows)]
        recent = self._rate(elapsed, min(elapsed, _RATE_WINDOW_S))
        return recent, min(found), max(found)

    def _rate(self, elapsed: float, span: float) -> float:
        first = int((elapsed - span) // STEP_S)
        images = sum(step.ok for place, step in self._steps.items() if place >= first)
        return images * 60 / max(1.0, elapsed - max(0, first) * STEP_S)


def percentile(values: Sequence[float], share: int) -> float | None:
    """Return the smallest value that at least ``share`` percent do not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[-(-len(values) * share // 100) - 1]


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
