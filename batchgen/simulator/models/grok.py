"""What grok-4-image accepts and costs.

Source: https://docs.crazyrouter.com/en/images/grok
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from batchgen.simulator.errors import invalid_value, not_taken
from batchgen.simulator.faults import Response
from batchgen.simulator.models.fields import check_allowed, choice, field, number, prompt_of
from batchgen.simulator.models.rules import ImageRequest
from batchgen.simulator.models.sizes import fitted_size
from batchgen.simulator.models.tariffs import Tariff

MODEL = "grok-4-image"
TARIFF = Tariff(flat=Decimal("0.08"), discount=Decimal("0.55"))

_SIDES = {"1k": 1024, "2k": 2048}
_NOT_SUPPORTED = ("size", "quality", "style")


def read(fields: Mapping[str, object], *, block_word: str) -> ImageRequest:
    """Return the request of the JSON object `fields`. Raises ApiError."""
    for name in _NOT_SUPPORTED:
        if fields.get(name) not in (None, ""):
            raise not_taken(name, f"Argument not supported: {name}")
    prompt = prompt_of(fields)
    ratio = field(fields, "aspect_ratio", str) or "auto"
    resolution = choice(fields, "resolution", tuple(_SIDES)) or "1k"
    size = fitted_size("1:1" if ratio == "auto" else ratio, _SIDES[resolution])
    if size is None:
        raise invalid_value("aspect_ratio", f"Invalid value '{ratio[:40]}' for aspect_ratio.")
    choice(fields, "response_format", ("url", "b64_json"))  # accepted, but ignored
    number(fields, "n", 1, 1)
    check_allowed(prompt, block_word)
    return ImageRequest(
        model=MODEL,
        prompt=prompt,
        n=1,
        width=size[0],
        height=size[1],
        quality="",
        output_format="jpeg",
        output_compression=None,
        response=Response.URL,
    )
