"""All models: how their requests are read on the Images route, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from batchgen.simulator.errors import ApiError, no_channel
from batchgen.simulator.models import grok, nano_banana, qwen, rules
from batchgen.simulator.models.fields import field
from batchgen.simulator.models.rules import ImageRequest
from batchgen.simulator.models.tariffs import Tariff, image_bucket


class Read(Protocol):
    """Reads the fields of a generation request. Raises ApiError."""

    def __call__(self, fields: Mapping[str, object], *, block_word: str) -> ImageRequest: ...


READERS: Mapping[str, Read] = {
    rules.MODEL: rules.generation,
    grok.MODEL: grok.read,
    **dict.fromkeys(qwen.TARIFFS, qwen.read),
    **dict.fromkeys(nano_banana.FAMILY, nano_banana.read),
}

IMAGE_TARIFFS: Mapping[str, Tariff] = {
    grok.MODEL: grok.TARIFF,
    **qwen.TARIFFS,
    **{name: member.tariff for name, member in nano_banana.FAMILY.items()},
}
"""Tariffs of models with one price wherever this endpoint runs; gpt-image-2's price is an option.
"""


def generation(fields: Mapping[str, object], *, block_word: str) -> ImageRequest:
    """Return the request of the JSON object `fields`, by the rules of its model.

    Raises ApiError.
    """
    model = field(fields, "model", str) or ""
    if not model:
        raise ApiError(400, "The model name must not be empty")
    if model not in READERS:
        raise no_channel(model)
    return READERS[model](fields, block_word=block_word)


def edit(texts: Mapping[str, str], *, block_word: str) -> ImageRequest:
    """Return the request of a form's text parts, without its references. Raises ApiError."""
    model = texts.get("model", "")
    if model != rules.MODEL and model in READERS:
        raise ApiError(
            500, f"not supported model for image edits: {model}", code="convert_request_failed"
        )
    return rules.edit(texts, block_word=block_word)


def price(wanted: ImageRequest, *, gpt_image: int) -> int:
    """Return the price in micro-dollars if an image of gpt-image-2 costs `gpt_image`."""
    if wanted.model == rules.MODEL:
        return gpt_image * wanted.n
    bucket = image_bucket(len(wanted.references))
    unit = IMAGE_TARIFFS[wanted.model].micros(bucket=bucket, resolution=wanted.resolution)
    return unit * wanted.n
