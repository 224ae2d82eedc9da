"""Final names: nothing that is not ours is replaced, and what we replace is kept."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.system.failpoints import Point
from tests.faults.station import Station, station
from tests.support import rig

KEEP_NONE = "output: {keep_previous: 0}\n"


_STATION: list[Station] = []
"""Starts batchgen in a fork, which takes a tenth of the time."""


@pytest.fixture(scope="module", autouse=True)
def runs() -> Iterator[None]:
    with station() as started:
        _STATION[:] = [started]
        yield


def batchgen(*arguments: str | Path, cwd: Path, code: int = 0, point: Point | None = None) -> str:
    """Run a command to its end, or to a point where it is killed; gives its output."""
    env = {} if point is None else {"BATCHGEN_FAILPOINT": point.value}
    ended = _STATION[0].run(*arguments, cwd=cwd, env=env)
    wanted = code if point is None else -signal.SIGKILL
    assert ended.end.code == wanted, ended.output
    return ended.output


def run(served: rig.Endpoint, directory: Path, *prompts: str, code: int = 0, **values: Any) -> str:
    options = values.pop("flags", ())
    path = rig.manifest(directory, served.base_url, prompts, **values)
    return batchgen("run", path, *options, cwd=directory, code=code)


def image(directory: Path, number: int = 0) -> Path:
    return directory / f"out/batch/job-{number:03d}.png"


def kept(directory: Path) -> dict[str, bytes]:
    previous = directory / "out/batch/.previous"
    return (
        {file.name: file.read_bytes() for file in previous.iterdir()} if previous.exists() else {}
    )


def reason(directory: Path) -> str:
    (row,) = rig.query(
        directory / "batchgen.db", "SELECT reason FROM jobs WHERE reason IS NOT NULL"
    )
    return str(row["reason"])


@pytest.mark.fault("XF2")
def test_a_replaced_image_is_kept_and_the_way_back_named(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    run(served, tmp_path, "one", "two", "three")
    old = [image(tmp_path, number).read_bytes() for number in range(3)]
    out = run(served, tmp_path, "1", "2", "3")
    (row,) = rig.query(tmp_path / "batchgen.db", "SELECT max(id) AS id FROM runs")
    way = f"batchgen rollback batch --run {row['id']}"
    assert f"3 images replaced; previous versions are kept: {way}" in out
    assert sorted(kept(tmp_path).values()) == sorted(old)
    out = run(served, tmp_path, "1", "2", "3")
    assert "replaced" not in out
    batchgen(*way.split()[1:], cwd=tmp_path)
    assert [image(tmp_path, number).read_bytes() for number in range(3)] == old


@pytest.mark.fault("XF2")
def test_keep_previous_0_keeps_nothing(served: rig.Endpoint, tmp_path: Path) -> None:
    run(served, tmp_path, "one", extra=KEEP_NONE)
    out = run(served, tmp_path, "two", extra=KEEP_NONE)
    assert kept(tmp_path) == {}
    assert "previous versions" not in out


@pytest.mark.fault("XA8")
def test_an_edited_file_is_kept_before_it_is_replaced(served: rig.Endpoint, tmp_path: Path) -> None:
    run(served, tmp_path, "one", extra=KEEP_NONE)
    image(tmp_path).write_bytes(b"retouched for an hour")
    run(served, tmp_path, "two", extra=KEEP_NONE)
    assert kept(tmp_path) == {"job-000.png~edited1": b"retouched for an hour"}
    image(tmp_path).write_bytes(b"retouched again")
    run(served, tmp_path, "two", extra=KEEP_NONE, flags=("--refresh", "always"))
    assert set(kept(tmp_path).values()) == {b"retouched for an hour", b"retouched again"}
    batchgen("verify", "batch", cwd=tmp_path)


@pytest.mark.fault("XA8")
def test_an_edited_file_of_another_format_is_left_alone(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    run(served, tmp_path, "one")
    size = image(tmp_path).stat().st_size
    image(tmp_path).write_bytes(b"m" * size)
    run(served, tmp_path, "one", options="{size: 1024x640, output_format: webp}")
    assert image(tmp_path).read_bytes() == b"m" * size
    assert image(tmp_path).with_suffix(".webp").exists()


@pytest.mark.fault("XA8")
def test_repair_takes_missing_files_only(served: rig.Endpoint, tmp_path: Path) -> None:
    run(served, tmp_path, "one", "two", extra=KEEP_NONE)
    image(tmp_path, 0).write_bytes(b"retouched")
    image(tmp_path, 1).unlink()
    out = batchgen("verify", "batch", "--repair", cwd=tmp_path, code=1)
    assert "1 are due again" in out
    assert "1 changed can be downloaded again at no charge: --repair --changed" in out
    batchgen("resume", "batch", cwd=tmp_path)
    assert image(tmp_path, 0).read_bytes() == b"retouched"
    assert image(tmp_path, 1).exists()

    batchgen("verify", "batch", "--repair", "--changed", cwd=tmp_path, code=1)
    batchgen("resume", "batch", cwd=tmp_path)
    assert kept(tmp_path) == {"job-000.png~edited1": b"retouched"}
    batchgen("verify", "batch", cwd=tmp_path)


@pytest.mark.fault("XA8")
def test_overwrite_keeps_the_file_that_it_replaces(served: rig.Endpoint, tmp_path: Path) -> None:
    image(tmp_path).parent.mkdir(parents=True)
    image(tmp_path).write_bytes(b"theirs")
    run(served, tmp_path, "one", code=1)
    assert image(tmp_path).read_bytes() == b"theirs"
    run(served, tmp_path, "one", extra=KEEP_NONE, flags=("--overwrite",))
    assert kept(tmp_path) == {"job-000.png~edited1": b"theirs"}


@pytest.mark.fault("XA8")
def test_a_retired_job_gives_up_a_path(served: rig.Endpoint, tmp_path: Path) -> None:
    same = 'output: {path: "x.{{ ext }}"}\n'
    run(served, tmp_path, "one", extra=same)
    path = rig.manifest(tmp_path, served.base_url, ["two"], extra=same)
    path.write_text(path.read_text().replace("job-000", "renamed"), encoding="utf-8")
    refused = batchgen("run", path, cwd=tmp_path, code=1)
    assert "run with --overwrite" in refused
    batchgen("run", path, "--overwrite", cwd=tmp_path)
    new = (tmp_path / "out/batch/x.png").read_bytes()
    assert "1 image, all as they were saved" in batchgen("verify", "batch", cwd=tmp_path)
    assert "nothing to remove" in batchgen("prune", "batch", "--yes", cwd=tmp_path)
    assert (tmp_path / "out/batch/x.png").read_bytes() == new


@pytest.mark.fault("XA3", "W11")
def test_a_name_taken_during_the_request_is_not_replaced(tmp_path: Path) -> None:
    """The bytes that were paid for wait in the spool, and need no URL any more."""
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "1") as slow:
        path = rig.manifest(tmp_path, slow.base_url, ["one"])
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            for event in rig.events(process):
                if event.get("event") == "attempt_started":
                    image(tmp_path).parent.mkdir(parents=True)
                    image(tmp_path).write_bytes(b"theirs")
            process.wait(rig.TIMEOUT_S)
        assert process.returncode == 1
        assert image(tmp_path).read_bytes() == b"theirs"
        assert rig.status(tmp_path)["jobs"]["paid"] == 1
        assert reason(tmp_path).startswith("path_taken: ")
        (spooled,) = (tmp_path / "batchgen.db.spool").glob("*.image.0")
        (bought,) = slow.bill()
    image(tmp_path).rename(tmp_path / "mine")
    # No server listens at the URL any more.
    batchgen("resume", "batch", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 1
    assert (tmp_path / "mine").read_bytes() == b"theirs"
    assert not spooled.exists()
    rig.judge(tmp_path, [bought], finished=True)


@pytest.mark.fault("XA3")
def test_kill_before_a_name_is_claimed_destroys_no_file(tmp_path: Path) -> None:
    """The image is verified, and a file of somebody else took its path meanwhile."""
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "1") as slow:
        path = rig.manifest(tmp_path, slow.base_url, ["one"])
        env = {"BATCHGEN_FAILPOINT": Point.PLACING.value}
        with rig.start("run", path, "--json", cwd=tmp_path, env=env) as process:
            for event in rig.events(process):
                if event.get("event") == "attempt_started":
                    image(tmp_path).parent.mkdir(parents=True)
                    image(tmp_path).write_bytes(b"theirs")
            process.wait(rig.TIMEOUT_S)
        assert process.returncode == -signal.SIGKILL
        assert image(tmp_path).read_bytes() == b"theirs"
        batchgen("resume", "batch", cwd=tmp_path, code=1)
        assert "is not an image of this job" in reason(tmp_path)
        assert image(tmp_path).read_bytes() == b"theirs"
        image(tmp_path).rename(tmp_path / "mine")
        batchgen("resume", "batch", cwd=tmp_path)
        assert rig.status(tmp_path)["jobs"]["done"] == 1
        assert kept(tmp_path) == {}
        rig.judge(tmp_path, slow.bill(), finished=True)


OBSTACLES = {
    "a file in place of a directory": ("file", "is a file where a directory is needed"),
    "a symbolic link": ("link", "is a symbolic link inside the output directory"),
    "a sidecar of somebody": ("sidecar", "is not the sidecar of this job"),
    "a directory at the final name": ("directory", "is not a file"),
    "a link at the final name": ("final link", "is a symbolic link"),
}


@pytest.mark.fault("XA10", "W11")
@pytest.mark.parametrize(("kind", "text"), OBSTACLES.values(), ids=OBSTACLES.keys())
def test_an_obstacle_fails_its_job_for_free(
    kind: str, text: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    bought = len(served.bill())
    out = tmp_path / "out/batch"
    inner = out / "sub"
    out.mkdir(parents=True)
    if kind == "file":
        inner.write_bytes(b"theirs")
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        inner.symlink_to(tmp_path / "elsewhere")
    else:
        inner.mkdir()
    if kind == "sidecar":
        (inner / "a.json").write_text('{"my": "data"}', encoding="utf-8")
    elif kind == "directory":
        (inner / "a.png").mkdir()
    elif kind == "final link":
        (inner / "a.png").symlink_to(tmp_path / "nowhere")
    path = rig.manifest(tmp_path, served.base_url, ["good"], extra="output: {sidecar: true}\n")
    path.write_text(
        path.read_text(encoding="utf-8")
        + '  - {key: b, prompt: bad, output: {path: "sub/a.{{ ext }}"}}\n',
        encoding="utf-8",
    )
    batchgen("run", path, cwd=tmp_path, code=1)
    assert text in reason(tmp_path)
    assert [row["prompt"] for row in served.bill()[bought:]] == ["good"]
    for obstacle in (inner, inner / "a.json", inner / "a.png"):
        if obstacle.is_dir() and not obstacle.is_symlink():
            continue
        obstacle.unlink(missing_ok=True)
    if (inner / "a.png").is_dir():
        (inner / "a.png").rmdir()
    batchgen("run", path, cwd=tmp_path)
    assert [row["prompt"] for row in served.bill()[bought:]] == ["good", "bad"]
    rig.judge(tmp_path, served.bill()[bought:], finished=True)


@pytest.mark.fault("XA10", "W11")
def test_a_read_only_output_refuses_the_run(served: rig.Endpoint, tmp_path: Path) -> None:
    bought = len(served.bill())
    with rig.small_disk(tmp_path / "out", "size=64m,ro"):
        path = rig.manifest(tmp_path, served.base_url, ["one", "two"])
        done = batchgen("run", path, cwd=tmp_path, code=2)
        assert "the file system is read-only" in done
        assert "nothing was sent" in done
        assert not (tmp_path / "batchgen.db").exists()
    assert len(served.bill()) == bought


@pytest.mark.fault("XA8")
@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("point", [Point.KEPT, Point.PLACING, Point.PLACED])
def test_a_kill_while_an_image_is_replaced_loses_none(
    point: Point, edited: bool, served: rig.Endpoint, tmp_path: Path
) -> None:
    bought = len(served.bill())
    run(served, tmp_path, "one")
    if edited:
        image(tmp_path).write_bytes(b"retouched")
    old = image(tmp_path).read_bytes()
    path = rig.manifest(tmp_path, served.base_url, ["two"])
    batchgen("run", path, cwd=tmp_path, point=point)
    batchgen("run", path, cwd=tmp_path)
    assert old in kept(tmp_path).values()
    assert len(kept(tmp_path)) == 1
    assert len(served.bill()) - bought == 2
    rig.judge(tmp_path, served.bill()[bought:], finished=True)


@pytest.mark.fault("XC2")
def test_a_paid_image_is_recorded_where_it_is_placed(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    batchgen(
        "run",
        path,
        cwd=tmp_path,
        point=Point.RECEIVED,
    )
    new = "output: {dir: out/new}\n"
    run(served, tmp_path, "one", extra=new)
    assert (tmp_path / "out/new/job-000.png").exists()
    batchgen("verify", "batch", cwd=tmp_path)
    run(served, tmp_path, "two", extra=new)
    batchgen("verify", "batch", cwd=tmp_path)


@pytest.mark.fault("XC2", "XC5")
def test_an_image_placed_before_its_path_changed_is_moved(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    """Killed after the rename, then planned elsewhere: no download, no left-over file."""
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    batchgen("run", path, cwd=tmp_path, point=Point.PLACED)
    placed = image(tmp_path).read_bytes()
    run(served, tmp_path, "one", extra='output: {dir: new, path: "sub/a.{{ ext }}"}\n')
    assert (tmp_path / "new/sub/a.png").read_bytes() == placed
    assert list((tmp_path / "out/batch").iterdir()) == []
    (row,) = rig.query(tmp_path / "batchgen.db", "SELECT root, path, sha256 FROM images")
    assert tuple(row) == ("new", "sub/a.png", hashlib.sha256(placed).hexdigest())


@pytest.mark.fault("XC10")
def test_missing_images_are_reported_by_a_run(served: rig.Endpoint, tmp_path: Path) -> None:
    bought = len(served.bill())
    run(served, tmp_path, "one", "two", "three")
    for number in range(2):
        image(tmp_path, number).unlink()
    shown = run(served, tmp_path, "one", "two", "three", code=1, flags=("--quiet",))
    assert "2 saved images are missing: out/batch/job-000.png, out/batch/job-001.png" in shown
    assert "batchgen verify batch --repair" in shown
    assert len(served.bill()) - bought == 3
    batchgen("verify", "batch", "--repair", cwd=tmp_path, code=1)
    run(served, tmp_path, "one", "two", "three")
    rig.judge(tmp_path, served.bill()[bought:], finished=True)


@pytest.mark.fault("XC10")
def test_what_may_exist_is_not_reported_as_missing(served: rig.Endpoint, tmp_path: Path) -> None:
    """A link whose file is away may be an unmounted archive; a loop of links is an error."""
    run(served, tmp_path, "one", "two", "three")
    image(tmp_path).unlink()
    image(tmp_path).symlink_to("/archive/that/is/not/mounted.png")
    archived = run(served, tmp_path, "one", "two", "three", flags=("--quiet",))
    assert "missing" not in archived
    out = tmp_path / "out/batch"
    out.rename(tmp_path / "kept")
    out.symlink_to("batch")
    looped = run(served, tmp_path, "one", "two", "three", flags=("--quiet",))
    assert "missing" not in looped


@pytest.mark.skipif(not hasattr(os, "chown") or os.geteuid() != 0, reason="needs chown")
@pytest.mark.fault("XC13")
def test_inline_images_get_the_group_of_their_directory(tmp_path: Path) -> None:
    out = tmp_path / "out/batch"
    out.mkdir(parents=True)
    os.chown(out, -1, 1234)
    out.chmod(0o2775)
    with rig.endpoint(tmp_path / "state", "--fast-images", "--response", "mixed") as mixed:
        path = rig.manifest(tmp_path, mixed.base_url, ["one", "two", "three", "four"])
        batchgen("run", path, cwd=tmp_path)
        rows = rig.query(tmp_path / "batchgen.db", "SELECT url FROM images")
        assert {row["url"] is None for row in rows} == {True, False}
        rights = {(file.stat().st_gid, file.stat().st_mode) for file in out.glob("*.png")}
        assert len(rights) == 1
        assert {gid for gid, _ in rights} == {1234}
        rig.judge(tmp_path, mixed.bill(), finished=True)


def test_a_sidecar_follows_a_replaced_image(served: rig.Endpoint, tmp_path: Path) -> None:
    extra = "output: {sidecar: true}\n"
    run(served, tmp_path, "one", extra=extra)
    run(served, tmp_path, "two", extra=extra)
    record = json.loads(image(tmp_path).with_suffix(".json").read_text(encoding="utf-8"))
    assert record["sha256"] == hashlib.sha256(image(tmp_path).read_bytes()).hexdigest()
