"""A batch in one process: real manifests, plans, approvals, ledger; only the exchange is ours."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from batchgen.engine.recovery import read_spooled, spooled_exchange
from batchgen.job import AttemptId, Billed, Job, JobId, JobState, Outcome, SavedImage
from batchgen.ledger.attempts import open_attempts, settle_attempt
from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import in_memory, open_for_reading, open_for_writing
from batchgen.ledger.explain import JobExplanation
from batchgen.ledger.images import due_images
from batchgen.ledger.jobs import paid_jobs, pending_jobs, read_job
from batchgen.ledger.key_patterns import Only
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.records import DueImage, Reserved
from batchgen.ledger.retry_selection import RetrySelection, retry_jobs
from batchgen.ledger.runs import end_run
from batchgen.ledger.staging import Staging
from batchgen.manifest.loader import parse_manifest
from batchgen.outcomes.classify import Classification, classify
from batchgen.session.batch_lock import batch_lock
from batchgen.session.directories import spool_directory
from batchgen.session.fresh_prices import PriceLists
from batchgen.session.overrides import Overrides
from batchgen.session.plan_and_enroll import EnrolledRun, begin, begin_again
from batchgen.session.prepare import Prepared, RunSpec, prepare, settle_settings
from batchgen.session.presenter import SilentPresenter
from batchgen.session.proposal import Proposal, propose
from batchgen.session.reference_downloads import ReferenceImages
from batchgen.session.stage_plan import stage
from batchgen.spool.spool import Spool
from tests.support.ledger_steps import (
    mark_image_saved,
    record_placement,
    record_response,
    reserve_attempt,
)

OK = Classification(outcome=Outcome.OK, billed=Billed.YES, status=200)
ENDS = {
    "server_error": Classification(
        outcome=Outcome.REFUSED, billed=Billed.NO, code="oops", again=True, status=500
    ),
    "refused": Classification(outcome=Outcome.REFUSED, billed=Billed.NO, code="bad", status=400),
    "blocked": Classification(outcome=Outcome.BLOCKED, billed=Billed.NO, code="unsafe", status=400),
    "lost": Classification(outcome=Outcome.AMBIGUOUS, billed=Billed.MAYBE, code="connection_lost"),
}
"""What comes of a request whose prompt names it; any other prompt gives an image."""
POINTS = ("reserved", "sent", "spooled", "received", "saved")
"""Where a run can be killed."""


class Killed(Exception):
    """The run ends here, and nothing is written any more."""


@dataclass
class Sent:
    """What a run sent, by the endpoint's own record."""

    start: EnrolledRun
    requested: list[str] = field(default_factory=list)
    """The key of each job that was requested, once."""
    billed: int = 0


