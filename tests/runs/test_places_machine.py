"""No bytes that were ever at a final name vanish: a state machine over real files and a ledger."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from batchgen.system.failpoints import Point
from tests.support.places_desk import Desk

KEYS: Final = ("a", "b", "c")
PATHS: Final = ("1.{ext}", "2.{ext}", "3.{ext}", "sub/1.{ext}")
ROOTS: Final = ("out", "new")


MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Syncs cost nothing there."""


POINTS = st.sampled_from([None, None, None, Point.KEPT, Point.PLACING, Point.PLACED])
MOVES = st.sampled_from([None, None, Point.MOVED, Point.BLOCKER_MOVED])


@pytest.mark.fault("XA3", "XA4", "XA8", "XA9", "XC2", "XC5", "XF2")
class Places(RuleBasedStateMachine):
    """Makes, edits, replaces, moves and rolls back images, killed at any point."""

    @initialize(keep_previous=st.integers(0, 2), has_links=st.sampled_from([True, True, False]))
    def begin(self, keep_previous: int, has_links: bool) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="batchgen-places-", dir=MEMORY))
        self.desk = Desk(self.directory, keep_previous=keep_previous)
        self.desk.has_links = has_links
        self.theirs: list[bytes] = []
        self.ours: dict[str, list[bytes]] = {key: [] for key in KEYS}
        self.edits = 0
        self.desk.plan = {key: ("out", path, 0) for key, path in zip(KEYS, PATHS, strict=False)}
        self.desk.enroll()

    def teardown(self) -> None:
        if hasattr(self, "desk"):
            self.desk.conn.close()
            shutil.rmtree(self.directory)

    @rule(places=st.permutations(PATHS), root=st.sampled_from(ROOTS), point=MOVES)
    def move(self, places: list[str], root: str, point: Point | None) -> None:
        for key, path in zip(KEYS, places, strict=False):
            self.desk.plan[key] = (root, path, self.desk.plan[key][2])
        self.desk.enroll(point)

    @rule(key=st.sampled_from(KEYS), overwrite=st.booleans(), point=POINTS)
    def make(self, key: str, overwrite: bool, point: Point | None) -> None:
        root, path, edition = self.desk.plan[key]
        self.desk.plan[key] = (root, path, edition + 1)
        self.desk.enroll()
        self.desk.buy()
        self._deliver(overwrite, point)

    @rule(overwrite=st.booleans())
    def resume(self, overwrite: bool) -> None:
        self._deliver(overwrite, None)
        if not self.desk.paid():
            parts = [path for root in ROOTS for path in (self.directory / root).rglob("*.part")]
            assert parts == [], "a temporary name is left"

    def _deliver(self, overwrite: bool, point: Point | None) -> None:
        for key, data in self.desk.deliver(overwrite, point).items():
            self.ours[key] = [*self.ours[key], data][-1 - self.desk.keep_previous :]
        if point is not None:
            # The newest image may be in place, and not known to be.
            for key, versions in self.ours.items():
                self.ours[key] = versions[len(versions) - self.desk.keep_previous :]

    @rule(root=st.sampled_from(ROOTS), path=st.sampled_from(PATHS))
    def edit(self, root: str, path: str) -> None:
        place = self.directory / root / path.replace("{ext}", "png")
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            old = place.read_bytes()
            if old in self.theirs:
                self.theirs.remove(old)
            for versions in self.ours.values():
                if old in versions:
                    versions.remove(old)
            place.unlink()
        self.edits += 1
        data = b"edited %d" % self.edits
        place.write_bytes(data)
        self.theirs.append(data)

    @rule(key=st.sampled_from(KEYS))
    def roll_back(self, key: str) -> None:
        place = self.desk.place_of(key)
        now = place.read_bytes() if place and place.exists() else None
        if not self.desk.roll_back(key):
            return
        if now is not None:
            assert now in self._all_bytes(), "a rollback keeps what was there"
        if self.desk.roll_back(key) and now not in self.theirs:
            place = self.desk.place_of(key)
            assert now is None or (place and place.read_bytes() == now), "twice brings it back"
        self.ours[key] = []

    def _all_bytes(self) -> set[bytes]:
        return {path.read_bytes() for path in self.directory.rglob("*") if path.is_file()}

    @invariant()
    def nothing_vanished(self) -> None:
        if not hasattr(self, "desk"):
            return
        there = {
            path.read_bytes()
            for root in ROOTS
            for path in (self.directory / root).rglob("*")
            if path.is_file() and not path.name.endswith(".part")
        }
        for data in self.theirs:
            assert data in there, "bytes of a person vanished"
        for key, versions in self.ours.items():
            for data in versions:
                assert data in there, f"a version of {key} vanished"


