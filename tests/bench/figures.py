"""Figures of a benchmark, next to their targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.nginx import Nginx

HEADER: Final = "| scenario | what | figure | goal | reached |\n|---|---|---|---|---|"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every scenario is given."""

    nginx: Nginx
    work: Path
    """A directory for the scenario's files, on the requested file system."""
    disk: Path
    """A directory on a disk, where a sync is real."""
    rounds: int
    quick: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value."""

    what: str
    value: float
    unit: str
    most: float | None = None
    """The goal: at most so much."""
    least: float | None = None
    """The goal: at least so much."""

    def line(self, scenario: str) -> str:
        """A line of the table."""
        goal = reached = ""
        if self.most is not None:
            goal, reached = f"<= {self.most:g} {self.unit}", _yes(self.value <= self.most)
        if self.least is not None:
            goal, reached = f">= {self.least:g} {self.unit}", _yes(self.value >= self.least)
        shown = f"{self.value:,.0f}" if abs(self.value) >= 100 else f"{self.value:.3g}"
        return f"| {scenario} | {self.what} | {shown} {self.unit} | {goal} | {reached} |"


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"
