"""Feed parsers of foreign bytes with input that reaches new code, for a while.

``python -m tests.fuzz manifest --seconds 60``; ``all`` goes through every target. Needs atheris,
which is not part of ``.[test]``: it has no wheels for every Python and system that batchgen runs
on.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

MEMORY_MB = 1024
ONE_INPUT_S = 10
LONGEST = 4096


def fuzz(name: str, seconds: int, crashes: Path) -> bool:
    """Run one target in a process of its own, and say how often it ran. Whether all went well."""
    with tempfile.TemporaryDirectory(prefix="corpus-") as corpus:
        limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MB}"]
        limits += [f"-timeout={ONE_INPUT_S}", f"-max_len={LONGEST}", f"-artifact_prefix={crashes}/"]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", name, "--child", corpus, *limits],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    runs = re.findall(r"^(?:Done |#)(\d+)", done.stdout, re.MULTILINE)
    cover = re.findall(r"cov: (\d+)", done.stdout)
    print(
        f"{name}: {int(runs[-1]) if runs else 0:,} inputs, {cover[-1] if cover else 0} places,"
        f" {'no crash' if done.returncode == 0 else 'CRASHED'}",
        flush=True,
    )
    if done.returncode != 0:
        print(done.stdout[-4000:], flush=True)
    return done.returncode == 0


def child(name: str, corpus: Path, flags: list[str]) -> None:
    """Be the process that is fed."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["batchgen"]):
        targets = importlib.import_module("tests.fuzz.targets")
    target = targets.TARGETS[name]
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *flags, str(corpus)], target.read)
    atheris.Fuzz()


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", help="a target's name, or all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--crashes", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options, flags = parser.parse_known_args()
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is missing: pip install atheris")
    if options.child is not None:
        child(options.target, options.child, flags)
        return 0
    names = list(importlib.import_module("tests.fuzz.targets").TARGETS)
    if options.target not in (*names, "all"):
        parser.error(f"there are {', '.join(names)} and all")
    chosen = names if options.target == "all" else [options.target]
    ends = [fuzz(name, options.seconds, options.crashes) for name in chosen]
    return 0 if all(ends) else 1


if __name__ == "__main__":
    raise SystemExit(main())