@dataclass
class Desk:
    """A directory with a manifest and its ledger."""

    directory: Path
    prompts: dict[str, str] = field(default_factory=dict)
    extra: str = ""
    provider: str = "local"
    on_disk: dict[str, str] = field(default_factory=dict)
    """The fingerprint of each job's image."""
    renewed: set[str] = field(default_factory=set)
    """Jobs whose image may be rebought, since a refresh was approved."""
    attempts: int = 0
    bill: dict[str, int] = field(default_factory=dict)

    @property
    def db(self) -> Path:
        return self.directory / "batchgen.db"

    def write(self) -> Path:
        rows = "".join(f"{key},{prompt}\n" for key, prompt in sorted(self.prompts.items()))
        (self.directory / "batch.csv").write_text(f"key,prompt\n{rows}", encoding="utf-8")
        path = self.directory / "batch.yaml"
        path.write_text(
            f"name: batch\nprovider: {self.provider}\n{self.extra}rows: batch.csv\n"
            'key: "{{ key }}"\nprompt: "{{ prompt }}"\noutput: {path: "{{ key }}.{{ ext }}"}\n',
            encoding="utf-8",
        )
        return path

    def prepared(self) -> Prepared:
        return prepare(self.write(), self.db)

    def dump(self) -> list[str] | None:
        """Everything that the ledger holds; None without one."""
        if not self.db.exists():
            return None
        with closing(sqlite3.connect(self.db)) as conn:
            return list(conn.iterdump())

    def _overrides(self, overrides: dict[str, object]) -> Overrides:
        """The command line; ``only`` is a pattern, left out where it matches no job."""
        only = overrides.pop("only", None)
        if isinstance(only, str) and any(fnmatchcase(key, only) for key in self.prompts):
            overrides["only"] = Only.of([only])
        return Overrides(**overrides)  # type: ignore[arg-type]

    def plan(self, **overrides: object) -> Proposal:
        """As `batchgen plan`."""
        return self.plans(**overrides)[0]

    def why(self, key: str, **overrides: object) -> JobExplanation:
        """As `batchgen plan --why`."""
        return self.plans(**overrides)[1][key]

    def plans(self, **overrides: object) -> tuple[Proposal, dict[str, JobExplanation]]:
        """Both: the plan, and why of each key."""
        prepared, flags = self.prepared(), self._overrides(overrides)
        opened = open_for_reading(self.db) if self.db.exists() else in_memory()
        with closing(opened) as conn:
            staging = Staging(conn)
            stage(staging, prepared, accept_unknown_price=False, selection=flags.selection)
            proposal = propose(conn, staging, RunSpec.of(prepared, flags))
            found = {key: staging.explain(proposal.batch, key) for key in self.prompts}
            return proposal, {key: why for key, why in found.items() if why is not None}

    def begin(self, **overrides: object) -> EnrolledRun:
        """Plan, approve and enroll; nothing is sent. Raises BatchgenError."""
        presenter = SilentPresenter()
        spec = RunSpec.of(self.prepared(), self._overrides(overrides))
        with batch_lock(self.db, "batch"):
            return begin(spec, presenter, PriceLists(), ReferenceImages(presenter))

    def resume(self, **overrides: object) -> Sent:
        """As `batchgen resume`."""
        presenter = SilentPresenter()
        flags = self._overrides(overrides)
        with closing(open_for_reading(self.db)) as conn:
            row = find_batch(conn, "batch")
        loaded = parse_manifest(
            row.manifest.encode(), file="batch.yaml", path=Path(row.manifest_path)
        )
        prepared = settle_settings(loaded, self.db)
        spec = RunSpec.of(prepared, flags)
        start = begin_again(spec, presenter, row, ReferenceImages(presenter))
        return self._run(prepared, start, flags, None, downloads=True)

    def run(self, *, kill: str | None = None, downloads: bool = True, **overrides: object) -> Sent:
        """As `batchgen run`; killed at ``POINT:TIMES``. Raises BatchgenError."""
        flags = self._overrides(dict(overrides))
        return self._run(self.prepared(), self.begin(**overrides), flags, kill, downloads=downloads)

    def retry(self, *states: JobState) -> None:
        """As `batchgen retry`."""
        with closing(open_for_writing(self.db)) as conn:
            retry_jobs(conn, find_batch(conn, "batch").id, RetrySelection(states=states))

    def states(self) -> dict[str, str]:
        with closing(sqlite3.connect(self.db)) as conn:
            return dict(conn.execute("SELECT key, state FROM jobs WHERE retired = 0"))

    def _run(
        self,
        prepared: Prepared,
        start: EnrolledRun,
        flags: Overrides,
        kill: str | None,
        *,
        downloads: bool,
    ) -> Sent:
        sent = Sent(start)
        if start.run is None:
            return sent
        with closing(open_for_writing(self.db)) as conn:
            engine = _Engine(self, prepared, Ledger(conn), sent, kill, downloads)
            try:
                engine.run(flags)
            except Killed:
                # Its process is dead then, while this one continues.
                conn.execute("UPDATE runs SET owner = NULL WHERE id = ?", (start.run,))
                return sent
            end_run(engine.ledger, start.run, stopped=None, exit_code=0)
        return sent


