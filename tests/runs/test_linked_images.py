"""An image gets its output path as a second name; until it is recorded, the first one proves whose
it is."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.engine.linked_parts import remove_parts
from batchgen.errors import ExitCode
from batchgen.system.failpoints import Point
from tests.faults.station import Station, station
from tests.faults.tracer import Call, Plan
from tests.support import rig

_STATION: list[Station] = []


@pytest.fixture(scope="module", autouse=True)
def runs() -> Iterator[None]:
    with station() as started:
        _STATION[:] = [started]
        yield


def batchgen(*arguments: str | Path, cwd: Path, point: Point | None = None) -> str:
    """Run a command to its end, or to a point where it is killed; gives its output."""
    env = {} if point is None else {"BATCHGEN_FAILPOINT": point.value}
    ended = _STATION[0].run(*arguments, cwd=cwd, env=env)
    assert ended.end.code == (0 if point is None else -signal.SIGKILL), ended.output
    return ended.output


def image(directory: Path) -> Path:
    return directory / "out/batch/job-000.png"


def parts(directory: Path) -> list[Path]:
    return list((directory / "out").rglob("*.part"))


@pytest.mark.fault("D17")
def test_linked_image_is_recorded_without_a_download(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images") as endpoint:
        path = rig.manifest(tmp_path, endpoint.base_url, ["one"])
        batchgen("run", path, cwd=tmp_path, point=Point.PLACED)
        bill = endpoint.bill()
    (part,) = parts(tmp_path)
    assert os.path.samestat(part.stat(), image(tmp_path).stat())
    # No server listens at the URL any more.
    batchgen("resume", "batch", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 1
    assert parts(tmp_path) == []
    batchgen("verify", "batch", cwd=tmp_path)
    rig.judge(tmp_path, bill, finished=True)


@pytest.mark.fault("D17")
def test_names_left_of_saved_images_are_removed(served: rig.Endpoint, tmp_path: Path) -> None:
    served.wait_until_idle()  # a killed run of another test may still be charged
    bought = len(served.bill())
    path = rig.manifest(tmp_path, served.base_url, ["one", "two"])
    batchgen("run", path, cwd=tmp_path, point=Point.SAVED)
    assert parts(tmp_path)
    other = tmp_path / "out/batch/.0123456789abcdef.0.part"
    other.write_bytes(b"of another ledger")
    shown = batchgen("verify", "batch", "--json", cwd=tmp_path)
    assert not [row for row in map(json.loads, shown.splitlines()) if "part" in row["path"]]
    batchgen("run", path, cwd=tmp_path)
    assert parts(tmp_path) == [other]
    other.unlink()
    served.wait_until_idle()
    rig.judge(tmp_path, served.bill()[bought:], finished=True)


@pytest.mark.fault("D17")
def test_names_left_are_removed_if_nothing_is_to_do(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    batchgen("run", path, cwd=tmp_path, point=Point.SAVED)
    assert parts(tmp_path)
    batchgen("run", path, cwd=tmp_path)
    assert parts(tmp_path) == []


@pytest.mark.fault("D17", "XC2")
@pytest.mark.parametrize("new", ['path: "x/{{ key }}.{{ ext }}"', 'path: "b-{{ key }}.{{ ext }}"'])
def test_linked_image_is_moved_if_its_path_changed(
    new: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    batchgen("run", path, cwd=tmp_path, point=Point.PLACED)
    placed = image(tmp_path).read_bytes()
    inode = image(tmp_path).stat().st_ino
    path = rig.manifest(tmp_path, served.base_url, ["one"], extra=f"output: {{{new}}}\n")
    batchgen("run", path, cwd=tmp_path)
    (found,) = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert found != image(tmp_path)
    assert found.read_bytes() == placed
    assert found.stat().st_ino == inode, "it was downloaded again"


@pytest.mark.fault("D17")
def test_linked_image_in_a_renamed_directory_is_found(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    batchgen("run", path, cwd=tmp_path, point=Point.PLACED)
    inode = image(tmp_path).stat().st_ino
    (tmp_path / "out").rename(tmp_path / "moved")
    moved = "output: {dir: moved/batch}\n"
    path = rig.manifest(tmp_path, served.base_url, ["one"], extra=moved)
    batchgen("run", path, cwd=tmp_path)
    assert (tmp_path / "moved/batch/job-000.png").stat().st_ino == inode
    assert not list((tmp_path / "moved").rglob("*.part"))


@pytest.mark.fault("D17", "XA3")
def test_file_of_a_person_at_a_linked_name_is_left_alone(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    """The image was moved away after the kill, and its other name must not be written to."""
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    batchgen("run", path, cwd=tmp_path, point=Point.PLACED)
    image(tmp_path).rename(tmp_path / "taken")
    placed = (tmp_path / "taken").read_bytes()
    batchgen("run", path, cwd=tmp_path)
    assert image(tmp_path).read_bytes() == placed
    assert (tmp_path / "taken").read_bytes() == placed
    assert not os.path.samestat((tmp_path / "taken").stat(), image(tmp_path).stat())
    assert parts(tmp_path) == []


@pytest.mark.fault("D17")
def test_name_that_was_not_removed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(part: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(part))

    one, two = tmp_path / ".a.0.part", tmp_path / ".b.0.part"
    one.touch()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert remove_parts([one, two]) == [one, two]
    assert remove_parts([one, two]) == []
    assert not one.exists()


class RefusedRemovals(Plan):
    """The first removals of temporary names of images fail."""

    def __init__(self, left_over: int) -> None:
        self.left_over = left_over

    def entering(self, call: Call) -> int | None:
        path = call.paths[0] if call.paths else ""
        if not call.name.startswith("unlink") or not path.endswith(".part") or "/out/" not in path:
            return None
        self.left_over -= 1
        return errno.EIO if self.left_over >= 0 else None


@pytest.mark.fault("D06", "D17")
@pytest.mark.parametrize(("refused", "left"), [(2, 0), (100, 2)])
def test_names_not_removed_at_the_end_are_tried_again_and_shown(
    refused: int, left: int, served: rig.Endpoint, tmp_path: Path
) -> None:
    """No later run looks for them: only a run that was killed leaves names to look for."""
    path = rig.manifest(tmp_path, served.base_url, ["one", "two"])
    ended = _STATION[0].run("run", path, cwd=tmp_path, plan=RefusedRemovals(refused))
    assert ended.end.code == ExitCode.DONE, ended.output
    assert len(parts(tmp_path)) == left
    shown = f"cannot remove {left} temporary files of saved images, such as " in ended.output
    assert shown == bool(left), ended.output
