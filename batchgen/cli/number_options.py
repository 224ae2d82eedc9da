"""Types of options that are numbers, whose errors say what is expected in words."""

from __future__ import annotations

import math
from typing import Any

import click


class WholeNumber(click.IntRange):
    """A whole number, at least ``min`` and at most ``max`` where these are set."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            expected = f"a whole number{_range(self.min, self.max)}"
            raise click.BadParameter(f"{value}; expected {expected}", ctx, param) from None


class Number(click.FloatRange):
    """A finite number, at least ``min`` and at most ``max`` where these are set."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = float(super().convert(value, param, ctx))
        except click.BadParameter:
            number = math.nan
        if math.isfinite(number):
            return number
        expected = f"a number{_range(self.min, self.max)}"
        raise click.BadParameter(f"{value}; expected {expected}", ctx, param)


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f", {low} or more"
    return "" if high is None else f", {high} or less"
