"""Rules for image sizes, and the nearest valid size. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from batchgen.job import OptionValue
from batchgen.providers.rules.option_rules import Refusal, as_written, joined, nearest_value

_SIZE: Final = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")
_MEANT_AS_SIZE: Final = re.compile(r"([0-9]{1,6}) ?(?:x|\*|\u00d7|by) ?([0-9]{1,6})(?: ?px)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeGrid:
    """``auto``, or any ``WIDTHxHEIGHT`` within bounds whose sides are multiples of a step."""

    step: int
    max_side: int
    min_pixels: int
    max_pixels: int
    max_ratio: int
    """Limit of the long side divided by the short side."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Check a value, and compute the nearest valid size."""
        if value == "auto":
            return None
        form, meant = "expected auto or WIDTHxHEIGHT in pixels", _meant(value)
        if meant is None:
            return Refusal(form, "write it like 1024x1024")
        well_written = isinstance(value, str) and _SIZE.fullmatch(value)
        rule = " and ".join(self._broken(*meant)) if well_written else form
        if not rule:
            return None
        return Refusal(rule, nearest_value(_as_text(nearest_legal_size(self, *meant))))

    def is_legal(self, width: int, height: int) -> bool:
        """Return whether a size in pixels meets all rules."""
        return not any(self._broken(width, height))

    def _broken(self, width: int, height: int) -> Iterator[str]:
        pixels = width * height
        if width % self.step or height % self.step:
            yield f"both sides must be multiples of {self.step}"
        if max(width, height) > self.max_side:
            yield f"no side may exceed {self.max_side}"
        if pixels < self.min_pixels:
            yield f"the size must have at least {self.min_pixels:,} pixels, not {pixels:,}"
        if pixels > self.max_pixels:
            yield f"the size must have at most {self.max_pixels:,} pixels, not {pixels:,}"
        if max(width, height) > self.max_ratio * min(width, height):
            yield f"the long side must be at most {self.max_ratio} times the short side"


def nearest_legal_size(grid: SizeGrid, width: int, height: int) -> tuple[int, int]:
    """Return the valid size with the closest ratio; not smaller, if such a size exists.

    Width and height are in pixels, each at least 1.
    """
    if grid.is_legal(width, height):
        return width, height
    ideal_width, ideal_height = _within_bounds(grid, width, height)

    def cost(size: tuple[int, int]) -> tuple[bool, float]:
        smaller = size[0] < width or size[1] < height
        return smaller, abs(size[0] - ideal_width) + abs(size[1] - ideal_height)

    return min(_near_sizes(grid, ideal_height), key=cost)


def _within_bounds(grid: SizeGrid, width: int, height: int) -> tuple[float, float]:
    """Return the size stretched to a valid ratio and scaled into the bounds, not on the grid."""
    wide = max(float(width), height / grid.max_ratio)
    high = max(float(height), width / grid.max_ratio)
    pixels = wide * high
    scale = max(1.0, math.sqrt(grid.min_pixels / pixels))
    scale = min(scale, math.sqrt(grid.max_pixels / pixels), grid.max_side / max(wide, high))
    return wide * scale, high * scale


def _near_sizes(grid: SizeGrid, height: float) -> Iterator[tuple[int, int]]:
    """Yield for each width of the grid the valid heights next to ``height``."""
    step, side = grid.step, grid.max_side
    for width in range(step, side + 1, step):
        least = max(-(-width // grid.max_ratio), -(-grid.min_pixels // width))
        most = min(side, grid.max_ratio * width, grid.max_pixels // width)
        first, last = -(-least // step), most // step
        if first <= last:
            for steps in {math.floor(height / step), math.ceil(height / step)}:
                yield width, step * min(max(steps, first), last)


@dataclass(frozen=True, slots=True)
class SizeList:
    """One of a few sizes, and ``auto`` if it is listed."""

    values: tuple[str, ...]

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Check a value; the nearest valid size has the closest ratio."""
        if isinstance(value, str) and value in self.values:
            return None
        rule = f"expected {joined(self.values)}"
        size = _meant(value)
        if size is None:
            return Refusal(rule, "use one of these")
        return Refusal(
            rule, nearest_value(min(self._sizes(), key=lambda legal: _distance(legal, size)))
        )

    def _sizes(self) -> Iterator[str]:
        return (value for value in self.values if _SIZE.fullmatch(value))


@dataclass(frozen=True, slots=True)
class AnySize:
    """``WIDTHxHEIGHT`` of a model that publishes no bounds."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Check the form of a value."""
        if isinstance(value, str) and _SIZE.fullmatch(value):
            return None
        meant = _meant(value)
        remedy = nearest_value(_as_text(meant)) if meant else "write it like 1024x1024"
        return Refusal("expected WIDTHxHEIGHT in pixels", remedy)


def _meant(value: OptionValue) -> tuple[int, int] | None:
    """Parse a size in a common spelling, like ``1024 X 1024``; None for anything else."""
    match = _MEANT_AS_SIZE.fullmatch(as_written(value).lower())
    return (max(int(match[1]), 1), max(int(match[2]), 1)) if match else None


def _distance(legal: str, size: tuple[int, int]) -> tuple[float, float]:
    width, height = map(int, legal.split("x"))
    ratio = math.log(width * size[1] / (height * size[0]))
    return abs(ratio), abs(width * height - size[0] * size[1])


def _as_text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
