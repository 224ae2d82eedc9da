"""One trial of a sweep: a small run is hit, judged as it lies, finished and judged again."""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from batchgen.errors import ExitCode
from tests.faults import judge, power
from tests.faults.judge import Bill, Finding, Kind
from tests.faults.station import Ended, Station, station
from tests.faults.tracer import Call, FailAt, KillAt, Note, Plan
from tests.support import rig

PROMPTS = ("one", "two", "three")
CONCURRENCY = 2


@dataclass(slots=True)
class Result:
    """What a trial found."""

    hit: Call | None = None
    """Where the run was hit last; None where it ended before."""
    open_attempts: int = 0
    """Requests whose end the ledger did not know, after the kill."""
    billed_uncertain: int = 0
    sent_after: int = 0
    """Requests that left after the failure."""
    findings: list[Finding] = field(default_factory=list)


class Course:
    """An endpoint, and a directory for each trial."""

    def __init__(self, directory: Path, served: rig.Endpoint, runs: Station) -> None:
        self._directory = directory
        self.served = served
        self.runs = runs
        self._numbers = itertools.count()
        self._recorded: dict[str, Recorded] = {}
        self._calls: tuple[Path, Sequence[Call]] | None = None

    def calls(self) -> tuple[Path, Sequence[Call]]:
        """The calls of a whole run, and its directory; made once."""
        if self._calls is None:
            trial = self.trial("url", "0")
            ended = trial.run(Note())
            assert isinstance(ended.plan, Note)
            self._calls = trial.directory, ended.plan.calls
        return self._calls

    def kill_points(self) -> int:
        """How many calls of a run change anything; about, as threads take turns differently."""
        return sum(call.changes for call in self.calls()[1])

    def fail_points(self, error: int) -> int:
        """How many calls of a run can fail so, about."""
        directory, calls = self.calls()
        plan = FailAt(1, error, directory)
        return sum(plan.can_fail(call) for call in calls)

    def recorded(self, response: str) -> Recorded:
        """A run that was written down call by call; made once for each response."""
        if response not in self._recorded:
            self._recorded[response] = _record(self.trial(response, "100%"))
        return self._recorded[response]

    def trial(self, response: str, waste: str, prompts: Sequence[str] = PROMPTS) -> Trial:
        """A fresh manifest."""
        self.served.judge("faults", {"response": response})
        directory = self._directory / f"trial-{next(self._numbers)}"
        limits = f'{{concurrency: {CONCURRENCY}, max_waste: "{waste}"}}'
        path = rig.manifest(directory, self.served.base_url, prompts, limits=limits)
        return Trial(self, directory, path, waste, len(self.served.bill()))


@contextmanager
def course(directory: Path) -> Iterator[Course]:
    """Start what trials need."""
    with (
        rig.endpoint(directory / "endpoint", "--fast-images") as served,
        station() as runs,
    ):
        yield Course(directory, served, runs)


class Trial:
    """One small run and its end."""

    def __init__(
        self, course: Course, directory: Path, path: Path, waste: str, before: int
    ) -> None:
        self.directory = directory
        self.course = course
        self.path = path
        self._waste = waste
        self._before = before
        self._earlier: Bill = ()
        self._hits = 0
        self.result = Result()

    def restart_from(self, earlier: Bill) -> Trial:
        """The same trial from another state of its disk; so much was charged by then."""
        following = Trial(self.course, self.directory, self.path, self._waste, self._before)
        following._before = len(self.course.served.bill())
        following._earlier = earlier
        return following

    def bill(self) -> Bill:
        """What was charged for this trial, once all is worked off."""
        self.course.served.wait_until_idle()
        return [*self._earlier, *self.course.served.bill()[self._before :]]

    def run(self, plan: Plan | None = None) -> Ended:
        """Run the manifest."""
        return self.course.runs.run("run", self.path, "--json", cwd=self.directory, plan=plan)

    def hit(self, plan: Plan) -> Ended:
        """Run the manifest, and judge it as it lies."""
        result = self.result
        self._hits += 1
        ended = self.run(plan)
        result.hit = ended.end.stopped_at
        if ended.end.code == -signal.SIGALRM:
            self.found(Kind.STUCK, f"it did not end: {ended.output}")
        self.judge_dead()
        return ended

    def judge_dead(self) -> None:
        """Judge what lies there: a copy, as looking into a ledger rolls its journal back."""
        result, bill = self.result, self.bill()
        with tempfile.TemporaryDirectory() as copies:
            copy = Path(copies) / "copy"
            shutil.copytree(self.directory, copy)
            open_attempts = judge.open_attempts(copy)
            if open_attempts - result.open_attempts > CONCURRENCY:
                self.found(
                    Kind.MONEY, f"{open_attempts - result.open_attempts} open attempts of one run"
                )
            result.open_attempts = open_attempts
            result.billed_uncertain = judge.billed_uncertain(copy, bill)
            result.findings += judge.dead(copy, bill)

    def finish(self) -> Result:
        """Run to the end, judge, and run again for nothing."""
        result, earlier = self.result, self.result.open_attempts
        done = self.run()
        result.findings += judge.final(self.directory, self.bill())
        # A second uncertain attempt of a job is held, even within max_waste.
        held = earlier if self._waste == "0" or self._hits > 1 else 0
        if done.end.code not in ({ExitCode.DONE, ExitCode.UNFINISHED} if held else {ExitCode.DONE}):
            self.found(Kind.STUCK, f"exit {done.end.code}: {done.output}")
        elif judge.held(self.directory) > held:
            self.found(Kind.STUCK, "more jobs are held than were uncertain")
        posts, rows = self.course.served.judge("stats")["posts"], judge.rows(self.directory)
        self.course.runs.run("resume", "batch", cwd=self.directory)
        if self.course.served.judge("stats")["posts"] != posts:
            self.found(Kind.TWICE, "a run with nothing to do sent something")
        if judge.rows(self.directory) != rows:
            self.found(Kind.STUCK, "a run with nothing to do wrote something")
        return result

    def found(self, kind: Kind, text: str) -> None:
        """Add to the findings."""
        self.result.findings.append(Finding(kind, text))


