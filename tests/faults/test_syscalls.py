"""Samples of the sweeps, by fixed seeds; ``python -m tests.faults.sweep`` makes them complete."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from batchgen.errors import ExitCode
from tests.faults import trials
from tests.faults.judge import Kind
from tests.faults.tracer import Call, Plan, Refused
from tests.faults.trials import Course, Result

KILLS = 20
ERRORS = {errno.EIO: 7, errno.ENOSPC: 6, errno.EMFILE: 5}
CUTS = 20
MODES = [("url", "0"), ("url", "100%"), ("b64_json", "0"), ("b64_json", "100%")]


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    with trials.course(tmp_path_factory.mktemp("course")) as started:
        try:
            started.trial("url", "0").run(Plan())
        except Refused as exc:
            if os.environ.get("BATCHGEN_TEST_TRACE"):
                raise
            pytest.skip(str(exc))
        yield started


def _point(part: int, parts: int, points: int) -> int:
    """One point by chance in this part of a run; the last tenth may not be reached every time."""
    place = (part + random.Random(part).random()) / parts
    return 1 + int(0.9 * points * place)


def _hit(number: int, trial: Callable[[int], Result]) -> None:
    """Judge a trial at this point, or before it if a run finished with fewer calls.

    On a busy machine the ledger writes more steps in one group.
    """
    while True:
        result = trial(number)
        assert result.findings == [], result.hit
        if result.hit is not None:
            return
        assert number > 1, "no run comes by any of these points"
        number = number * 3 // 4


@pytest.mark.fault("P05", "Q13")
@pytest.mark.parametrize("part", range(KILLS))
def test_kill_before_any_system_call_loses_nothing(part: int, course: Course) -> None:
    response, waste = MODES[part % 4]
    number = _point(part, KILLS, course.kill_points())
    _hit(number, lambda point: trials.killed(course, point, response=response, waste=waste))


@pytest.mark.fault("P07")
@pytest.mark.parametrize("seed", range(4))
def test_three_kills_in_a_row_lose_nothing(seed: int, course: Course) -> None:
    response, waste = MODES[seed]
    result = trials.killed_three_times(course, seed, response=response, waste=waste)
    assert result.findings == [], result.hit


@pytest.mark.parametrize(
    ("error", "part"),
    [
        pytest.param(error, part, id=f"{errno.errorcode[error]}-{part}", marks=mark)
        for error, mark in (
            (errno.EIO, pytest.mark.fault("D06", "Q10")),
            (errno.ENOSPC, pytest.mark.fault("Q09")),
            (errno.EMFILE, pytest.mark.fault("R02")),
        )
        for part in range(ERRORS[error])
    ],
)
def test_an_error_at_any_system_call_costs_nothing(error: int, part: int, course: Course) -> None:
    response, _ = MODES[part % 4]
    number = _point(part, ERRORS[error], course.fail_points(error))
    _hit(number, lambda point: trials.failed(course, point, error, response=response))


@pytest.mark.fault("P09", "D20")
@pytest.mark.parametrize("part", range(CUTS))
def test_after_a_power_cut_nothing_is_lost_or_bought_twice(part: int, course: Course) -> None:
    response, _ = MODES[part % 4]
    number = _point(part, CUTS, 3 * len(course.recorded(response).events))
    result = trials.power_lost(course, number, response=response)
    assert result.findings == [], result.hit


class SlowSyncs(Plan):
    """One in this many syncs takes half a second."""

    def __init__(self) -> None:
        self.syncs = 0

    def entering(self, call: Call) -> int | None:
        if call.name in ("fsync", "fdatasync"):
            self.syncs += 1
            if self.syncs % 10 == 0:
                time.sleep(0.5)
        return None


@pytest.mark.fault("R06")
def test_slow_disk_sync_only_takes_longer(course: Course) -> None:
    trial = course.trial("url", "0")
    ended = trial.run(SlowSyncs())
    assert isinstance(ended.plan, SlowSyncs)
    assert ended.plan.syncs > 40
    assert ended.end.code == ExitCode.DONE, ended.output
    assert trial.finish().findings == []


def test_a_runner_that_calls_saves_and_records_is_found_out(course: Course) -> None:
    kinds = set()
    for number in range(90, 290, 25):
        kinds |= {one.kind for one in trials.naively_killed(course, number).findings}
    assert Kind.LOST in kinds
