"""Real parts for tests: an endpoint with its own bill, batchgen processes, and the judge."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from batchgen.job import JobKind, PlannedJob
from batchgen.money import Micros
from tests.support import canary, fork_server

_HELD = "SELECT attempts.id FROM attempts JOIN jobs ON jobs.id = job_id WHERE state <> 'done'"
"""Attempts whose responses, or what became of them, are kept for a person."""
PRICE = Micros(37_700)
TIMEOUT_S = 100
_LOUD = {"PYTHONPATH": fork_server.LOUD}


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint."""

    base_url: str
    state: Path
    process: subprocess.Popen[bytes] | fork_server.Process

    def judge(self, route: str, body: Mapping[str, object] | None = None) -> Any:
        """Request a control route; with a body, by POST."""
        url = self.base_url.removesuffix("/v1") + f"/judge/{route}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            url, data=data, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.load(response)

    def bill(self) -> list[dict[str, Any]]:
        """Its own bill, from its file."""
        path = self.state / "bill.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def wait_until_idle(self) -> None:
        """Wait for the requests whose clients are gone: they are worked off and billed."""
        while self.judge("stats")["in_flight"]:
            pass


@contextmanager
def small_disk(directory: Path, options: str) -> Iterator[Path]:
    """A file system of its own in the directory, by options such as ``size=72m``.

    Skips the test where none may be made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path, *, leave: int = 0) -> Path:
    """Fill the disk up to this many free bytes; return the file to be removed."""
    ballast = directory / "ballast"
    with ballast.open("wb") as file:
        while True:
            found = os.statvfs(directory)
            size = found.f_bavail * found.f_frsize - leave
            if size <= 0:
                return ballast
            with suppress(OSError):  # a run wrote something meanwhile
                os.posix_fallocate(file.fileno(), 0, size)
                return ballast


def set_clock(days: float, once: Path | None = None) -> str:
    """Lines of Python that set the wall clock, and no other, of the process they begin.

    With ``once``, as soon as there is such a file. (libfaketime does it for any program, but breaks
    ``epoll`` in Python's event loop.)
    """
    return f"""
import datetime, os, time
def _ahead():
    return {days * 86400} if {once is None} or os.path.exists({str(once)!r}) else 0.0
class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=_ahead())
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _ahead()
time.time_ns = lambda: _time_ns() + int(_ahead() * 1e9)
datetime.datetime = _Datetime
"""


def run_changed(change: str, path: Path, *, code: int) -> str:
    """Run a manifest by a batchgen that lines of Python have changed first; gives its output."""
    script = (
        f"{change}\nimport sys\nfrom batchgen.cli.main import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "run", str(path)],
        cwd=path.parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def endpoint(state: Path, *switches: str) -> Iterator[Endpoint]:
    """Start an endpoint on a free port; stopped at the end."""
    with _started(
        "batchgen.simulator", "--state", str(state), *switches, "--stdin-lifeline"
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        ready = json.loads(process.stdout.readline())
        try:
            yield Endpoint(ready["base_url"], state, process)
        finally:
            process.stdin.close()
            process.wait(TIMEOUT_S)


def _started(program: str, *arguments: str) -> subprocess.Popen[bytes] | fork_server.Process:
    if fork_server.is_wanted():
        return fork_server.Process(program, arguments)
    return subprocess.Popen(
        [sys.executable, "-m", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment whose only key is the canary, without proxies or a ledger of one's own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith(("_api_key", "_access_token", "_user_id", "_proxy"))
        and not name.startswith("BATCHGEN_")
    }
    return {**kept, canary.VARIABLE: canary.CANARY, **(extra or {})}


def batchgen(
    *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, code: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; ``code`` is the exit code it must have."""
    command = [sys.executable, "-m", "batchgen", *map(str, arguments)]
    done = _completed(command, cwd, environment({**_LOUD, **(env or {})}))
    shown = "\n".join([*command, done.stdout, done.stderr])
    assert not canary.is_in(shown.encode(errors="replace")), "the key is shown"
    if code is not None:
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def _completed(
    command: list[str], cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    if fork_server.can_fork(env):
        return fork_server.run(command[3:], cwd=cwd, env=env, timeout_s=TIMEOUT_S)
    return subprocess.run(
        command,
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


Started = subprocess.Popen[str] | fork_server.Command


def python(script: str, *, cwd: Path) -> str:
    """Run a script in a process of its own, which has imported nothing; gives its output."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    inherits_stderr: bool = False,
    has_command_line: bool = False,
) -> Started:
    """Start a command in a session of its own, with pipes as its stdout and stderr.

    With ``has_command_line`` the system shows its arguments, as it does for a user's.
    """
    complete = environment({**_LOUD, **(env or {})})
    if fork_server.can_fork(complete) and not has_command_line:
        return fork_server.Command(
            [str(one) for one in arguments],
            cwd=cwd,
            env=complete,
            inherits_stderr=inherits_stderr,
        )
    return subprocess.Popen(
        [sys.executable, "-m", "batchgen", *map(str, arguments)],
        cwd=cwd,
        env=complete,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if inherits_stderr else subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def events(process: Started) -> Iterator[dict[str, Any]]:
    """The JSON lines of a run, as they come."""
    assert process.stdout is not None
    for line in process.stdout:
        assert not canary.is_in(line.encode())
        yield json.loads(line)


def manifest(
    directory: Path,
    base_url: str,
    prompts: Sequence[str],
    *,
    name: str = "batch",
    limits: str = "{concurrency: 8}",
    options: str = "{size: 1024x640}",
    extra: str = "",
    canaries: int | None = 100,
) -> Path:
    """Write a manifest for an endpoint that runs on its own.

    ``canaries`` lets as many requests leave as a test wants in flight, though no image was saved
    yet; None leaves the limit at its default.
    """
    if canaries is not None and limits.startswith("{"):
        limits = f"{{canary: {canaries}, {limits[1:]}"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.yaml"
    jobs = "\n".join(
        f"  - {{key: {json.dumps(f'job-{number:03d}')}, prompt: {json.dumps(prompt)}}}"
        for number, prompt in enumerate(prompts)
    )
    path.write_text(
        f"name: {name}\n"
        f"provider: {{name: local, base_url: {base_url!r}, api_key_env: {canary.VARIABLE}}}\n"
        f"options: {options}\nlimits: {limits}\n{extra}jobs:\n{jobs}\n",
        encoding="utf-8",
    )
    return path


def image(path: Path, color: str = "red", size: tuple[int, int] = (8, 8)) -> bytes:
    """Write an image in the format of its file's name, and give its bytes."""
    Image.new("RGB", size, color).save(path)
    return path.read_bytes()


def mask(path: Path, size: tuple[int, int] = (8, 8)) -> bytes:
    """Write a mask, all of it transparent, and give its bytes."""
    Image.new("RGBA", size, (0, 0, 0, 0)).save(path)
    return path.read_bytes()


def status(directory: Path, name: str = "batch") -> dict[str, Any]:
    """``status --json`` of a batch."""
    done = batchgen("status", name, "--json", "--db", directory / "batchgen.db", cwd=directory)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def query(db: Path, sql: str, *values: object) -> list[sqlite3.Row]:
    """Read the ledger as another program would."""
    with closing(sqlite3.connect(db)) as conn:
        conn.row_factory = sqlite3.Row
        return conn.execute(sql, values).fetchall()


_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl"}


def content(directory: Path) -> dict[str, bytes]:
    """Return the bytes of each file below a directory, by its relative path."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def spooled(directory: Path) -> list[Path]:
    """The files of responses in the spool of a ledger."""
    files = (directory / "batchgen.db.spool").iterdir()
    return sorted(file for file in files if file.name != ".gitignore")


def wait_for(directory: Path, sql: str, run: Started | None = None) -> None:
    """Wait until the ledger of a run, which may not have begun, gives a row.

    Fails if the process ends first.
    """
    db = directory / "batchgen.db"
    while not (db.exists() and query(db, sql)):
        assert run is None or run.poll() is None, "the run ended before that"
        time.sleep(0.05)


def boxes(content: bytes, at: int = 0, end: int | None = None) -> dict[bytes, bytes]:
    """All boxes of an MP4 by their kind, which fill it without a gap; without their headers."""
    found: dict[bytes, bytes] = {}
    end = len(content) if end is None else end
    while at < end:
        size, kind = struct.unpack_from(">I4s", content, at)
        assert 8 <= size <= end - at, f"{kind!r} is longer than what holds it"
        assert kind not in found
        found[kind] = content[at + 8 : at + size]
        if kind in _CONTAINERS:
            found |= boxes(content, at + 8, at + size)
        at += size
    assert at == end
    return found


def charges(bill: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """How often each attempt is on the bill, without what was refunded in full."""
    left = Counter[str]()
    for row in bill:
        left[row["request_id"]] += row["micros"]
    return Counter(
        row["idempotency_key"]
        for row in bill
        if row["kind"] != "refund" and (left[row["request_id"]] or not row["micros"])
    )


def judge(directory: Path, bill: Sequence[Mapping[str, Any]], *, finished: bool) -> None:
    """Compare a ledger and its files with the endpoint's bill."""
    db = directory / "batchgen.db"
    judge_money(db, bill)
    _judge_files(directory, db)
    if finished:
        assert query(db, "SELECT total(reserved) FROM runs")[0][0] == 0
        assert query(db, "SELECT id FROM attempts WHERE outcome = 'sending'") == []
        states = {row[0] for row in query(db, "SELECT DISTINCT state FROM jobs WHERE retired = 0")}
        assert states <= {"done", "failed", "blocked", "uncertain"}
        held = {row["id"] for row in query(db, _HELD)}
        left = {path.name.partition(".")[0] for path in spooled(directory)}
        assert left <= held, "the spool keeps files that are not needed"
        assert [path for path in directory.rglob("*.part") if "spool" not in str(path)] == []


def judge_money(db: Path, bill: Sequence[Mapping[str, Any]], *, was_rebought: bool = False) -> None:
    """Compare the attempts and sums of a ledger with the endpoint's bill.

    With ``was_rebought``, responses came late for jobs that had been rebought.
    """
    assert [row[0] for row in query(db, "PRAGMA integrity_check")] == ["ok"]
    assert query(db, "PRAGMA foreign_key_check") == []
    attempts = {row["id"]: row for row in query(db, "SELECT * FROM attempts")}

    assert {row["idempotency_key"] for row in bill} <= set(attempts), (
        "a charge without an intent on record"
    )
    charged_once = charges(bill)
    assert all(count == 1 for count in charged_once.values()), "one attempt was billed twice"

    billed = sum(row["micros"] for row in bill)
    charged = sum(row["cost"] for row in attempts.values())
    maybe = sum(
        row["price"] if row["billed"] == "maybe" else row["possible"] for row in attempts.values()
    )
    assert charged <= billed <= charged + maybe, (charged, billed, maybe)
    for attempt in attempts.values():
        if attempt["billed"] == "yes":
            assert attempt["id"] in charged_once, "charged, but not on the bill"
        if attempt["billed"] == "no":
            assert attempt["id"] not in charged_once, "on the bill, but said to be free"

    totals = query(
        db, "SELECT total(charged) AS c, total(maybe) AS m, total(reserved) AS r FROM runs"
    )[0]
    assert totals["c"] == charged
    assert totals["m"] + totals["r"] == maybe
    if not was_rebought:
        _judge_repeats(attempts)


def _judge_repeats(attempts: Mapping[str, sqlite3.Row]) -> None:
    """A job is requested again only after an attempt that was free, uncertain or spoiled."""
    by_job: dict[int, list[sqlite3.Row]] = {}
    for attempt in attempts.values():
        by_job.setdefault(attempt["job_id"], []).append(attempt)
    for job, made in by_job.items():
        fingerprints = Counter(row["fingerprint"] for row in made if row["outcome"] == "ok")
        assert all(count == 1 for count in fingerprints.values()), f"job {job} was bought twice"


def _judge_files(directory: Path, db: Path) -> None:
    saved = query(
        db,
        "SELECT images.root AS root, images.path AS path, sha256, bytes, format FROM images"
        " JOIN jobs ON jobs.id = job_id WHERE images.state = 'saved' AND jobs.state = 'done'",
    )
    for row in saved:
        path = directory / row["root"] / row["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        assert path.stat().st_size == row["bytes"]
        if row["format"] == "mp4":
            assert {b"ftyp", b"moov", b"mdat"} <= boxes(path.read_bytes()).keys()
        else:
            with Image.open(path) as image:
                image.load()
                assert (image.format or "").lower() == row["format"]
    done = query(db, "SELECT id FROM jobs WHERE state = 'done'")
    with_image = query(
        db,
        "SELECT DISTINCT jobs.id FROM jobs JOIN images ON images.job_id = jobs.id"
        " WHERE jobs.state = 'done' AND images.state = 'saved'",
    )
    assert len(done) == len(with_image), "done without an image"


def planned_job(**values: Any) -> PlannedJob:
    """A job of a plan by what it differs in, of its own or of its kind."""
    job = PlannedJob(
        kind=JobKind(
            provider="local", model="gpt-image-2", options={}, root="out", keep_previous=0
        ),
        key="a",
        fingerprint="p",
        prompt="p",
        path="a.{ext}",
        source="b.csv:2",
    )
    return changed_job(job, **values)


def changed_job(job: PlannedJob, **values: Any) -> PlannedJob:
    """The same job with other values, of its own or of its kind."""
    own = {name: values.pop(name) for name in PlannedJob._fields if name in values}
    if values:
        own["kind"] = replace(job.kind, **values)
    return job._replace(**own)


def tallies(conn: sqlite3.Connection) -> dict[str, list[tuple[int, ...]]]:
    """The counts that a ledger keeps."""
    return {
        "batches": [tuple(row) for row in conn.execute("SELECT * FROM tallies ORDER BY 1")],
        "runs": [tuple(row) for row in conn.execute("SELECT id, billed_attempts FROM runs")],
    }


def counted(conn: sqlite3.Connection) -> dict[str, list[tuple[int, ...]]]:
    """The same, counted one by one."""
    jobs = "FROM jobs WHERE batch_id = batches.id"
    batches = conn.execute(
        f"SELECT id, (SELECT count(*) {jobs}), (SELECT count(*) {jobs} AND retired = 1),"
        f" (SELECT total(estimated) {jobs} AND retired = 0),"
        f" (SELECT count(*) {jobs} AND retired = 0 AND state = 'done'),"
        " (SELECT count(*) FROM images JOIN jobs ON jobs.id = job_id"
        " WHERE batch_id = batches.id AND images.state = 'saved') FROM batches ORDER BY 1"
    )
    runs = conn.execute(
        "SELECT id, (SELECT count(*) FROM attempts WHERE run_id = runs.id AND billed = 'yes')"
        " FROM runs"
    )
    return {"batches": [tuple(row) for row in batches], "runs": [tuple(row) for row in runs]}