@dataclass
class _Engine:
    """The way of a run's jobs, one after the other, in the order of `pool` and `worker`."""

    desk: Desk
    prepared: Prepared
    ledger: Ledger
    sent: Sent
    kill: str | None
    downloads: bool
    passed: int = 0

    def reach(self, point: str) -> None:
        name, _, times = (self.kill or "").partition(":")
        if point == name:
            self.passed += 1
            if self.passed == int(times or 1):
                raise Killed

    @property
    def spool(self) -> Spool:
        return Spool(spool_directory(self.prepared))

    def run(self, flags: Overrides) -> None:
        ledger, start = self.ledger, self.sent.start
        for opened in open_attempts(ledger, start.batch):
            self.recover(opened.id)
        for paid in paid_jobs(ledger, start.batch):
            self.deliver(paid, due_images(ledger, paid))
        waiting = list(self.pending(flags))
        for job in waiting:
            self.request(job)
            while (again := read_job(ledger, job.id)).state is JobState.PENDING:
                self.request(again)

    def pending(self, flags: Overrides) -> Iterator[Job]:
        limit = -1 if flags.limit is None else flags.limit
        yield from pending_jobs(
            self.ledger, self.sent.start.batch, after=JobId(0), limit=limit, only=flags.only
        )

    def recover(self, attempt: AttemptId) -> None:
        exchange = spooled_exchange(self.spool, attempt)
        response = read_spooled(self.spool, attempt, exchange).response
        classification = classify(exchange, response)
        if classification.outcome is Outcome.OK and response is not None:
            images = [(ref, None) for ref in response.images]
            record_response(self.ledger, attempt, classification, images, response="x")
        else:
            settle_attempt(self.ledger, attempt, classification, allowance_of=self.sent.start.run)

    def request(self, job: Job) -> None:
        desk, start = self.desk, self.sent.start
        assert start.run is not None
        desk.attempts += 1
        attempt = AttemptId(f"{desk.attempts:06d}")
        reserved = reserve_attempt(self.ledger, start.run, job, attempt, provider=desk.provider)
        assert isinstance(reserved, Reserved), reserved
        if job.key not in self.sent.requested:
            self.sent.requested.append(job.key)
        assert desk.on_disk.get(job.key) != job.fingerprint or job.key in desk.renewed, (
            f"{job.key} has its image on disk and is rebought"
        )
        self.reach("reserved")
        classification = ENDS.get(job.prompt.partition(" ")[0], OK)
        if classification is OK or classification.billed is Billed.MAYBE:
            desk.bill[attempt] = job.price
            self.sent.billed += job.price
        self.reach("sent")
        if classification is not OK:
            settle_attempt(self.ledger, attempt, classification)
            return
        body = {"created": 1, "data": [{"url": f"https://images.example/{attempt}.png"}]}
        head = {"status": 200, "headers": {}, "route": "images", "mark": ""}
        self.spool.prepare()
        path = self.spool.directory / self.spool.name(attempt)
        path.write_text(f"{json.dumps(head)}\n{json.dumps(body)}", encoding="utf-8")
        self.reach("spooled")
        response = read_spooled(self.spool, attempt, spooled_exchange(self.spool, attempt)).response
        assert response is not None
        due = record_response(
            self.ledger, attempt, OK, [(ref, None) for ref in response.images], response=path.name
        )
        self.reach("received")
        self.deliver(job.id, due)
        self.reach("saved")

    def deliver(self, job: JobId, due: list[DueImage]) -> None:
        if not self.downloads:
            return
        key = read_job(self.ledger, job).key
        for image in due:
            saved = SavedImage(
                path=f"{key}.png", sha256="s", bytes=1, width=1, height=1, format="png"
            )
            record_placement(self.ledger, image.id, read_job(self.ledger, job).root, saved)
            mark_image_saved(self.ledger, image.id)
            fingerprint = self.ledger.conn.execute(
                "SELECT fingerprint FROM attempts WHERE id = ?", (image.attempt_id,)
            ).fetchone()["fingerprint"]
            self.desk.on_disk[key] = fingerprint
            self.desk.renewed.discard(key)
