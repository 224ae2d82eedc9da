"""What the veo-3.1 models accept and cost.

Source: https://docs.crazyrouter.com/en/video/veo
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from batchgen.simulator.errors import ApiError, invalid_value
from batchgen.simulator.models.fields import (
    check_allowed,
    choice,
    field,
    image_urls,
    number,
    prompt_of,
)
from batchgen.simulator.models.tariffs import PriceRule, Tariff

RESOLUTIONS = {"720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160)}
_STANDARD_SECONDS = 8
_MOST_SECONDS = 8
"""The usual length, and the longest that the maker's own route makes at once."""


def _by_second(usual: tuple[str, str], at_4k: tuple[str, str]) -> Tariff:
    """Return rules for dollars per second without and with sound."""
    rules = tuple(
        PriceRule(
            bucket=bucket,
            resolution=resolution,
            audio=sound,
            dollars=Decimal((at_4k if resolution == "4k" else usual)[sound]),
            verified=bucket in ("t2v", "i2v") and resolution != "4k" and not sound,
        )
        for bucket in ("i2v", "reference", "start_end", "t2v")
        for resolution in RESOLUTIONS
        for sound in (False, True)
    )
    return Tariff(rules=rules)


TARIFFS = {
    "veo-3.1-fast": _by_second(("0.1", "0.15"), at_4k=("0.3", "0.35")),
    "veo-3.1": _by_second(("0.2", "0.4"), at_4k=("0.4", "0.6")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRequest:
    """A valid request with all defaults filled in. `references` are URLs."""

    model: str
    prompt: str
    width: int
    height: int
    seconds: int
    resolution: str
    references: tuple[str, ...]
    n: int = 1

    @property
    def micros(self) -> int:
        """Return the price. No field for sound is documented, so the video is silent."""
        bucket = "i2v" if self.references else "t2v"
        tariff = TARIFFS[self.model]
        return self.seconds * tariff.micros(bucket=bucket, resolution=self.resolution, audio=False)


def read(fields: Mapping[str, object], *, block_word: str) -> VideoRequest:
    """Return the request of the JSON object `fields`, ignoring unknown fields.

    Raises ApiError.
    """
    model = field(fields, "model", str) or ""
    if model not in TARIFFS:
        raise ApiError(
            503, f"no available channel for model {model[:80]}", code="get_channel_failed"
        )
    prompt = prompt_of(fields)
    resolution, width, height = _size(fields)
    request = VideoRequest(
        model=model,
        prompt=prompt,
        width=width,
        height=height,
        seconds=number(fields, "duration", 1, _MOST_SECONDS) or _STANDARD_SECONDS,
        resolution=resolution,
        references=image_urls(fields, "images", most=1),
    )
    check_allowed(prompt, block_word)
    return request


def _size(fields: Mapping[str, object]) -> tuple[str, int, int]:
    """Return the resolution, and its size in the requested aspect ratio."""
    ratio = choice(fields, "aspect_ratio", ("16:9", "9:16"))
    size = field(fields, "size", str) or "720P"
    for resolution, (long, short) in RESOLUTIONS.items():
        if size.lower() == resolution:
            return (resolution, short, long) if ratio == "9:16" else (resolution, long, short)
        if size == f"{long}x{short}" and ratio != "9:16":
            return resolution, long, short
        if size == f"{short}x{long}" and ratio != "16:9":
            return resolution, short, long
    raise invalid_value("size", f"Invalid size '{size[:40]}'. Supported: 720P, 1080P.")
