"""What befalls a process: signals to its group, stops, clocks, other users, and its own bugs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import rig

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and users of POSIX")

PROMPTS = [f"a mug, number {number}" for number in range(12)]
LIMITS = '{concurrency: 4, max_waste: "0"}'


SWITCHES = ("--fast-images", "--latency", "0.4")
"""Slow enough for something to happen while requests are in flight."""


@pytest.mark.fault("P18")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_process_group_lets_requests_finish(
    number: signal.Signals, tmp_path: Path
) -> None:
    """As ``timeout`` and Ctrl-C send it: the embedded endpoint has to outlive it."""
    path = rig.manifest(tmp_path, "", [f"p{n}" for n in range(300)])
    text = re.sub("provider: .*", "provider: local", path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    with rig.start("run", path, "--json", cwd=tmp_path) as process:
        next(rig.events(process))
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=rig.TIMEOUT_S)
    assert process.returncode == 128 + number, errors
    found = rig.status(tmp_path)
    assert found["jobs"]["uncertain"] == found["jobs"]["sending"] == found["jobs"]["paid"] == 0
    assert found["jobs"]["pending"] > 0
    bill = rig.Endpoint("", tmp_path / "batchgen.db.local", process).bill()  # type: ignore[arg-type]  # only its file is read
    rig.judge(tmp_path, bill, finished=False)


@pytest.mark.fault("P10")
def test_response_received_while_suspended_is_used(served: rig.Endpoint, tmp_path: Path) -> None:
    before = len(served.bill())
    limits = '{concurrency: 4, max_waste: "0", deadline: 60}'
    path = rig.manifest(tmp_path, served.base_url, PROMPTS[:4], limits=limits)
    with rig.start("run", path, "--json", cwd=tmp_path) as process:
        next(rig.events(process))
        process.send_signal(signal.SIGSTOP)
        served.wait_until_idle()
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=rig.TIMEOUT_S)
    assert process.returncode == 0, errors
    rig.judge(tmp_path, served.bill()[before:], finished=True)


@pytest.mark.fault("P10")
def test_process_suspended_beyond_the_deadline_lists_uncertain(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "7") as slow:
        limits = '{concurrency: 4, max_waste: "0", deadline: 3}'
        path = rig.manifest(tmp_path, slow.base_url, PROMPTS[:4], limits=limits)
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            while slow.judge("stats")["in_flight"] < 4:
                time.sleep(0.02)
            process.send_signal(signal.SIGSTOP)
            time.sleep(3.5)  # the deadline passes by the clock on the wall
            process.send_signal(signal.SIGCONT)
            _, errors = process.communicate(timeout=rig.TIMEOUT_S)
        slow.wait_until_idle()
        assert process.returncode in (1, 3), errors
        rig.judge(tmp_path, slow.bill(), finished=False)
        found = rig.status(tmp_path)["jobs"]
        assert found["sending"] == 0
        assert found["uncertain"] == 4


@pytest.mark.fault("P11")
@pytest.mark.parametrize("days", [1, -1])
def test_clock_jump_of_a_day_does_not_affect_a_run(
    days: int, served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    limits = '{concurrency: 4, max_waste: "0", deadline: 30}'
    path = rig.manifest(tmp_path, served.base_url, PROMPTS, limits=limits)
    first = tmp_path / "out/batch/job-000.png"
    rig.run_changed(rig.set_clock(days, once=first), path, code=0)
    rig.judge(tmp_path, served.bill()[before:], finished=True)
    (row,) = rig.query(
        tmp_path / "batchgen.db",
        "SELECT julianday(ended_at) - julianday(started_at) AS days FROM runs",
    )
    assert round(row["days"]) == days, "the clock did not jump"


@pytest.mark.fault("P12")
def test_bug_in_one_worker_holds_its_job_only(served: rig.Endpoint, tmp_path: Path) -> None:
    before = len(served.bill())
    change = """
import batchgen.engine.attempt
whole, calls = batchgen.engine.attempt.classify, []
def classify(*arguments, **named):
    calls.append(1)
    if len(calls) == 3:
        raise LookupError("a bug of ours")
    return whole(*arguments, **named)
batchgen.engine.attempt.classify = classify
"""
    path = rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS)
    text = rig.run_changed(change, path, code=4)
    assert "a bug of ours" in text
    found = rig.status(tmp_path)["jobs"]
    assert (found["done"], found["uncertain"]) == (len(PROMPTS) - 1, 1)
    held = rig.query(tmp_path / "batchgen.db", "SELECT reason FROM jobs WHERE state = 'uncertain'")
    assert "internal_error" in held[0][0]
    rig.judge(tmp_path, served.bill()[before:], finished=False)


@pytest.mark.fault("P08")
def test_image_lost_to_low_memory_is_only_downloaded_again(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    change = """
import batchgen.engine.verification
whole, calls = batchgen.engine.verification.decode, []
def decode(path):
    calls.append(1)
    if len(calls) == 2:
        raise MemoryError
    return whole(path)
