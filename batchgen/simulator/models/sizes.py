"""Sizes in pixels of images requested by aspect ratio and resolution."""

from __future__ import annotations

import math
import re

_RATIO = re.compile(r"([1-9][0-9]?):([1-9][0-9]?)")
_MAX_RATIO = 3
_STEP = 16

_GOOGLE = {
    "1:1": (1024, 1024),
    "2:3": (848, 1264),
    "3:2": (1264, 848),
    "3:4": (896, 1200),
    "4:3": (1200, 896),
    "4:5": (928, 1152),
    "5:4": (1152, 928),
    "9:16": (768, 1376),
    "16:9": (1376, 768),
    "21:9": (1584, 672),
}
"""Google's table at 1K; each resolution step doubles both sides."""

GOOGLE_RATIOS = tuple(_GOOGLE)
GOOGLE_FACTORS = {"1K": 1, "2K": 2, "4K": 4}


def google_size(ratio: str, resolution: str) -> tuple[int, int]:
    """Return width and height of an image of the Gemini family."""
    width, height = _GOOGLE[ratio]
    factor = GOOGLE_FACTORS[resolution]
    return width * factor, height * factor


def fitted_size(ratio: str, side: int) -> tuple[int, int] | None:
    """Return width and height of that ratio with about side x side pixels, in steps of 16.

    None for a ratio not written like `16:9`, or more extreme than 3:1.
    """
    match = _RATIO.fullmatch(ratio)
    if match is None:
        return None
    across, down = int(match[1]), int(match[2])
    if max(across, down) > _MAX_RATIO * min(across, down):
        return None
    stretch = math.sqrt(across / down)
    return _stepped(side * stretch), _stepped(side / stretch)


def _stepped(pixels: float) -> int:
    return _STEP * round(pixels / _STEP)
