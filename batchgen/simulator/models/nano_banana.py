"""What the nano-banana family accepts on the Images route, and what it costs on every route.

Sources: https://docs.crazyrouter.com/en/images/nano-banana and the price list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from batchgen.simulator.errors import not_taken
from batchgen.simulator.models.fields import (
    check_allowed,
    choice,
    field,
    image_urls,
    number,
    prompt_of,
)
from batchgen.simulator.models.rules import ImageRequest, Reference
from batchgen.simulator.models.sizes import GOOGLE_RATIOS, google_size
from batchgen.simulator.models.tariffs import PriceRule, Tariff

_GEMINI_FIELDS = ("generationConfig", "imageConfig", "imageOutputOptions")
_MAX_IMAGES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model of the family."""

    resolutions: tuple[str, ...]
    max_references: int
    tariff: Tariff


def _member(max_references: int, dollars: Mapping[str, str], verified: tuple[str, ...]) -> Member:
    """Return a model by its dollars per resolution; verified prices are written like `i2i:1K`."""
    rules = tuple(
        PriceRule(
            bucket=bucket,
            resolution=resolution,
            dollars=Decimal(amount),
            references=f"1-{max_references} refs" if bucket == "reference" else "",
            verified=f"{bucket}:{resolution}" in verified,
        )
        for bucket in ("i2i", "reference", "t2i")
        for resolution, amount in dollars.items()
    )
    return Member(
        resolutions=tuple(dollars),
        max_references=max_references,
        tariff=Tariff(discount=Decimal("0.55"), rules=rules),
    )


FAMILY = {
    "nano-banana": _member(10, {"1K": "0.039"}, verified=("i2i:1K", "reference:1K")),
    "nano-banana-2": _member(
        14,
        {"1K": "0.067", "2K": "0.101", "4K": "0.15"},
        verified=("i2i:1K", "i2i:2K", "reference:1K"),
    ),
    "nano-banana-pro": _member(
        2,
        {"1K": "0.134", "2K": "0.134", "4K": "0.24"},
        verified=("i2i:1K", "i2i:4K", "reference:1K"),
    ),
}


def read(fields: Mapping[str, object], *, block_word: str) -> ImageRequest:
    """Return the request of the JSON object `fields` on the Images route. Raises ApiError."""
    model = field(fields, "model", str) or ""
    member = FAMILY[model]
    for name in _GEMINI_FIELDS:
        if name in fields:
            raise not_taken(name, f'Unknown name "{name}": Cannot find field.')
    if model == "nano-banana-pro" and "image" in fields:
        raise not_taken("image", 'Unknown name "image": Cannot find field.')
    prompt = prompt_of(fields)
    ratio = choice(fields, "aspect_ratio", ("auto", *GOOGLE_RATIOS)) or "auto"
    resolution = choice(fields, "resolution", member.resolutions) or "1K"
    width, height = google_size("1:1" if ratio == "auto" else ratio, resolution)
    output_format = choice(fields, "output_format", ("png", "jpeg", "jpg")) or "png"
    request = ImageRequest(
        model=model,
        prompt=prompt,
        n=number(fields, "n", 1, _MAX_IMAGES) or 1,
        width=width,
        height=height,
        quality="",
        output_format="png" if output_format == "png" else "jpeg",
        output_compression=number(fields, "output_compression", 0, 100),
        references=tuple(
            Reference(digest=hashlib.sha256(url.encode("utf-8", "replace")).hexdigest())
            for url in image_urls(fields, "image_input", most=member.max_references)
        ),
        resolution=resolution,
    )
    check_allowed(prompt, block_word)
    return request
