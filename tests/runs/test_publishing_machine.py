"""With `publish: on_accept`, a final name holds only accepted images, and no paid one vanishes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from batchgen.job import Publish
from batchgen.ledger.images import due_images
from batchgen.ledger.jobs import paid_jobs, read_job
from batchgen.ledger.newest_decisions import Decision
from batchgen.ledger.unpublished import publications
from batchgen.system.failpoints import Point
from tests.support.places_desk import BUCKET, BucketDesk, Desk, png

KEYS: Final = ("a", "b")
PATHS: Final = ("1.{ext}", "2.{ext}", "sub/1.{ext}")
MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Syncs cost nothing there."""
PLACED = st.sampled_from([None, None, Point.KEPT, Point.PLACING, Point.PLACED])
MOVED = st.sampled_from([None, None, Point.MOVED, Point.BLOCKER_MOVED])
PUBLISHED = st.sampled_from(
    [None, None, Point.KEPT, Point.PUBLISHING, Point.NAMED, Point.PUBLISHED]
)
"""Of these, only a bucket reaches `Point.NAMED`."""
DECISIONS = st.sampled_from([Decision.ACCEPT, Decision.ACCEPT, Decision.REJECT, Decision.CLEAR])


class Publishing(RuleBasedStateMachine):
    """Makes, decides, publishes, edits, moves and rolls back images, killed at any point."""

    kind: type[Desk] = Desk
    roots: tuple[str, str] = ("out", "new")

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="batchgen-publishing-", dir=MEMORY))
        self.desk = self.kind(self.directory, keep_previous=50)
        self.desk.publish_when = Publish.ON_ACCEPT
        self.allowed: set[bytes] = set()
        """What a final name may hold."""
        self.kept: set[bytes] = set()
        """What must exist somewhere."""
        self.edits = 0
        self.published: set[str] = set()
        """Jobs with a published image."""
        self.desk.plan = {
            key: (self.roots[0], path, 0) for key, path in zip(KEYS, PATHS, strict=False)
        }
        self.run(None)

    def teardown(self) -> None:
        if hasattr(self, "desk"):
            self.desk.conn.close()
            shutil.rmtree(self.directory)

    @rule(key=st.sampled_from(KEYS), point=PLACED)
    def change(self, key: str, point: Point | None) -> None:
        root, path, edition = self.desk.plan[key]
        self.desk.plan[key] = (root, path, edition + 1)
        self.run(point)

    @rule(key=st.sampled_from(KEYS), point=PLACED)
    def change_back(self, key: str, point: Point | None) -> None:
        root, path, edition = self.desk.plan[key]
        self.desk.plan[key] = (root, path, max(0, edition - 1))
        self.run(point)

    @rule(point=PLACED)
    def run(self, point: Point | None) -> None:
        self._run_once(point)
        self._run_once(None)  # jobs that had changed after they were paid
        assert not self._run_once(None), "a done job is rebought"

    def _run_once(self, point: Point | None) -> int:
        """Run the batch, and again after a kill; return how many images were bought."""
        self.desk.enroll()
        self.desk.publish()
        before = self.desk.made
        self.desk.buy()
        self.kept |= {png(number + 1) for number in range(before, self.desk.made)}
        if point is not None:
            self._deliver(point)
        self._deliver(None)
        return self.desk.made - before

    def _deliver(self, point: Point | None) -> None:
        for id_ in paid_jobs(self.desk.ledger, self.desk.batch):
            if read_job(self.desk.ledger, id_).publish is Publish.AT_ONCE:
                due = due_images(self.desk.ledger, id_)
                self.allowed |= {png(int(image.attempt_id, 16)) for image in due}
        self.desk.deliver(False, point)

    @rule(when=st.sampled_from(list(Publish)))
    def switch(self, when: Publish) -> None:
        self.desk.publish_when = when
        self.desk.enroll()

    @rule(key=st.sampled_from(KEYS), decision=DECISIONS)
    def decide(self, key: str, decision: Decision) -> None:
        seen = self.desk.decide(key, decision)
        if seen is not None and decision is Decision.ACCEPT:
            self.allowed.add(seen)

    @rule(point=PUBLISHED)
    def publish(self, point: Point | None) -> None:
        self.desk.publish(point)
        if point is None:
            troubles = self.desk.publish().troubles
            left = publications(self.desk.ledger, self.desk.batch)
            assert {one.image for one in left} == set(troubles)

    @rule(key=st.sampled_from(KEYS), point=PUBLISHED)
    def accept_new(self, key: str, point: Point | None) -> None:
        """Make a new image, accept it, and kill its publication, which the next one finishes."""
        self.change(key, None)
        self.decide(key, Decision.ACCEPT)
        self.publish(point)
        self.publish(None)

    @rule(places=st.permutations(PATHS), root=st.sampled_from((0, 1)), point=MOVED)
    def move(self, places: list[str], root: int, point: Point | None) -> None:
        for key, path in zip(KEYS, places, strict=False):
            self.desk.plan[key] = (self.roots[root], path, self.desk.plan[key][2])
        self.desk.enroll(point)

    @rule(path=st.sampled_from(PATHS), waits=st.booleans())
    def edit(self, path: str, waits: bool) -> None:
        directory = ".pending/" if waits else ""
        place = self.directory / "out" / (directory + path.replace("{ext}", "png"))
        if not place.parent.is_dir():
            return
        if place.exists():
            self.kept.discard(place.read_bytes())
            place.unlink()
        self.edits += 1
        data = b"edited %d" % self.edits
        place.write_bytes(data)
        self.kept.add(data)
        self.allowed.add(data)

    @rule(key=st.sampled_from(KEYS))
    def roll_back(self, key: str) -> None:
        self.desk.roll_back(key)

    @invariant()
    def published_job_stays_published(self) -> None:
        if hasattr(self, "desk"):
            now = {key for key in KEYS if self.desk.place_of(key) is not None}
            assert self.published <= now
            self.published = now

    @rule(key=st.sampled_from(KEYS))
    def replace_rejected(self, key: str) -> None:
        """Reject what is published: the next run makes one new image, which then waits."""
        self.decide(key, Decision.ACCEPT)
        self.publish(None)
        self.decide(key, Decision.REJECT)
        self.run(None)

    @invariant()
    def nothing_vanished(self) -> None:
        if not hasattr(self, "desk"):
            return
        shown, hidden = set[bytes](), set[bytes]()
        for path in self.directory.rglob("*"):
            if path.is_file() and path.parts[len(self.directory.parts)] in ("out", "new"):
                is_hidden = any(part.startswith(".") for part in path.parts)
                (hidden if is_hidden else shown).add(path.read_bytes())
        assert shown <= self.allowed, "an image is published that no person accepted"
        # Due, or given up since the plan changed back to the image on disk.
        rows = self.desk.conn.execute(
            "SELECT attempt_id FROM images WHERE state IN ('due', 'lost')"
        )
        elsewhere = {png(int(row["attempt_id"], 16)) for row in rows}
        assert self.kept <= shown | hidden | elsewhere, "a paid image or a person's file vanished"


Publishing.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class BucketPublishing(Publishing):
    """The same in buckets."""

    kind = BucketDesk
    roots = (f"{BUCKET}out", f"{BUCKET}new")


class MovedPublishing(Publishing):
    """The same with images that move between a directory and a bucket."""

    kind = BucketDesk
    roots = ("out", f"{BUCKET}new")


BucketPublishing.TestCase.settings = MovedPublishing.TestCase.settings = (
    Publishing.TestCase.settings
)
TestPublishing = pytest.mark.fault("XA3", "XA8", "XF2")(Publishing.TestCase)
TestBucketPublishing = pytest.mark.fault("XA3", "XA8", "XF2")(BucketPublishing.TestCase)
TestMovedPublishing = pytest.mark.fault("XA3", "XA8", "XF2")(MovedPublishing.TestCase)
