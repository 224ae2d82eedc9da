"""What the qwen-image family accepts and costs.

Source: https://docs.crazyrouter.com/en/images/qwen
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from batchgen.simulator.errors import invalid_value
from batchgen.simulator.faults import Response
from batchgen.simulator.models.fields import check_allowed, choice, field, number, prompt_of
from batchgen.simulator.models.rules import ImageRequest
from batchgen.simulator.models.tariffs import PriceRule, Tariff


def _by_text(dollars: str, yuan: str) -> Tariff:
    rule = PriceRule(bucket="t2i", dollars=Decimal(dollars), yuan=Decimal(yuan))
    return Tariff(rules=(rule,))


TARIFFS = {
    "qwen-image-plus": _by_text("0.028571428571428574", "0.2"),
    "qwen-image-max": _by_text("0.07142857142857142", "0.5"),
    "qwen-image-2.0": _by_text("0.028571428571428574", "0.2"),
}

_SIZE = re.compile(r"([1-9][0-9]{2,3})[x*]([1-9][0-9]{2,3})")
_STANDARD_SIZE = "1328x1328"
_LEAST_SIDE, _MOST_SIDE = 256, 4096
"""The allowed set is not published; these are the bounds of what is drawn here."""
_MAX_IMAGES = 10


def read(fields: Mapping[str, object], *, block_word: str) -> ImageRequest:
    """Return the request of the JSON object `fields`. Raises ApiError."""
    model = field(fields, "model", str) or ""
    prompt = prompt_of(fields)
    width, height = _size(field(fields, "size", str) or _STANDARD_SIZE)
    form = choice(fields, "response_format", ("url", "b64_json"))
    n = number(fields, "n", 1, _MAX_IMAGES) or 1
    check_allowed(prompt, block_word)
    return ImageRequest(
        model=model,
        prompt=prompt,
        n=n,
        width=width,
        height=height,
        quality="",
        output_format="png",
        output_compression=None,
        response=None if form is None else Response(form),
    )


def _size(size: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(size)
    sides = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(_LEAST_SIDE <= side <= _MOST_SIDE for side in sides):
        raise invalid_value("size", f"Invalid size '{size[:40]}'. Expected WIDTHxHEIGHT.")
    return sides
