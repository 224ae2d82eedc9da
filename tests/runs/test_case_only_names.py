"""A path that changes only in case, on a file system where case makes no difference."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.system.failpoints import Point
from tests.support.places_desk import Desk


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory that folds case: a small file system of its own."""
    image, place = tmp_path / "disk", tmp_path / "disk.d"
    place.mkdir()
    image.write_bytes(bytes(16 << 20))
    steps = (
        ["mkfs.ext4", "-q", "-O", "casefold", "-E", "encoding=utf8", str(image)],
        ["mount", "-o", "loop", str(image), str(place)],
        ["chattr", "+F", str(place / "folding")],
    )
    for step in steps:
        if step[0] == "chattr":
            (place / "folding").mkdir()
        try:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
        except FileNotFoundError as exc:
            pytest.skip(str(exc))
        if done.returncode:
            subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)
            pytest.skip(f"no file system that folds case: {done.stderr.strip()}")
    try:
        yield place / "folding"
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.fault("XC5")
@pytest.mark.parametrize("point", [None, Point.MOVED])
def test_a_name_that_changes_only_in_case_is_renamed(point: Point | None, directory: Path) -> None:
    desk = Desk(directory)
    desk.plan = {"a": ("out", "mug.{ext}", 0)}
    desk.enroll()
    desk.buy()
    made = desk.deliver(False, None)["a"]
    desk.plan = {"a": ("out", "Mug.{ext}", 0)}
    desk.enroll(point)
    assert desk.enroll() == []
    assert [file.name for file in (directory / "out").glob("*.png")] == ["Mug.png"]
    assert (directory / "out/Mug.png").read_bytes() == made
    desk.conn.close()
