"""Disks that are full, used up, closed, read-only or gone, under whole runs."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from batchgen.system import disk_space
from batchgen.system.atomic_files import PART_SUFFIX
from tests.review.browser import review
from tests.support import rig
from tests.support.scripted_server import scripted

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="file systems of POSIX")

MIB = 1 << 20
PROMPTS = [f"a mug, number {number}" for number in range(12)]
LIMITS = '{concurrency: 4, max_waste: "0"}'


SWITCHES = ("--fast-images", "--latency", "0.4", "--response", "mixed")
"""Slow enough for something to happen while requests are in flight."""


def run_and_meanwhile(path: Path, happen: Callable[[], object], *, code: int) -> str:
    """Run a manifest; the thing happens once the first image is done."""
    with rig.start("run", path, "--json", cwd=path.parent) as process:
        for event in rig.events(process):
            if event.get("event") == "job_done":
                happen()
                break
        out, errors = process.communicate(timeout=rig.TIMEOUT_S)
    assert process.returncode == code, out + errors
    assert "Traceback" not in errors
    return out + errors


@pytest.mark.fault("D01", "D02")
def test_no_request_leaves_whose_response_might_find_no_room(tmp_path: Path) -> None:
    with (
        rig.endpoint(tmp_path / "endpoint", "--fast-images", "--latency", "2") as slow,
        rig.small_disk(tmp_path / "disk", "size=72m") as disk,
    ):
        path = rig.manifest(disk, slow.base_url, PROMPTS, limits=LIMITS)
        left = disk_space.KEPT_FREE_BYTES + disk_space.RESPONSE_BYTES // 2
        text = run_and_meanwhile(path, lambda: rig.fill(disk, leave=left), code=3)
        found = rig.status(disk)

        assert "MiB free, not enough for the responses" in text
        assert "MiB free" in found["stopped"]
        assert found["jobs"]["pending"] > 0
        assert found["jobs"]["done"] + found["jobs"]["pending"] == len(PROMPTS), "none uncertain"
        posts = slow.judge("stats")["posts"]
        refused = rig.batchgen("run", path, cwd=disk, code=2)
        assert "nothing was sent" in refused.stderr
        assert slow.judge("stats")["posts"] == posts
        (disk / "ballast").unlink()
        rig.batchgen("run", path, cwd=disk)
        rig.judge(disk, slow.bill(), finished=True)


def _full(disk: Path) -> None:
    rig.fill(disk)


def _files_used_up(disk: Path) -> None:
    (disk / "files").mkdir()
    names = map(str, itertools.count())
    with suppress(OSError):  # the run takes some of them meanwhile
        while True:
            (disk / "files" / next(names)).touch()
    assert os.statvfs(disk).f_favail == 0


def _read_only(disk: Path) -> None:
    # Refused while a file is open for writing, as one is while an image comes.
    while subprocess.run(
        ["mount", "-o", "remount,ro", str(disk)], check=False, capture_output=True
    ).returncode:
        pass


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(_full, "No space left", marks=pytest.mark.fault("D01")),
        pytest.param(_files_used_up, "No space left", marks=pytest.mark.fault("D03")),
        pytest.param(_read_only, "Read-only file system", marks=pytest.mark.fault("D05")),
    ],
)
def test_paid_images_wait_for_a_working_disk(
    spoil: Callable[[Path], None], reason: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    path = rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS)
    with rig.small_disk(tmp_path / "out", "size=64m,nr_inodes=200") as disk:
        text = run_and_meanwhile(path, lambda: spoil(disk), code=3)
        found = rig.status(tmp_path)
        assert "disk: " in text
        assert found["jobs"]["uncertain"] == found["jobs"]["sending"] == 0
        assert 1 <= found["jobs"]["paid"] <= 8
        assert (
            reason
            in rig.query(tmp_path / "batchgen.db", "SELECT reason FROM jobs WHERE state = 'paid'")[
                0
            ][0]
        )
        assert len(served.bill()) - before == found["jobs"]["paid"] + found["jobs"]["done"]

        posts = served.judge("stats")["posts"]
        rig.batchgen("run", path, cwd=tmp_path, code=2)
        assert served.judge("stats")["posts"] == posts

        subprocess.run(["mount", "-o", "remount,rw,size=128m,nr_inodes=900", str(disk)], check=True)
        rig.batchgen("run", path, cwd=tmp_path)
        assert served.judge("stats")["posts"] == posts + found["jobs"]["pending"]
        rig.judge(tmp_path, served.bill()[before:], finished=True)


@pytest.mark.fault("D01")
def test_disk_filled_to_the_last_byte_leaves_true_states(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    with rig.small_disk(tmp_path / "disk", "size=72m") as disk:
        path = rig.manifest(disk, served.base_url, PROMPTS, limits=LIMITS)
        run_and_meanwhile(path, lambda: rig.fill(disk), code=3)
        served.wait_until_idle()
        rig.judge(disk, served.bill()[before:], finished=False)
        (disk / "ballast").unlink()
        rig.batchgen("run", path, cwd=disk, code=None)
        rig.judge(disk, served.bill()[before:], finished=True)
        found = rig.status(disk)["jobs"]
        assert found["done"] + found["uncertain"] == len(PROMPTS)
        assert found["uncertain"] <= 4


@pytest.mark.fault("D01")
def test_run_whose_end_cannot_be_written_says_why(tmp_path: Path) -> None:
    """The ledger is full: neither the responses nor the end of the run are recorded."""
    with scripted() as server, rig.small_disk(tmp_path / "disk", "size=72m") as disk:

        def fill() -> tuple[int, bytes]:
            rig.fill(disk)
            return 200, json.dumps({"data": [{"url": server.url("a.png")}]}).encode()

        server.reply = fill
        path = rig.manifest(disk, f"{server.base}/v1", PROMPTS[:1], limits=LIMITS)
        done = rig.batchgen("run", path, cwd=disk, code=3)
        assert "stopped: ledger: the ledger can't be written" in done.stdout
        (disk / "ballast").unlink()
        assert rig.query(disk / "batchgen.db", "SELECT ended_at FROM runs")[0][0] is None
        assert rig.status(disk)["jobs"]["sending"] == 1


@pytest.mark.fault("D01")
def test_small_response_waits_for_a_full_disk(tmp_path: Path) -> None:
    """It is in memory only, as neither the ledger nor the spool has room for it."""
    with scripted() as server, rig.small_disk(tmp_path / "disk", "size=72m") as disk:

        def fill() -> tuple[int, bytes]:
            rig.fill(disk)
            return 200, json.dumps({"data": [{"url": server.url("a.png")}]}).encode()

        server.reply = fill
        server.files["a.png"] = rig.image(tmp_path / "a.png")
        path = rig.manifest(disk, f"{server.base}/v1", PROMPTS[:1], limits=LIMITS)
        with rig.start("run", path, "--json", cwd=disk) as process:
            for event in rig.events(process):
                if "a paid response waits" in str(event):
                    (disk / "ballast").unlink()
            process.communicate(timeout=rig.TIMEOUT_S)
        assert process.returncode == 3
        rig.batchgen("run", path, cwd=disk)
        assert rig.status(disk)["jobs"]["done"] == len(server.posts) == 1


@pytest.mark.fault("D01", "P12")
def test_response_that_a_bug_holds_waits_for_a_full_disk(tmp_path: Path) -> None:
    with scripted() as server, rig.small_disk(tmp_path / "disk", "size=72m") as disk:

        def fill() -> tuple[int, bytes]:
            rig.fill(disk)
            return 200, json.dumps({"data": [{"url": server.url("a.png")}]}).encode()

        server.reply = fill
        path = rig.manifest(disk, f"{server.base}/v1", PROMPTS[:1], limits=LIMITS)
        change = f"""
