"""Many jobs: planning, enrolling, the first request, resuming, status; memory and cost per job."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.clients import BATCH, Batchgen, Client, Task
from tests.bench.figures import Bench, Figure
from tests.bench.measure import Usage, measure
from tests.bench.nginx import Nginx

_BATCHGEN: Final = Batchgen(name="batchgen")
_SCRIPT: Final = Client(name="gather", script="gather.py")
_RESPONSE: Final = "url-tiny"
_LEFT: Final = 1_000
_TIMEOUT_S: Final = 7_200.0
_STATUS_TIMES: Final = 7


def million(bench: Bench) -> Iterator[Figure]:
    """A million rows: planned, enrolled, resumed where all but a thousand are done, looked at."""
    count = 100_000 if bench.quick else 1_000_000
    with _directory(bench, count) as directory:
        manifest, db = directory / f"{BATCH}.yaml", directory / "batchgen.db"
        planned = _batchgen("plan", manifest, "--db", db, cwd=directory)
        yield from _took(f"plan of {count:,} rows", planned)
        mark = bench.nginx.mark()
        enrolled = _batchgen("run", manifest, "--db", db, "--limit", str(_LEFT), cwd=directory)
        yield from _first(f"run of {count:,} new rows", bench.nginx, mark, enrolled)
        done = make_done(db, left=_LEFT)
        yield Figure(what="rows set to done in the ledger", value=done, unit="")
        yield from _looked_at(f"status, {count:,} jobs", directory, db)
        mark = bench.nginx.mark()
        limit = str(_LEFT // 4)
        resumed = _batchgen("resume", BATCH, "--db", db, "--limit", limit, cwd=directory)
        what = f"resume, {_LEFT:,} of {count:,} left"
        yield from _first(what, bench.nginx, mark, resumed, most_s=3)
        mark = bench.nginx.mark()
        again = _batchgen("run", manifest, "--db", db, "--limit", limit, cwd=directory)
        yield from _first(f"run again, {count:,} rows", bench.nginx, mark, again)


def first_request(bench: Bench) -> Iterator[Figure]:
    """From the start of the process to the first request, with 200,000 rows to do."""
    count = 50_000 if bench.quick else 200_000
    ours, theirs, peaks = [], [], []
    for _ in range(bench.rounds):
        with _directory(bench, count) as directory:
            mark = bench.nginx.mark()
            limit = ["--limit", "64"]
            db = directory / "batchgen.db"
            used = _batchgen("run", directory / f"{BATCH}.yaml", "--db", db, *limit, cwd=directory)
            ours.append(bench.nginx.bought_since(mark)[0] - used.began_at)
            peaks.append(used.peak_mb)
        with _directory(bench, count) as directory:
            theirs.append(_first_of_script(bench, directory, count))
    first, script = median(ours), median(theirs)
    yield Figure(what=f"first request, {count:,} new rows", value=first, unit="s", most=3)
    yield Figure(what="the same by the script", value=script, unit="s")
    yield Figure(what="batchgen to the script", value=first / script, unit="x")
    yield Figure(what=f"peak memory, {count:,} new rows", value=median(peaks), unit="MB")


def enrollment(bench: Bench) -> Iterator[Figure]:
    """CPU and memory of planning, quoting and enrolling more and more rows, and of one request."""
    counts = (1_000, 10_000, 100_000) if bench.quick else (1_000, 10_000, 100_000, 1_000_000)
    base_s, base = 0.0, 0
    for count in counts:
        runs = list[Usage]()
        for _ in range(bench.rounds):
            with _directory(bench, count) as directory:
                manifest, db = directory / f"{BATCH}.yaml", directory / "batchgen.db"
                runs.append(_batchgen("run", manifest, "--db", db, "--limit", "1", cwd=directory))
        cpu_s = median(used.cpu_s for used in runs)
        if not base:
            base_s, base = cpu_s, count
            yield Figure(what=f"run of one of {count:,} rows", value=cpu_s, unit="s CPU")
        else:
            each_us = (cpu_s - base_s) / (count - base) * 1_000_000
            what = f"CPU a row, {count:,} rows over {base:,}"
            yield Figure(what=what, value=each_us, unit="us")
        peak_mb = median(used.peak_mb for used in runs)
        yield Figure(what=f"peak memory, {count:,} rows", value=peak_mb, unit="MB")


def growth(bench: Bench) -> Iterator[Figure]:
    """Memory and CPU of whole runs of more and more jobs, with the tiniest images."""
    counts = (500, 2_000, 10_000) if bench.quick else (1_000, 2_000, 10_000, 100_000)
    yield from _curve(bench, counts, compared=(2_000, counts[-1]))


def curve_to_a_million(bench: Bench) -> Iterator[Figure]:
    """The same up to a million jobs, which takes its time and some 6 GB for the files."""
    counts = (1_000, 10_000, 100_000, 1_000_000)
    yield from _curve(bench, counts, compared=(100_000, 1_000_000))


def _curve(bench: Bench, counts: Sequence[int], compared: tuple[int, int]) -> Iterator[Figure]:
    cpu_before = 0.0
    count_before = 0
    peaks = dict[int, float]()
    for count in counts:
        with _directory(bench, count) as directory:
            command = _BATCHGEN.command(_task(bench.nginx, count), directory)
            used = measure(command, cwd=directory, env=_BATCHGEN.env(), timeout_s=_TIMEOUT_S)
        peaks[count] = used.peak_mb
        each = (used.cpu_s - cpu_before) / (count - count_before) * 1_000
        more = "" if count_before == 0 else f" over {count_before:,}"
        yield Figure(what=f"CPU a job, {count:,} jobs{more}", value=each, unit="ms")
        yield Figure(
            what=f"rate, {count:,} jobs, start to end", value=count / used.wall_s, unit="/s"
        )
        yield Figure(what=f"peak memory, {count:,} jobs", value=used.peak_mb, unit="MB")
        cpu_before, count_before = used.cpu_s, count
    few, many = compared
    yield Figure(
        what=f"memory from {few:,} to {many:,} jobs",
        value=peaks[many] - peaks[few],
        unit="MB",
        most=15,
    )


def make_done(db: Path, *, left: int) -> int:
    """Give all pending jobs but some the row, attempt and image of one that is really done.

    Returns how many. All of them have the one file, since a run looks for the file of each.
    """
    with closing(sqlite3.connect(db)) as conn, conn:
        model, attempt, image = conn.execute(
            "SELECT jobs.id, attempts.id, images.id FROM jobs"
            " JOIN attempts ON attempts.job_id = jobs.id JOIN images ON images.job_id = jobs.id"
            " WHERE jobs.state = 'done' LIMIT 1"
        ).fetchone()
        conn.execute(
            "CREATE TEMP TABLE chosen AS SELECT id AS job, lower(hex(randomblob(16))) AS attempt"
            " FROM jobs WHERE state = 'pending' ORDER BY id DESC LIMIT"
            " max(0, (SELECT count(*) FROM jobs WHERE state = 'pending') - ?)",
            (left,),
        )
        columns = _columns(conn, "attempts") - {"id", "job_id"}
        conn.execute(
            f"INSERT INTO attempts (id, job_id, {', '.join(sorted(columns))})"
            f" SELECT chosen.attempt, chosen.job, {', '.join(sorted(columns))}"
            " FROM chosen, attempts WHERE attempts.id = ?",
            (attempt,),
        )
        columns = _columns(conn, "images") - {"id", "job_id", "attempt_id"}
        conn.execute(
            f"INSERT INTO images (job_id, attempt_id, {', '.join(sorted(columns))})"
            f" SELECT job, attempt, {', '.join(sorted(columns))}"
            " FROM chosen, images WHERE images.id = ?",
            (image,),
        )
        changed = conn.execute(
            "UPDATE jobs SET (state, tries, changed_at, done_at) ="
            " (SELECT state, tries, changed_at, done_at FROM jobs AS model WHERE model.id = ?)"
            " WHERE id IN (SELECT job FROM chosen)",
            (model,),
        )
        return changed.rowcount


def _columns(conn: sqlite3.Connection, table: str) -> set[str]:
    return {str(name) for (name,) in conn.execute("SELECT name FROM pragma_table_info(?)", [table])}


@contextmanager
def _directory(bench: Bench, count: int) -> Iterator[Path]:
    """A directory with the table and the manifest."""
    directory = bench.work / "scale"
    directory.mkdir()
    try:
        _BATCHGEN.command(_task(bench.nginx, count), directory)
        yield directory
    finally:
        shutil.rmtree(directory)


def _task(nginx: Nginx, count: int) -> Task:
    return Task(base_url=nginx.base_url(_RESPONSE), count=count, in_flight=64, size="tiny")


def _batchgen(*arguments: str | Path, cwd: Path) -> Usage:
    command = [sys.executable, "-m", "batchgen", *arguments]
    return measure(command, cwd=cwd, env=_BATCHGEN.env(), timeout_s=_TIMEOUT_S)


def _took(what: str, used: Usage) -> Iterator[Figure]:
    yield Figure(what=what, value=used.wall_s, unit="s")
    yield Figure(what=f"{what}: peak memory", value=used.peak_mb, unit="MB")


def _first(
    what: str, nginx: Nginx, mark: int, used: Usage, most_s: float | None = None
) -> Iterator[Figure]:
    first_s = nginx.bought_since(mark)[0] - used.began_at
    yield Figure(what=f"{what}: first request", value=first_s, unit="s", most=most_s)
    yield Figure(what=f"{what}: peak memory", value=used.peak_mb, unit="MB")


def _looked_at(what: str, directory: Path, db: Path) -> Iterator[Figure]:
    runs = [_batchgen("status", BATCH, "--db", db, cwd=directory) for _ in range(_STATUS_TIMES)]
    helps = [_batchgen("--help", cwd=directory) for _ in range(_STATUS_TIMES)]
    took, idle = (median(used.wall_s for used in used_by) for used_by in (runs, helps))
    yield Figure(what=what, value=took * 1_000, unit="ms", most=200)
    yield Figure(what=f"{what}, over `--help`", value=(took - idle) * 1_000, unit="ms")


def _first_of_script(bench: Bench, directory: Path, count: int) -> float:
    """The script is killed at its first request."""
    log = bench.nginx.directory / "bought.log"
    mark = bench.nginx.mark()
    command = _SCRIPT.command(_task(bench.nginx, count), directory)
    used = measure(
        command, cwd=directory, env=_SCRIPT.env(), until=lambda: log.stat().st_size > mark
    )
    return bench.nginx.bought_since(mark)[0] - used.began_at
