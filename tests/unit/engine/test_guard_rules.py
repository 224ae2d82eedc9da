"""The rules of the progress guard on a manual clock."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.engine.guard_rules import (
    Cause,
    GuardLimits,
    GuardStop,
    Held,
    KindGuard,
    Start,
    error_text,
    reason_key,
)

WIDE = GuardLimits(concurrency=32)


class Run:
    """A guard with a manual clock."""

    def __init__(self, limits: GuardLimits = WIDE, *, proven: bool = True) -> None:
        self.guard = KindGuard(limits, proven=proven)
        self.now = 1000.0
        self.jobs = 0

    def start(self) -> int:
        self.jobs += 1
        permission = self.guard.try_start(self.jobs, self.now)
        assert isinstance(permission, Start), permission
        return self.jobs

    def starts(self, count: int) -> list[int]:
        return [self.start() for _ in range(count)]

    def held(self) -> Held:
        permission = self.guard.try_start(0, self.now)
        assert isinstance(permission, Held), permission
        return permission

    def stopped(self) -> GuardStop:
        permission = self.guard.try_start(0, self.now)
        assert isinstance(permission, GuardStop), permission
        return permission

    def useless(self, job: int, said: str = "no data") -> None:
        self.guard.given_up(job, said, self.now)

    def refused(self, job: int, reason: str = "400: gone") -> None:
        self.guard.refused(job, reason, reason, self.now)


def test_three_canaries_start_and_others_wait() -> None:
    run = Run(proven=False)
    first, *_ = run.starts(3)
    assert run.held().seconds is None
    assert "the first image" in run.held().reason
    assert run.guard.saved(first)
    assert len(run.starts(28)) == 28


@pytest.mark.fault("XA2")
def test_canaries_without_an_image_stop_the_run() -> None:
    run = Run(proven=False)
    for job in run.starts(3):
        run.useless(job)
    stop = run.stopped()
    assert (stop.cause, stop.requests, stop.last_error) == (Cause.CANARY, 3, "no data")


def test_free_response_uses_no_canary() -> None:
    run = Run(proven=False)
    for _ in range(50):
        run.guard.free(run.start(), run.now)
    run.starts(3)
    run.held()


def test_canary_with_failing_download_is_awaited() -> None:
    run = Run(GuardLimits(patience_s=60), proven=False)
    jobs = run.starts(3)
    for job in jobs:
        run.guard.failing(job, "HTTP 404", run.now)
    assert run.held().seconds == pytest.approx(60)
    run.now += 59
    run.guard.saved(jobs[0])
    assert isinstance(run.guard.try_start(99, run.now), Start)


def test_canaries_that_arrive_too_late_stop_the_run() -> None:
    run = Run(GuardLimits(patience_s=60), proven=False)
    for job in run.starts(3):
        run.guard.failing(job, "HTTP 404", run.now)
    run.now += 60
    assert run.stopped().cause is Cause.CANARY


@pytest.mark.fault("XA2")
def test_five_useless_attempts_pause_then_probes_stop() -> None:
    run = Run()
    jobs = run.starts(8)
    for job in jobs[:5]:
        run.useless(job)
    assert run.held().seconds == pytest.approx(60)
    assert "a probe in 60 s" in run.held().reason
    assert not run.guard.may_leave(jobs[7]), "what was admitted before the pause is called back"
    for job in jobs[5:]:
        run.guard.withdrawn(job)
    for _ in range(3):
        run.now += 60
        probe = run.start()
        assert run.guard.may_leave(probe)
        assert "a probe in flight" in run.held().reason
        run.useless(probe)
    stop = run.stopped()
    assert (stop.cause, stop.requests, stop.probes) == (Cause.USELESS, 8, 3)


def test_image_ends_a_pause() -> None:
    run = Run()
    jobs = run.starts(6)
    for job in jobs[:5]:
        run.guard.failing(job, "HTTP 404", run.now)
    run.held()
    assert not run.guard.saved(jobs[0]), "only the first image of a kind is news"
    run.start()


def test_throttled_probe_is_not_a_failed_probe() -> None:
    run = Run()
    for job in run.starts(5):
        run.useless(job)
    for _ in range(20):
        run.now += 60
        run.guard.free(run.start(), run.now)
    run.now += 60
    run.start()


def test_rebought_job_counts_once() -> None:
    run = Run()
    job = run.start()
    for _ in range(4):
        run.useless(job)
        assert isinstance(run.guard.try_start(job, run.now), Start)
    run.start()


@pytest.mark.fault("W12")
def test_refusals_for_one_reason_stop_an_unproven_kind() -> None:
    run = Run(proven=False)
    for _ in range(5):
        run.refused(run.start())
    stop = run.stopped()
    assert (stop.cause, stop.requests, stop.reason) == (Cause.REFUSED, 5, "400: gone")


def test_refusals_for_several_reasons_do_not_pause() -> None:
    run = Run()
    for number in range(200):
        run.refused(run.start(), f"400: reason {number % 2}")
    run.start()


def test_refusals_between_images_do_not_pause() -> None:
    run = Run()
    for number in range(200):
        job = run.start()
        if number % 5:
            run.refused(job)
        else:
            run.guard.saved(job)
    run.start()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Prompt 'a mug 1' is too long", "Prompt 'a teapot' is too long", True),
        ("No quota (request id: 20261128aB)", "No quota (request id: 20261129cD)", True),
        ("Limit is 10.0, used 10.02", "limit is 10.0,  used 10.04", True),
        ("size is not allowed", "style is not allowed", False),
    ],
)
def test_reason_key_ignores_varying_parts(one: str, other: str, same: bool) -> None:
    assert (reason_key("c", one) == reason_key("c", other)) is same
    assert reason_key("c", one) != reason_key("d", one)


@given(st.text(), st.text())
def test_reason_key_accepts_any_text(code: str, message: str) -> None:
    assert reason_key(code, message) == reason_key(code, message.upper().lower()) or message
    assert len(error_text(code, message, 400)) <= 200


def test_paid_images_in_delivery_delay_requests() -> None:
    run = Run()
    run.starts(34)
    held = run.held()
    assert held.seconds is None
    assert "being delivered" in held.reason


def test_allowed_deliveries_grow_while_images_arrive() -> None:
    run = Run()
    jobs = run.starts(34)
    for _ in range(200):
        run.held()
        run.guard.saved(jobs.pop(0))
        jobs += run.starts(2)
    assert len(jobs) > 200, "a wide run is not held up by what is on its way to disk"


ENDS = ("useless", "failing", "refused", "free", "withdrawn")


@given(
    ends=st.lists(st.sampled_from(ENDS), max_size=200),
    concurrency=st.integers(1, 40),
    canary=st.integers(1, 10),
    max_useless=st.integers(1, 10),
    max_probes=st.integers(1, 10),
    proven=st.booleans(),
    pick=st.randoms(use_true_random=False),
)
def test_ceiling_holds_for_any_provider(
    ends: list[str],
    concurrency: int,
    canary: int,
    max_useless: int,
    max_probes: int,
    proven: bool,
    pick: random.Random,
) -> None:
    """Charged attempts without an image stay bounded for any sequence of events."""
    limits = GuardLimits(
        canary=canary, max_useless=max_useless, max_probes=max_probes, concurrency=concurrency
    )
    run = Run(limits, proven=proven)
    in_flight: list[int] = []
    failing: list[int] = []
    charged = 0
    for end in ends:
        while len(in_flight) < concurrency:
            run.jobs += 1
            if not isinstance(run.guard.try_start(run.jobs, run.now), Start):
                break
            in_flight.append(run.jobs)
        run.now += 61
        if failing and (end == "failing" or not in_flight):
            run.useless(failing.pop())
        if not in_flight:
            continue
        job = in_flight.pop(pick.randrange(len(in_flight)))
        if end == "useless":
            charged += 1
            run.useless(job)
        elif end == "failing":
            charged += 1
            run.guard.failing(job, "HTTP 404", run.now)
            failing.append(job)
        elif end == "refused":
            run.refused(job)
        elif end == "free":
            run.guard.free(job, run.now)
        else:
            run.guard.withdrawn(job)
        assert charged <= (limits.ceiling if proven else canary)


@given(
    limits=st.builds(
        GuardLimits,
        canary=st.integers(1, 10),
        max_useless=st.integers(1, 10),
        max_probes=st.integers(1, 10),
        concurrency=st.integers(1, 40),
    ),
    ends=st.lists(st.sampled_from((*ENDS[:4], "saved")), max_size=100),
    proven=st.booleans(),
)
def test_guard_never_waits_without_a_reason(
    limits: GuardLimits, ends: list[str], proven: bool
) -> None:
    """Without requests in flight, the guard starts, stops or returns a time to wait for."""
    run = Run(limits, proven=proven)
    for end in ends:
        for _ in range(10):
            permission = run.guard.try_start("next", run.now)
            if not isinstance(permission, Held):
                break
            assert permission.seconds is not None
            run.now += permission.seconds + 1e-6
        if isinstance(permission, GuardStop):
            return
        assert isinstance(permission, Start)
        match end:
            case "useless" | "failing":
                run.guard.failing("next", "x", run.now)
                run.guard.given_up("next", "x", run.now)
            case "refused":
                run.guard.refused("next", "r", "r", run.now)
            case "free":
                run.guard.free("next", run.now)
            case _:
                run.guard.saved("next")
