"""Compare a run on three nodes with one in one process: ``python -m tests.bench.cluster``.

All parts are on this machine: a server for S3 (moto), the local endpoint, the nodes and the driver.
Counts are exact; times are those of a shared machine. Needs the extras of `.ci/run extras`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import rig
from tests.support.cluster_batch import ClusterBatch
from tests.support.ray_cluster import ray_cluster
from tests.support.s3 import s3_server

LIMITS = "{concurrency: 64, downloads: 16, max_waste: 0}"


@dataclass(frozen=True)
class Measured:
    """One run of a driver."""

    seconds: float
    """From the first request to the last image."""
    cpu_s: float
    rss_mb: float


def measured(batch: ClusterBatch, arguments: Sequence[str]) -> Measured:
    """Run a command in a process of its own, and measure that process."""
    command = [sys.executable, "-m", "batchgen", *arguments, "--quiet"]
    env = rig.environment(batch.env)
    process = subprocess.Popen(command, cwd=batch.directory, env=env, stdin=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    row = rig.query(
        batch.directory / "batchgen.db",
        "SELECT (julianday(max(saved_at)) - julianday((SELECT min(started_at) FROM attempts)))"
        " * 86400 AS seconds FROM images",
    )[0]
    return Measured(row["seconds"], used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def main() -> None:
    """Measure both ways at two sizes, and print CPU for each image from the difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs=2, default=[500, 2500], metavar=("FEW", "MANY"))
    parser.add_argument("--latency", type=float, default=0.2)
    options = parser.parse_args()
    few, many = options.jobs
    with tempfile.TemporaryDirectory() as name, s3_server() as s3:
        switches = ("--latency", str(options.latency), "--fast-images")
        directory = Path(name)
        with (
            rig.endpoint(directory / "endpoint", *switches) as served,
            ray_cluster(s3.env) as nodes,
        ):
            for way in ("one process", "cluster"):
                found = []
                for jobs in (few, many):
                    place = directory / f"{way.partition(' ')[0]}-{jobs}"
                    place.mkdir()
                    batch = ClusterBatch.of(place, served, s3, nodes)
                    batch.write(jobs, limits=LIMITS)
                    on = batch.arguments() if way == "cluster" else ["run", "batch.yaml"]
                    found.append(measured(batch, on))
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
                slope = (found[1].cpu_s - found[0].cpu_s) / (many - few)
                print(f"{way}: driver CPU {slope * 1000:.2f} ms an image", flush=True)


if __name__ == "__main__":
    main()