import os, threading
import batchgen.engine.attempt
def classify(*arguments, **named):
    threading.Timer(2, os.unlink, [{str(disk / "ballast")!r}]).start()
    raise LookupError("a bug of ours")
batchgen.engine.attempt.classify = classify
"""
        assert "a bug of ours" in rig.run_changed(change, path, code=4)
        assert rig.status(disk)["jobs"]["uncertain"] == 1
        (response,) = rig.query(disk / "batchgen.db", "SELECT response FROM attempts")
        assert list(disk.glob(f"batchgen.db.spool/**/{response[0]}")), "the paid response is kept"


@pytest.mark.fault("D18")
def test_removed_output_directory_is_created_again(
    tmp_path: Path,
) -> None:
    """What was being written when the directory went away is left there under its `.part` name."""
    with rig.endpoint(tmp_path / "endpoint", "--fast-images", "--latency", "1") as slow:
        path = rig.manifest(tmp_path, slow.base_url, PROMPTS, limits=LIMITS)
        run_and_meanwhile(path, lambda: (tmp_path / "out").rename(tmp_path / "taken"), code=0)
    assert rig.status(tmp_path)["jobs"]["done"] == len(PROMPTS)
    kept, taken = (
        {file.name for file in (tmp_path / name / "batch").iterdir() if file.suffix != PART_SUFFIX}
        for name in ("out", "taken")
    )
    assert kept
    assert kept | taken == {f"job-{number:03}.png" for number in range(len(PROMPTS))}
    lost = rig.batchgen("verify", "batch", "--json", cwd=tmp_path, code=1).stdout.splitlines()
    assert len(lost) == len(PROMPTS) - len(kept)


@pytest.mark.fault("D22")
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_images_follow_the_umask_and_other_files_are_private(
    umask: int, served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, PROMPTS[:1], limits=LIMITS)
    log = tmp_path / "run.log"
    command = [sys.executable, "-m", "batchgen", "run", str(path), "--log-file", str(log)]
    subprocess.run(command, cwd=tmp_path, env=rig.environment(), check=True, umask=umask)

    def mode(name: str) -> int:
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    assert mode("out/batch/job-000.png") == 0o666 & ~umask
    assert mode("batchgen.db") == mode("batchgen.db.lock") == mode("run.log") == 0o600
    assert mode("batchgen.db.spool") == 0o700


@pytest.mark.fault("D22")
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_our_own_directories_are_private_and_ignored(umask: int, tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    with scripted() as script:
        script.files["mug.png"] = rig.image(tmp_path / "mug.png", size=(64, 64))
        path.write_text(
            f"name: batch\nprovider: local\nimages: ['{script.url('mug.png')}']\n"
            "jobs: [{key: mug, prompt: a mug}]\n"
        )
        command = [sys.executable, "-m", "batchgen", "run", str(path)]
        subprocess.run(command, cwd=tmp_path, env=rig.environment(), check=True, umask=umask)
    before = os.umask(umask)
    try:
        with (
            review(tmp_path, "--since", "2020-01-01") as server,
            httpx.Client(base_url=server.origin) as client,
        ):
            server.begin_session(client)
            assert client.get("/thumb/1/320").status_code == 200
    finally:
        os.umask(before)
    ours = [tmp_path / f"batchgen.db.{name}" for name in ("spool", "references", "local", "thumbs")]
    for directory in ours:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700, directory
        assert (directory / ".gitignore").read_text() == "*\n"
        files = [file for file in directory.rglob("*") if file.is_file()]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert [path.name for path in tmp_path.rglob(".gitignore")] == [".gitignore"] * len(ours)
    if shutil.which("git"):
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
        listed = subprocess.run(
            ["git", "status", "--porcelain", "-uall"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert "batchgen.db.spool/" not in listed
        assert not any(f"{directory.name}/" in listed for directory in ours)


def test_endpoint_adds_nothing_to_a_directory_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(0o755)
    with rig.endpoint(tmp_path / "state"):
        pass
    assert not (tmp_path / "state" / ".gitignore").exists()
