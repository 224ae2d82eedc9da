"""``python -m tests.bench``: compare batchgen with its peers on loopback.

batchgen/guide/performance.md has the results."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.bench import counts, figures, pulse, rate, scale, startup, table, throughput
from tests.bench.clients import clients
from tests.bench.figures import Bench, Figure
from tests.bench.nginx import nginx

ALONE: Final[Mapping[str, Callable[[Bench], Iterable[Figure]]]] = {
    "startup": startup.run,
    "counts": counts.run,
    "pulse": pulse.run,
    "width": throughput.width,
    "first-request": scale.first_request,
    "enrollment": scale.enrollment,
    "million": scale.million,
    "growth": scale.growth,
    "rate": rate.run,
    "learned-rate": rate.learned,
    "curve": scale.curve_to_a_million,
}
"""Scenarios of batchgen alone, or with a comparison of their own."""
QUICK: Final = ("url-20k", "url-1500k", "inline-1500k", "latency-64", "startup")
"""What ``--quick`` runs where nothing is chosen."""


def main() -> None:
    """Run the requested benchmarks, and print their tables as they finish."""
    options = _options()
    chosen = options.only or (QUICK if options.quick else [*_NAMES, *ALONE])
    with (
        tempfile.TemporaryDirectory(prefix="batchgen-bench-", dir=options.directory) as directory,
        tempfile.TemporaryDirectory(prefix="batchgen-bench-", dir=options.disk) as disk,
    ):
        work = Path(directory)
        with nginx(work / "nginx") as server:
            bench = Bench(
                nginx=server,
                work=work,
                disk=Path(disk),
                rounds=options.rounds or (1 if options.quick else 3),
                quick=options.quick,
            )
            _compare(bench, options, [name for name in chosen if name in _NAMES])
            _alone(bench, [name for name in chosen if name in ALONE])


def _compare(bench: Bench, options: argparse.Namespace, chosen: list[str]) -> None:
    found = clients(options.peers, options.litellm)
    if options.clients:
        found = [client for client in found if client.name in options.clients]
    if chosen:
        print(table.HEADER, flush=True)
    for name in chosen:
        scenario = next(one for one in throughput.SCENARIOS if one.name == name)
        if bench.quick:
            scenario = replace(scenario, count=scenario.quick)
        suited = [client for client in found if throughput.suits(scenario, client)]
        everything = throughput.run(scenario, suited, bench)
        print("\n".join(table.throughput(scenario, everything)), flush=True)


def _alone(bench: Bench, chosen: list[str]) -> None:
    if chosen:
        print(f"\n{figures.HEADER}", flush=True)
    for name in chosen:
        for figure in ALONE[name](bench):
            print(figure.line(name), flush=True)


_NAMES: Final = tuple(scenario.name for scenario in throughput.SCENARIOS)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    names = [*_NAMES, *ALONE]
    parser.add_argument("--only", nargs="+", choices=names, metavar="SCENARIO", help=str(names))
    parser.add_argument("--clients", nargs="+", help="default: all that are here")
    parser.add_argument("--quick", action="store_true", help="some scenarios, one round of each")
    parser.add_argument("--rounds", type=int, help="default: 3, with --quick 1")
    parser.add_argument("--peers", type=Path, help="directory of environments named by their peer")
    parser.add_argument("--litellm", type=Path, help="environment that has LiteLLM 1.80.0")
    parser.add_argument(
        "--directory", type=Path, default=Path("/dev/shm"), help="where files are written; a tmpfs"
    )
    parser.add_argument(
        "--disk", type=Path, default=Path("/var/tmp"), help="where a sync is real; no tmpfs"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
