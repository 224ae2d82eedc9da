"""When a request leaves that waits for its time."""

from __future__ import annotations

import asyncio
import time

import pytest

from batchgen.cluster.gate import Gate, LastDeparture

GAP_S = 0.01


def departures(times: list[float], gap_s: float) -> list[float]:
    """Return when requests left, on the clock of their times."""

    async def run() -> list[float]:
        last = LastDeparture()
        left: list[float] = []

        async def leave(at: float) -> None:
            gate = Gate(last)
            gate.open(at, gap_s)
            await gate.wait()
            left.append(last.at)

        await asyncio.gather(*[leave(at) for at in times])
        return left

    return asyncio.run(run())


def test_late_requests_keep_their_distance() -> None:
    now = time.monotonic()
    first, second, third = departures([now - 3, now - 2, now - 1], GAP_S)
    assert first >= now
    assert second >= first + GAP_S
    assert third >= second + GAP_S


@pytest.mark.parametrize("gap_s", [0.0, GAP_S])
def test_request_does_not_leave_before_its_time(gap_s: float) -> None:
    at = time.monotonic() + 2 * GAP_S
    assert min(departures([at], gap_s)) >= at
