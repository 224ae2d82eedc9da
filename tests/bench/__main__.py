"""``python -m tests.bench``: batchgen beside its peers, on loopback; see README, Performance."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.bench import table, throughput
from tests.bench.clients import clients
from tests.bench.nginx import nginx


def main() -> None:
    options = _options()
    chosen = [one for one in throughput.SCENARIOS if not options.only or one.name in options.only]
    found = clients(options.peers, options.litellm)
    if options.clients:
        found = [client for client in found if client.name in options.clients]
    with tempfile.TemporaryDirectory(prefix="batchgen-bench-", dir=options.folder) as folder:
        work = Path(folder)
        with nginx(work / "nginx") as server:
            print(table.HEADER, flush=True)
            for scenario in chosen:
                if options.quick:
                    scenario = replace(scenario, count=scenario.quick)
                suited = [client for client in found if throughput.suits(scenario, client)]
                rounds = options.rounds or (1 if options.quick else 3)
                everything = throughput.run(scenario, suited, server, work, rounds=rounds)
                print("\n".join(table.throughput(scenario, everything)), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    names = [one.name for one in throughput.SCENARIOS]
    parser.add_argument("--only", nargs="+", choices=names, help="scenarios; default: all")
    parser.add_argument("--clients", nargs="+", help="default: all that are here")
    parser.add_argument("--quick", action="store_true", help="fewer pictures, one round")
    parser.add_argument("--rounds", type=int, help="default: 3, with --quick 1")
    parser.add_argument("--peers", type=Path, help="folder of environments named by their peer")
    parser.add_argument("--litellm", type=Path, help="environment that has LiteLLM 1.80.0")
    parser.add_argument(
        "--folder", type=Path, default=Path("/dev/shm"), help="where files are written; a tmpfs"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
