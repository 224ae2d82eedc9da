"""A random sequence of commands over some nights, checked after each step."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.nights import checks, file_checks
from tests.nights.batch import Batch, Disagreement
from tests.nights.catalog import Catalog
from tests.nights.runs import night
from tests.nights.steps import KEEPING, Step, edit, rollback
from tests.support import rig

MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Syncs cost nothing there."""
OFTEN: Final = 8
"""How often a run and an edit are drawn each, while the other steps are drawn 15 times in all."""


@dataclass
class Sequence:
    """The steps of a seed."""

    seed: int
    batch: Batch
    number: int = 0
    """Of the step that is made."""

    def play(self, steps: int) -> None:
        """Make the steps. Raises Disagreement with all that repeats it."""
        self.batch.write(self._dice())
        for self.number in range(steps):
            dice = self._dice()
            self.step(night if self.number == 0 else self._choose(dice), dice)

    def step(self, step: Step, dice: random.Random) -> None:
        """Make a step and check. Raises Disagreement."""
        self.batch.note(f"step {self.number}: {step.__name__}")
        try:
            step(self.batch, dice)
            self.check(rolled_back=step is rollback)
        except Exception as exc:
            raise Disagreement(self._explain(step, exc)) from exc

    def check(self, *, rolled_back: bool = False) -> None:
        """Compare all records of the batch. Raises Disagreement."""
        if not self.batch.has_ledger:
            return
        for check in (*checks.CHECKS, *file_checks.CHECKS):
            check(self.batch)
        file_checks.versions(self.batch, rolled_back=rolled_back)

    def _dice(self) -> random.Random:
        """Return dice of the step's own: how often others were thrown depends on the machine."""
        return random.Random(f"{self.seed}/{self.number}")

    def _choose(self, dice: random.Random) -> Step:
        steps: list[Step] = [*[night] * OFTEN, *[edit] * OFTEN]
        return dice.choice([*steps, *KEEPING] if self.batch.has_ledger else steps)

    def _explain(self, step: Step, exc: Exception) -> str:
        text = str(exc) if isinstance(exc, Disagreement) else repr(exc)
        repeat = f"--first {self.seed} --last {self.seed} --steps {self.number + 1}"
        return "\n".join(
            [
                f"seed {self.seed}, step {self.number} ({step.__name__}): {text}",
                f"to repeat it: python -m tests.nights {repeat}",
                "steps so far:",
                *(f"  {line}" for line in self.batch.record),
            ]
        )


@contextmanager
def sequence(seed: int, directory: Path) -> Iterator[Sequence]:
    """Start an endpoint, and lay out a batch for this seed."""
    shop = directory / "shop"
    shop.mkdir()
    # An endpoint of its own: its faults depend on how many requests it had before.
    switches = ("--fast-images", f"--seed={seed}")
    with rig.endpoint(directory / "endpoint", *switches) as served:
        catalog = Catalog.new(served.base_url, random.Random(seed))
        yield Sequence(seed, Batch(shop, served, catalog))


def new_directory(seed: int) -> Path:
    """Make a directory in memory, if there is one."""
    return Path(tempfile.mkdtemp(prefix=f"batchgen-nights-{seed}-", dir=MEMORY))