Places.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestPlaces = pytest.mark.fault("XA3", "XA4", "XA8", "XA9", "XC2", "XC5", "XF2")(Places.TestCase)


@pytest.mark.fault("XA4")
def test_rollback_after_directory_and_prompt_changed(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.plan = {"a": ("out", "1.{ext}", 0)}
    desk.enroll()
    desk.buy()
    old = desk.deliver(False, None)["a"]
    desk.plan = {"a": ("new", "1.{ext}", 1)}
    desk.enroll()
    desk.buy()
    new = desk.deliver(False, None)["a"]
    assert not (tmp_path / "out/1.png").exists()
    for place, data in (("out", old), ("new", new), ("out", old)):
        assert desk.roll_back("a")
        assert desk.place_of("a") == tmp_path / place / "1.png"
        assert (tmp_path / place / "1.png").read_bytes() == data
        other = "new" if place == "out" else "out"
        assert not (tmp_path / other / "1.png").exists()
    desk.conn.close()


@pytest.mark.fault("XA4")
def test_a_run_after_rollback_moves_to_the_plan(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.plan = {"a": ("out", "1.{ext}", 0)}
    desk.enroll()
    desk.buy()
    old = desk.deliver(False, None)["a"]
    desk.plan = {"a": ("new", "2.{ext}", 1)}
    desk.enroll()
    desk.buy()
    desk.deliver(False, None)
    assert desk.roll_back("a")
    desk.enroll()
    assert desk.place_of("a") == tmp_path / "new/2.png"
    assert (tmp_path / "new/2.png").read_bytes() == old
    desk.conn.close()


def chain(desk: Desk, count: int) -> dict[str, bytes]:
    desk.plan = {f"k{n:04d}": ("out", f"{n}.{{ext}}", 0) for n in range(count)}
    desk.enroll()
    desk.buy()
    return desk.deliver(False, None)


def images(desk: Desk, count: int) -> dict[str, bytes | None]:
    found = {}
    for n in range(count):
        place = desk.place_of(f"k{n:04d}")
        found[f"k{n:04d}"] = place.read_bytes() if place and place.exists() else None
    return found


ORDERS: Final[dict[str, Callable[[int, int], int]]] = {
    "shift up": lambda n, count: n + 1,
    "shift down": lambda n, count: n - 1 if n else count,
    "rotate": lambda n, count: (n + 1) % count,
    "swap": lambda n, count: n ^ 1,
    "reverse": lambda n, count: count - 1 - n,
}


@pytest.mark.fault("XC5")
@pytest.mark.parametrize("point", [None, Point.MOVED, Point.BLOCKER_MOVED])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_places_that_depend_on_each_other_are_resolved(
    order: Callable[[int, int], int], point: Point | None, tmp_path: Path
) -> None:
    count = 8
    desk = Desk(tmp_path)
    made = chain(desk, count)
    desk.plan = {f"k{n:04d}": ("out", f"{order(n, count)}.{{ext}}", 0) for n in range(count)}
    desk.enroll(point)
    assert desk.enroll() == []
    assert images(desk, count) == made
    for n in range(count):
        assert desk.place_of(f"k{n:04d}") == tmp_path / f"out/{order(n, count)}.png"
    assert len(list((tmp_path / "out").rglob("*"))) == count
    desk.conn.close()


@pytest.mark.fault("XC5")
def test_an_image_that_could_not_be_moved_is_tried_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    made = chain(desk, 2)
    (tmp_path / "out/9.png").write_bytes(b"theirs")
    desk.plan["k0000"] = ("out", "9.{ext}", 0)
    (notice,) = desk.enroll()
    assert "k0000: not moved from out/0.png" in notice
    assert len(desk.enroll()) == 1, "the next run repeats the notice"
    (tmp_path / "out/9.png").unlink()
    assert desk.enroll() == []
    assert desk.place_of("k0000") == tmp_path / "out/9.png"
    assert images(desk, 2) == made
    desk.conn.close()


@pytest.mark.fault("XC5")
def test_a_move_to_another_file_system_is_a_copy(tmp_path: Path) -> None:
    from tests.support import rig

    desk = Desk(tmp_path)
    made = chain(desk, 2)
    with rig.small_disk(tmp_path / "new", "size=1m"):
        desk.plan = {key: ("new", path, edition) for key, (_, path, edition) in desk.plan.items()}
        assert desk.enroll() == []
        assert images(desk, 2) == made
        desk.conn.close()
    assert list((tmp_path / "out").iterdir()) == []
