"""Many sequences: ``python -m tests.nights --first 0 --last 99 --steps 25``.

Prints a line for each seed. Exits with 1 where any check failed; what such a sequence left is kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time

from tests.nights.batch import Disagreement
from tests.nights.sequence import new_directory, sequence
from tests.support import canary


def play(seed: int, steps: int) -> bool:
    """Play the sequence of a seed, and print how it ended. Return whether all checks passed."""
    directory, began = new_directory(seed), time.monotonic()
    try:
        with sequence(seed, directory) as played:
            played.play(steps)
    except Disagreement as exc:
        print(f"{exc}\nits files: {directory}", flush=True)
        return False
    shutil.rmtree(directory)
    print(f"seed {seed}: {steps} steps, {time.monotonic() - began:.0f} s", flush=True)
    return True


def main() -> int:
    """Play the sequences of some seeds."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.nights",
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed")
    parser.add_argument("--last", type=int, default=99, metavar="SEED", help="the last seed")
    parser.add_argument("--steps", type=int, default=25, metavar="N", help="steps of each seed")
    chosen = parser.parse_args()
    os.environ.pop("BATCHGEN_DB", None)
    os.environ[canary.VARIABLE] = canary.CANARY
    passed = [play(seed, chosen.steps) for seed in range(chosen.first, chosen.last + 1)]
    print(f"{len(passed)} sequences, {passed.count(False)} with a failed check")
    return int(not all(passed))


if __name__ == "__main__":
    raise SystemExit(main())