batchgen.engine.verification.decode = decode
"""
    extra = "output: {verify: decode}\n"
    path = rig.manifest(tmp_path, served.base_url, PROMPTS[:4], limits=LIMITS, extra=extra)
    assert "MemoryError" in rig.run_changed(change, path, code=4)
    found = rig.status(tmp_path)["jobs"]
    assert (found["done"], found["paid"]) == (3, 1)
    posts = served.judge("stats")["posts"]
    rig.batchgen("run", path, cwd=tmp_path)
    assert served.judge("stats")["posts"] == posts
    rig.judge(tmp_path, served.bill()[before:], finished=True)


def shell(script: str, path: Path, *, cwd: Path, env: Mapping[str, str], code: int) -> str:
    """Run a manifest by a line of shell, in which ``$0`` is Python."""
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, str(path)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=rig.TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.fault("P16")
@pytest.mark.parametrize("language", ["C", "POSIX", "xx_YY.ISO-8859-1"])
def test_no_home_no_language_and_no_asserts_are_needed(
    language: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    directory = tmp_path / "café"
    extra = "output: {path: 'größe {{ key }}.{{ ext }}'}\n"
    path = rig.manifest(directory, served.base_url, ["ein Krug für 5 €"], extra=extra)
    env = {"PATH": os.environ["PATH"], "LANG": language, "LC_ALL": language}
    env |= {name: text for name, text in rig.environment().items() if "CANARY" in name}
    shell('exec "$0" -O -m batchgen run "$1"', path, cwd=directory, env=env, code=0)
    assert [file.name for file in (directory / "out/batch").iterdir()] == ["größe job-000.png"]


@pytest.mark.fault("P16")
def test_removed_current_directory_is_reported_without_a_bug(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path / "batch", served.base_url, ["one"])
    posts = served.judge("stats")["posts"]
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" -m batchgen run "$1"'
    text = shell(script, path, cwd=tmp_path, env=rig.environment(), code=2)
    assert "the current directory was removed" in text
    assert served.judge("stats")["posts"] == posts


@pytest.mark.fault("P16")
def test_run_whose_directory_is_removed_ends_normally(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path / "batch", served.base_url, ["one"])
    (tmp_path / "gone").mkdir()
    command = [sys.executable, "-m", "batchgen", "run", str(path)]
    with subprocess.Popen(
        command, cwd=tmp_path / "gone", env=rig.environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        while not (tmp_path / "batch/batchgen.db").exists():
            time.sleep(0.01)
        (tmp_path / "gone").rmdir()
        out, _ = process.communicate(timeout=rig.TIMEOUT_S)
    assert process.returncode == 0
    assert "1 of 1 job done" in out


def _other_user() -> list[str]:
    """Return the start of a command that becomes another user."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        pytest.skip("needs root, and setpriv to become somebody else")
    unprivileged = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"]
    seen = subprocess.run(
        [*unprivileged, sys.executable, "-c", "import batchgen"], cwd="/", check=False
    )
    if seen.returncode != 0:
        pytest.skip("this environment of Python is closed to others")
    return unprivileged


@pytest.mark.fault("Q06")
def test_review_that_could_save_no_decision_is_refused(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    """Else a person looks at a hundred images, and their first decision fails."""
    other = _other_user()
    with tempfile.TemporaryDirectory() as made:  # pytest's own are closed to others
        directory = Path(made)
        directory.chmod(0o755)
        rig.batchgen("run", rig.manifest(directory, served.base_url, ["one"]), cwd=directory)
        (directory / "batchgen.db").chmod(0o444)
        text = shell(
            f'exec {shlex.join(other)} "$0" -m batchgen review "$1"',
            Path("batch"),
            cwd=directory,
            env=rig.environment({"HOME": "/nonexistent"}),
            code=2,
        )
    assert "no decision could be saved. `batchgen gallery batch` shows the images" in text


@pytest.mark.fault("D04", "P16")
@pytest.mark.parametrize("closed", ["out", "batchgen.db.spool", "."])
def test_another_user_who_may_not_write_sends_nothing(
    closed: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    unprivileged = _other_user()
    posts = served.judge("stats")["posts"]
    with tempfile.TemporaryDirectory() as made:  # pytest's own are closed to others
        directory = Path(made)
        path = rig.manifest(directory, served.base_url, ["one"])
        (directory / closed).mkdir(exist_ok=True)
        directory.chmod(0o777)
        (directory / closed).chmod(0o755)
        text = shell(
            f'exec {shlex.join(unprivileged)} "$0" -m batchgen run "$1"',
            path,
            cwd=directory,
            env=rig.environment({"HOME": "/nonexistent"}),
            code=2,
        )
    words = ("Permission denied", "unable to open", "no permission to create files")
    assert any(one in text for one in words)
    assert "Traceback" not in text
    assert served.judge("stats")["posts"] == posts