def killed(course: Course, number: int, *, response: str, waste: str) -> Result:
    """Kill a run before its Nth call that changes anything, and finish it."""
    trial = course.trial(response, waste)
    trial.hit(KillAt(number))
    return trial.finish()


def killed_three_times(course: Course, seed: int, *, response: str, waste: str) -> Result:
    """Kill a run, the one that recovers from it, and the one after that."""
    dice = random.Random(seed)
    trial = course.trial(response, waste)
    for _ in range(3):
        trial.hit(KillAt(dice.randrange(1, 400)))
    return trial.finish()


def failed(course: Course, number: int, error: int, *, response: str) -> Result:
    """Let the Nth call fail that can fail so, and go on with the next run."""
    trial = course.trial(response, "100%")
    ended = trial.hit(FailAt(number, error, trial.directory))
    hit = trial.result.hit
    if hit is not None:
        trial.result.sent_after = sum(number > hit.number for _, number in ended.end.sent)
    # Those that were reserved before: as many as slots, if a response was being recorded.
    if ended.end.code == ExitCode.STOPPED and trial.result.sent_after > CONCURRENCY:
        trial.found(Kind.BOLD, f"{trial.result.sent_after} requests left after it")
    if ended.end.code == ExitCode.BUG:
        trial.found(Kind.STUCK, f"taken for a bug: {ended.output}")
    return trial.finish()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A whole run: what it did to the disk, when it sent, and what it was charged."""

    trial: Trial
    events: Sequence[power.Event]
    sent: Sequence[tuple[str, int]]
    bill: Bill

    def charged_by(self, call: int) -> Bill:
        """What was sent up to a call is charged, sooner or later."""
        sent = {key for key, number in self.sent if number <= call}
        return [row for row in self.bill if row["idempotency_key"] in sent]


def _record(trial: Trial) -> Recorded:
    ended = trial.run(power.Record(trial.directory))
    assert ended.end.code == ExitCode.DONE, ended.output
    assert isinstance(ended.plan, power.Record)
    events, found = ended.plan.events, power.tree(trial.directory)
    whole = power.disk_at(events, len(events)).after_cut(power.Kept.EVERYTHING, random.Random(0))
    power.lay_out(trial.directory, *whole, trial.path)
    assert power.tree(trial.directory) == found, "the record does not lead to what was on the disk"
    return Recorded(trial, events, ended.end.sent, trial.bill())


def power_lost(course: Course, number: int, *, response: str) -> Result:
    """Cut the power after an event: each three numbers keep nothing, some, all of the unsynced."""
    recorded = course.recorded(response)
    cut, kept = number // 3, list(power.Kept)[number % 3]
    if cut > len(recorded.events):
        return Result()
    disk = power.disk_at(recorded.events, cut)
    state = disk.after_cut(kept, random.Random(number))
    power.lay_out(recorded.trial.directory, *state, recorded.trial.path)
    trial = recorded.trial.restart_from(recorded.charged_by(disk.calls))
    trial.result.hit = Call(cut, f"power cut, {kept} kept", 0, ())
    trial.judge_dead()
    return trial.finish()


def naively_killed(course: Course, number: int) -> Result:
    """As `killed`, of the runner that must be found out."""
    trial = course.trial("url", "0")
    for plan in (KillAt(number), None):
        arguments = (course.served.base_url, *PROMPTS)
        ended = course.runs.run(*arguments, cwd=trial.directory, plan=plan, naive=True)
        if plan is not None:
            trial.result.hit = ended.end.stopped_at
            trial.result.findings += judge.dead(trial.directory, trial.bill())
    trial.result.findings += judge.dead(trial.directory, trial.bill())
    return trial.result
