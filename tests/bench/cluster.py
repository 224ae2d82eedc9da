"""Compare a run on three nodes with one in one process: ``python -m tests.bench.cluster``.

``--growth 1000 10000`` has the memory of the driver along runs of these sizes, ``--rate 60`` the
use of a strict rate limit in 60 seconds, ``--plan 1000000`` the plan of a million jobs.

All parts are on this machine: a server for S3 (moto, or with ``--quick-store`` one that costs
little), the local endpoint, the nodes and the driver.
Counts are exact; times are those of a shared machine. Needs the extras of `.ci/run extras`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from batchgen.storage.object_store import ObjectStore
from tests.bench.clients import write_rows
from tests.bench.latency import latency
from tests.bench.quick_store import COUNT, quick_store
from tests.support import canary, rig
from tests.support.cluster_batch import ClusterBatch
from tests.support.ray_cluster import RayCluster, ray_cluster
from tests.support.s3 import S3Server, s3_server

_LIMITS = "{concurrency: 64, downloads: 16, max_waste: 0, canary: 64}"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MB = 1024 * 1024
_ALONE = ("run", "batch.yaml")
_PER_MINUTE = 600
_STRICT = f"{{concurrency: 32, max_waste: 0, requests_per_minute: {_PER_MINUTE}}}"
_LIMITED = 500
"""Jobs that a run makes of those it has planned."""
_SAMPLES = 10
"""Of the memory of a driver along its run."""


@dataclass(frozen=True)
class Measured:
    """One run of a driver."""

    seconds: float
    """From the first request to the last image."""
    cpu_s: float
    rss_mb: float
    others_s: dict[str, float]
    """CPU of the other processes by their part."""
    requests: int
    """To the store, if that counts them."""
    rss_along_mb: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """The servers and the cluster that runs use."""

    directory: Path
    served: rig.Endpoint
    s3: S3Server
    nodes: RayCluster

    def batch(self, name: str, jobs: int) -> ClusterBatch:
        """Return a new batch."""
        directory = self.directory / name
        directory.mkdir()
        batch = ClusterBatch.of(directory, self.served, self.s3, self.nodes)
        write_rows(directory / "rows.csv", jobs)
        (directory / "batch.yaml").write_text(
            f"name: batch\nlimits: {_LIMITS}\noptions: {{size: 1024x640}}\n"
            f"provider: {{name: local, base_url: {self.served.base_url!r},"
            f" api_key_env: {canary.VARIABLE}}}\n"
            f"output: {{dir: {batch.root!r}}}\nrows: rows.csv\nprompt: '{{{{ prompt }}}}'\n"
        )
        return batch

    def requests(self) -> int:
        """Return how many requests the quick store got so far; 0 from moto."""
        with suppress(OSError), urllib.request.urlopen(self.s3.endpoint + COUNT) as response:
            return int(response.read())
        return 0

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU that the parts have used so far."""
        found = {"actors": 0.0, "Ray": 0.0}
        actors = set(self.nodes.actors())
        for pid in self.nodes.pids():
            found["actors" if pid in actors else "Ray"] += _cpu_s(pid)
        found["endpoint"] = _cpu_s(self.served.process.pid)
        found["S3 server"] = _cpu_s(self.s3.pid)
        return found


@contextmanager
def place(directory: Path, latency_s: float, *, quick: bool = False) -> Iterator[Place]:
    """Start all servers and the cluster."""
    switches = ("--latency", str(latency_s), "--fast-images")
    with (
        quick_store() if quick else s3_server() as s3,
        rig.endpoint(directory / "endpoint", *switches) as served,
        ray_cluster(s3.env) as nodes,
    ):
        yield Place(directory, served, s3, nodes)


