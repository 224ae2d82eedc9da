"""Faults around a run: disk, limits of the process, signals, kills in a row, neighbours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from batchgen.session.batch_lock import batch_lock
from tests.support import rig
from tests.support.responses import RED, encoded
from tests.support.scripted_server import scripted

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits and signals of POSIX")


SWITCHES = ("--fast-images", "--latency", "0.05", "--response", "mixed")


def shell(script: str, path: Path, *, code: int) -> subprocess.CompletedProcess[str]:
    """Run a manifest by a line of shell, in which ``$@`` is the command."""
    command = [sys.executable, "-m", "batchgen", "run", str(path)]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command],
        cwd=path.parent,
        env=rig.environment(),
        capture_output=True,
        text=True,
        timeout=rig.TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def kill(path: Path, *, after: int) -> None:
    """Start a run and kill it after this many events, if it gets that far."""
    with rig.start("run", path, "--json", cwd=path.parent) as process:
        for number, _ in enumerate(rig.events(process), start=1):
            if number == after:
                process.kill()
                break


@pytest.mark.fault("D07")
def test_long_names_with_different_ends_do_not_collide(tmp_path: Path) -> None:
    names = [f"{'a' * 186}{number:03d}" for number in range(24)]
    jobs = "".join(
        f"  - {{key: k{n[-3:]}, prompt: p{n[-3:]}, output: {{path: {n}}}}}\n" for n in names
    )
    # Every image is another one here, so that a mix-up shows.
    with rig.endpoint(tmp_path / "state") as drawing:
        path = tmp_path / "batch.yaml"
        path.write_text(
            f"provider: {{name: local, base_url: {drawing.base_url!r}}}\n"
            f"options: {{size: 1024x640}}\nlimits: {{concurrency: 24}}\njobs:\n{jobs}",
            encoding="utf-8",
        )
        rig.batchgen("run", path, cwd=tmp_path)
        rig.judge(tmp_path, drawing.bill(), finished=True)
    assert len({file.read_bytes() for file in (tmp_path / "out/batch").iterdir()}) == 24


def test_a_directory_may_be_named_after_the_format(served: rig.Endpoint, tmp_path: Path) -> None:
    extra = 'output: {path: "{{ ext }}/{{ key }}.{{ ext }}"}\n'
    path = rig.manifest(tmp_path, served.base_url, ["a mug"], extra=extra)
    rig.batchgen("run", path, cwd=tmp_path)
    made = [file.relative_to(tmp_path / "out/batch") for file in (tmp_path / "out").rglob("*")]
    assert {str(file) for file in made} == {".", "png", "png/job-000.png"}


def test_ledger_that_cannot_grow_stops_without_a_loss(served: rig.Endpoint, tmp_path: Path) -> None:
    before = len(served.bill())
    path = rig.manifest(
        tmp_path,
        served.base_url,
        [f"image {number}" for number in range(120)],
        limits='{concurrency: 16, max_waste: "0"}',
    )
    rig.batchgen("run", path, "--limit", "1", cwd=tmp_path)
    kib = (tmp_path / "batchgen.db").stat().st_size // 1024 + 8

    done = shell(f'ulimit -f {kib * 1024 // 512}; exec "$@"', path, code=3)

    assert "the ledger can't be written" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    rig.judge(tmp_path, served.bill()[before:], finished=False)
    rig.batchgen("run", path, cwd=tmp_path)
    rig.judge(tmp_path, served.bill()[before:], finished=True)
    assert rig.status(tmp_path)["jobs"]["done"] == 120


@pytest.mark.fault("R01")
def test_a_run_that_may_not_open_enough_files_sends_nothing(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(
        tmp_path,
        served.base_url,
        [f"image {number}" for number in range(80)],
        limits='{concurrency: 64, max_waste: "0"}',
    )
    posts = served.judge("stats")["posts"]
    refused = shell('ulimit -n 64; exec "$@"', path, code=2)
    assert "ulimit -n" in refused.stderr
    assert served.judge("stats")["posts"] == posts

    shell('ulimit -Sn 64; exec "$@"', path, code=0)  # what it may raise by itself, it raises
    assert rig.status(tmp_path)["jobs"]["done"] == 80


@pytest.mark.fault("D04")
@pytest.mark.parametrize("place", ["out", "batchgen.db.spool"])
def test_unwritable_directory_is_found_before_a_request(
    place: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["a mug"])
    (tmp_path / place).write_text("a file", encoding="utf-8")
    posts = served.judge("stats")["posts"]
    refused = rig.batchgen("run", path, cwd=tmp_path, code=2)
    assert f"{tmp_path / place}" in refused.stderr
    assert "can't be written" in refused.stderr or "Not a directory" in refused.stderr
    assert served.judge("stats")["posts"] == posts


@pytest.mark.fault("P14")
def test_a_reader_and_a_terminal_that_are_gone_do_not_end_a_run(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one", "two", "forbidden-word"])
    shell('exec "$@" >&- 2>&-', path, code=1)
    assert rig.status(tmp_path)["jobs"]["done"] == 2
    other = rig.manifest(tmp_path / "json", served.base_url, ["one", "two"])
    shell('"$@" --json | head -n 1', other, code=0)
    assert rig.status(tmp_path / "json")["jobs"]["done"] == 2


def test_under_nohup_a_run_outlives_its_terminal(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "0.3") as slow:
        path = rig.manifest(tmp_path, slow.base_url, ["p"] * 8, limits="{concurrency: 2}")
        command = [sys.executable, "-m", "batchgen", "run", str(path), "--json"]
        with subprocess.Popen(
            ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command],
            cwd=tmp_path,
            env=rig.environment(),
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            next(rig.events(process))
            process.send_signal(signal.SIGHUP)
            process.communicate(timeout=rig.TIMEOUT_S)
    assert process.returncode == 0
    assert rig.status(tmp_path)["jobs"]["done"] == 8


def test_a_signal_does_not_wait_for_the_next_try_of_a_download(tmp_path: Path) -> None:
    with scripted() as script:
        path = rig.manifest(tmp_path, f"{script.base}/v1", ["a mug"])
        script.response({"url": script.url("late.png")})
        script.files["late.png"] = 503
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            for event in rig.events(process):
                if event.get("wait_s", 0) >= 4:
                    break
            process.terminate()
            process.communicate(timeout=rig.TIMEOUT_S)
        assert script.gets.count("/late.png") == 3, "no try after the signal"
    assert rig.status(tmp_path)["jobs"]["paid"] == 1


def test_error_in_one_manifest_does_not_stop_the_others(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    first = rig.manifest(tmp_path, served.base_url, ["one"], name="first")
    held = rig.manifest(tmp_path, served.base_url, ["two"], name="held")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("provider: local\njobs: [{prompt: '{{ nothing }}'}]\n", encoding="utf-8")
    last = rig.manifest(tmp_path, served.base_url, ["three"], name="last")
    with batch_lock(tmp_path / "batchgen.db", "held"):
        done = rig.batchgen("run", first, held, wrong, last, cwd=tmp_path, code=75)
    assert f"held is in use by pid {os.getpid()} of" in done.stderr
    assert "nothing" in done.stderr
    assert rig.status(tmp_path, "last")["jobs"]["done"] == 1


@pytest.mark.fault("N31")
def test_forbidden_download_url_holds_only_its_own_job(
    tmp_path: Path,
) -> None:
    good = json.dumps({"data": [{"b64_json": encoded(RED)}]}).encode()
    # Half of a surrogate pair, which JSON allows and UTF-8 does not, and a password, which is
    # refused before anything is asked.
    replies = iter([b'{"data": [{"url": "https://a:b@127.0.0.1/\\ud800"}]}', *[good] * 4])
    with scripted() as script:
        script.reply = lambda: (200, next(replies))
        path = rig.manifest(
            tmp_path,
            f"{script.base}/v1",
            ["p"] * 5,
            limits='{concurrency: 1, max_waste: "0", download_wait: 1}',
        )
        rig.batchgen("run", path, cwd=tmp_path, code=None)
        found = rig.status(tmp_path)["jobs"]
        assert found["done"] == 4
        assert found["sending"] == found["pending"] == 0
        again = rig.batchgen("run", path, cwd=tmp_path, code=1)
        assert "Traceback" not in again.stderr
        assert len(script.posts) == 5


def test_a_spool_that_cannot_be_read_is_left_for_a_run_that_can(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "0.5") as slow:
        path = rig.manifest(tmp_path, slow.base_url, ["one"])
        kill(path, after=1)
        slow.wait_until_idle()
        (attempt,) = rig.query(
            tmp_path / "batchgen.db", "SELECT id FROM attempts WHERE outcome = 'sending'"
        )
        # In place of a file of another user: root may read all of those.
        unreadable = tmp_path / "batchgen.db.spool" / f"{attempt['id']}.answer"
        unreadable.mkdir()

        done = rig.batchgen("run", path, cwd=tmp_path, code=3)

        assert "disk: the spool can't be read" in done.stdout
        assert rig.status(tmp_path)["jobs"]["sending"] == 1
        unreadable.rmdir()
        rig.batchgen("run", path, "--max-waste", "100%", cwd=tmp_path)
        rig.judge(tmp_path, slow.bill(), finished=True)


@pytest.mark.fault("D17")
@pytest.mark.parametrize("first", [9, 30, 47])
def test_kills_in_a_row_lose_nothing_and_buy_nothing_twice(
    first: int, served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    path = rig.manifest(
        tmp_path,
        served.base_url,
        [f"{first}, image {number}" for number in range(24)],
        limits='{concurrency: 8, max_waste: "0"}',
    )
    for after in (first, 1, 4):  # the later ones hit recovery and downloads that are left over
        kill(path, after=after)
        served.wait_until_idle()
        rig.judge(tmp_path, served.bill()[before:], finished=False)
    rig.batchgen("run", path, cwd=tmp_path, code=None)
    rig.judge(tmp_path, served.bill()[before:], finished=True)


def test_two_batches_share_a_ledger_at_the_same_time(served: rig.Endpoint, tmp_path: Path) -> None:
    before = len(served.bill())
    paths = [
        rig.manifest(tmp_path, served.base_url, [f"{name} {n}" for n in range(40)], name=name)
        for name in ("left", "right")
    ]
    runs = [
        threading.Thread(target=rig.batchgen, args=("run", p), kwargs={"cwd": tmp_path})
        for p in paths
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    for name in ("left", "right"):
        assert rig.status(tmp_path, name)["jobs"]["done"] == 40
    rig.judge(tmp_path, served.bill()[before:], finished=True)