def measured(here: Place, batch: ClusterBatch, arguments: Sequence[str]) -> Measured:
    """Run a command in a process of its own, and measure all processes."""
    command = [sys.executable, "-m", "batchgen", *arguments, "--quiet"]
    env, before = rig.environment(batch.env), here.cpu_s()
    others, asked = before, here.requests()
    along = list[float]()
    process = subprocess.Popen(command, cwd=batch.directory, env=env, stdin=subprocess.DEVNULL)
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        now = here.cpu_s()  # of actors too, which end with the run
        others = {part: max(others[part], now[part]) for part in now}
        along.append(_rss_mb(process.pid))
        time.sleep(1.0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    row = rig.query(
        batch.directory / "batchgen.db",
        "SELECT (julianday(max(saved_at)) - julianday((SELECT min(started_at) FROM attempts)))"
        " * 86400 AS seconds FROM images",
    )[0]
    return Measured(
        seconds=row["seconds"],
        cpu_s=used.ru_utime + used.ru_stime,
        rss_mb=used.ru_maxrss / 1024,
        others_s={part: others[part] - before[part] for part in others},
        requests=here.requests() - asked,
        rss_along_mb=along,
    )


def compare(here: Place, few: int, many: int) -> None:
    """Measure both ways at two sizes, and print CPU for each image from the difference."""
    for way in ("one process", "cluster"):
        found = []
        for jobs in (few, many):
            batch = here.batch(f"{way.partition(' ')[0]}-{jobs}", jobs)
            on = batch.arguments() if way == "cluster" else _ALONE
            found.append(measured(here, batch, on))
            began = time.monotonic()
            batch.judge()
            assert batch.states() == {"done": jobs}
            one = found[-1]
            print(
                f"{way}: {jobs:,} jobs, {jobs / one.seconds:.0f} jobs/s, driver"
                f" {one.cpu_s:.1f} s CPU, {one.rss_mb:.0f} MB; ledger, bill and objects"
                f" agree ({time.monotonic() - began:.0f} s)",
                flush=True,
            )
        first, second = found
        parts = {"driver": (second.cpu_s - first.cpu_s) / (many - few)}
        for part in second.others_s:
            parts[part] = (second.others_s[part] - first.others_s[part]) / (many - few)
        shown = ", ".join(f"{part} {each * 1000:.2f}" for part, each in parts.items())
        asked = (second.requests - first.requests) / (many - few)
        print(
            f"{way}: ms of CPU an image: {shown}; all {sum(parts.values()) * 1000:.2f};"
            f" requests to the store: {asked:.2f}",
            flush=True,
        )


def growth(here: Place, counts: Sequence[int]) -> None:
    """Print the memory of the driver along runs on the cluster."""
    for jobs in counts:
        batch = here.batch(f"growth-{jobs}", jobs)
        one = measured(here, batch, batch.arguments())
        assert batch.states() == {"done": jobs}
        rig.judge_money(batch.directory / "batchgen.db", here.served.bill()[batch.before :])
        objects = sum(found.name.endswith(".png") for found in batch.store.list())
        step = max(1, len(one.rss_along_mb) // _SAMPLES)
        along = " ".join(f"{mb:.0f}" for mb in one.rss_along_mb[::step])
        print(
            f"{jobs:,} jobs: {jobs / one.seconds:.0f}/s, {objects:,} objects, ledger equals bill;"
            f" peak {one.rss_mb:.0f} MB; along the run: {along} MB",
            flush=True,
        )
        assert objects == jobs


def rate(directory: Path, s3: S3Server, image: str, seconds: float) -> None:
    """Print how much of a strict rate a run on the cluster uses, and how evenly it does."""
    jobs = int(seconds * _PER_MINUTE / 60) + 20
    log = directory / "departures-"
    hook = str(Path(__file__).with_name("departures"))
    env = {**s3.env, "DEPARTURES": str(log), "PYTHONPATH": hook}
    for way in ("one process", "cluster"):
        with (
            latency(image, 0.1, "--per-minute", str(_PER_MINUTE)) as strict,
            rig.endpoint(directory / f"endpoint-{way}") as served,
            ray_cluster(env) as nodes,
        ):
            own = directory / way.replace(" ", "-")
            own.mkdir()
            endpoint = replace(served, base_url=strict.base_url)
            batch = ClusterBatch.of(own, endpoint, s3, nodes)
            batch.write(jobs, limits=_STRICT)
            here = Place(own, served, s3, nodes)
            measured(here, batch, batch.arguments() if way == "cluster" else _ALONE)
            bought, refused = strict.bought_since(0), strict.refused_since(0)
        assert batch.states() == {"done": jobs}
        within = sum(at <= bought[0] + seconds for at in bought)
        share = within / (seconds * _PER_MINUTE / 60) * 100
        ends = {"arrival": sorted([*bought, *refused])}
        if way == "cluster":
            files = directory.glob(f"{log.name}*")
            lines = [line for file in files for line in file.read_text().splitlines()]
            ends["departure"] = sorted(map(float, lines))
        print(f"{way}: {share:.1f} % of {_PER_MINUTE} a minute used, {len(refused)} refused")
        for end, times in ends.items():
            gaps = sorted((later - earlier) * 1000 for earlier, later in pairwise(times))
            few, middle = gaps[len(gaps) // 100], gaps[len(gaps) // 2]
            print(
                f"{way}: {end} gaps: shortest 1 % {few:.1f} ms, median {middle:.1f} ms", flush=True
            )


def _image_url(store: S3Server, directory: Path) -> str:
    """Return the URL of an image."""
    data = rig.image(directory / "one.png", size=(1024, 640))
    ObjectStore("s3://images/all", store.options).put("one.png", data)
    return f"{store.endpoint}/images/all/one.png"


def plan(here: Place, jobs: int) -> None:
    """Plan and enroll few and many jobs for the cluster, and make some of each."""
    for count in (1_000, jobs):
        batch = here.batch(f"plan-{count}", count)
        began = time.monotonic()
        one = measured(here, batch, batch.arguments("--limit", str(_LIMITED)))
        rig.judge_money(batch.directory / "batchgen.db", here.served.bill()[batch.before :])
        print(
            f"{count:,} jobs planned and enrolled, {batch.states()['done']} made:"
            f" {time.monotonic() - began:.0f} s, {one.cpu_s:.0f} s CPU of the driver, peak"
            f" {one.rss_mb:.0f} MB; ledger equals bill",
            flush=True,
        )


def _cpu_s(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S
    return 0.0


def _rss_mb(pid: int) -> float:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / _MB
    return 0.0


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs=2, default=[500, 2000], metavar=("FEW", "MANY"))
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--growth", type=int, nargs="+", metavar="JOBS")
    parser.add_argument("--rate", type=float, metavar="SECONDS")
    parser.add_argument("--plan", type=int, metavar="JOBS")
    parser.add_argument("--quick-store", action="store_true", help="a store that costs little")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if options.rate:
            with s3_server() as s3, quick_store() as images:
                rate(directory, s3, _image_url(images, directory), options.rate)
            return
        with place(directory, options.latency, quick=options.quick_store) as here:
            if options.growth:
                growth(here, options.growth)
            elif options.plan:
                plan(here, options.plan)
            else:
                compare(here, *options.jobs)


if __name__ == "__main__":
    main()
