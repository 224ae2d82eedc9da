"""OpenAI's Images API: models, rules and prices. It charges by tokens, so prices are estimates.

Sources: https://platform.openai.com/docs/api-reference/images (options),
https://platform.openai.com/docs/guides/image-generation (sizes, backgrounds),
https://platform.openai.com/docs/deprecations (shutdown dates).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Final

from batchgen.images.formats import ImageFormat
from batchgen.providers.price_list import PriceList
from batchgen.providers.profile import Profile
from batchgen.providers.rules.model_rules import Condition, ModelRules, Retirement
from batchgen.providers.rules.option_rules import Choice, Flag, Integer, OptionRule, Text
from batchgen.providers.rules.reference_rules import ReferenceRules
from batchgen.providers.rules.size_rules import SizeGrid, SizeList
from batchgen.providers.token_prices import OPENAI_TOKEN_PRICES

_UNKNOWN_OPTIONS: Final = "OpenAI refuses unknown options"
_QUALITIES: Final = ("auto", "low", "medium", "high")
_FIXED_SIZES: Final = SizeList(("auto", "1024x1024", "1536x1024", "1024x1536"))


def _quality(*more: str) -> Choice:
    return Choice(values=(*_QUALITIES, *more), nearest={"standard": "auto", "hd": "high"})


_OPTIONS: Final[Mapping[str, OptionRule]] = {
    "size": SizeGrid(step=16, max_side=3840, min_pixels=655_360, max_pixels=8_294_400, max_ratio=3),
    "quality": _quality(),
    "background": Choice(values=("auto", "opaque", "transparent")),
    # gif and svg are restricted to some accounts and have no published price.
    "output_format": Choice(
        values=("png", "jpeg", "webp"),
        nearest={"gif": "webp", "svg": "png"},
        why=", which have a published price",
    ),
    "output_compression": Integer(least=0, most=100),
    "moderation": Choice(values=("auto", "low")),
    "stream": Flag(),
    "partial_images": Integer(least=0, most=3),
    "user": Text(),
    "safety_identifier": Text(),
}
REFERENCES: Final = ReferenceRules(
    # The guide allows masks as large as images. The API reference sets a lower limit, used here.
    source="OpenAI's image reference, November 2026",
    max_mb=50,
    mask_max_mb=4,
)
_REFUSED: Final = {
    "response_format": "remove it; the response always contains the image itself",
    "style": "remove it, and describe the style in the prompt",
}
_ALWAYS_FAITHFUL: Final = {**_REFUSED, "input_fidelity": "remove it; it is always high"}


def _gpt_image(
    model: str, options: Mapping[str, OptionRule], *, refused: Mapping[str, str]
) -> ModelRules:
    return ModelRules(
        source=f"OpenAI's image reference on {model}, November 2026",
        options={**_OPTIONS, **options},
        refused=refused,
        unknown_options=_UNKNOWN_OPTIONS,
        conditions=(
            Condition(
                option="output_compression",
                other="output_format",
                among=("jpeg", "webp"),
                default="png",
            ),
            Condition(option="partial_images", other="stream", among=(True,), default=False),
            Condition(
                option="background",
                when=("transparent",),
                other="output_format",
                among=("png", "webp"),
                default="png",
            ),
        ),
        without_references=frozenset({"moderation"}),
        with_references=frozenset({"input_fidelity"}),
        max_references=16,
        references_instead="remove some",
        references=REFERENCES,
        max_prompt_chars=32_000,
    )


def _retired(day: date, successor: str) -> Retirement:
    source = "OpenAI's deprecations page, November 2026"
    return Retirement(day=day, successor=successor, source=source)


_GPT_IMAGE_2: Final = _gpt_image(
    "gpt-image-2",
    # A transparent background was refused at launch, a preview for six weeks, then refused again.
    {"background": Choice(values=("auto", "opaque"), nearest={"transparent": "opaque"})},
    refused=_ALWAYS_FAITHFUL,
)
_GPT_IMAGE_2_5: Final = _gpt_image(
    "gpt-image-2.5", {"quality": _quality("xhigh", "max")}, refused=_ALWAYS_FAITHFUL
)
_GPT_IMAGE_2_6: Final = _gpt_image(
    "gpt-image-2.6",
    {
        "quality": _quality("xhigh", "max"),
        "complexity": Choice(values=("low", "medium", "high")),
    },
    refused=_ALWAYS_FAITHFUL,
)
_LAST_OF_1: Final = _retired(date(2026, 12, 1), "gpt-image-2.6-sunburst")
_GPT_IMAGE_1_5: Final = replace(
    _gpt_image(
        "gpt-image-1.5",
        {"size": _FIXED_SIZES, "input_fidelity": Choice(values=("low", "high"))},
        refused=_REFUSED,
    ),
    retirement=_LAST_OF_1,
)
_GPT_IMAGE_1_MINI: Final = replace(
    _gpt_image(
        "gpt-image-1-mini",
        {"size": _FIXED_SIZES, "input_fidelity": Choice(values=("low",))},
        refused=_REFUSED,
    ),
    retirement=_retired(date(2026, 12, 1), "gpt-image-2.6-flare"),
)
_GPT_IMAGE_1: Final = replace(
    _GPT_IMAGE_1_5,
    source="OpenAI's image reference on gpt-image-1, November 2026",
    retirement=_retired(date(2026, 10, 23), "gpt-image-2.6-sunburst"),
)
_DALL_E_3: Final = ModelRules(
    source="OpenAI's image reference on dall-e-3, August 2026",
    options={
        "size": SizeList(("1024x1024", "1792x1024", "1024x1792")),
        "quality": Choice(values=("standard", "hd")),
        "style": Choice(values=("vivid", "natural")),
        "response_format": Choice(values=("url", "b64_json")),
        "user": Text(),
    },
    unknown_options=_UNKNOWN_OPTIONS,
    max_prompt_chars=4_000,
    retirement=_retired(date(2026, 5, 12), "gpt-image-2"),
)
_DALL_E_2: Final = ModelRules(
    source="OpenAI's image reference on dall-e-2, August 2026",
    options={
        "size": SizeList(("256x256", "512x512", "1024x1024")),
        "response_format": Choice(values=("url", "b64_json")),
        "user": Text(),
    },
    unknown_options=_UNKNOWN_OPTIONS,
    max_references=1,
    references_instead="remove the others",
    references=replace(REFERENCES, formats=(ImageFormat.PNG,), max_mb=4),
    max_prompt_chars=1_000,
    retirement=_retired(date(2026, 5, 12), "gpt-image-2"),
)

MODELS: Final[Mapping[str, ModelRules]] = {
    "gpt-image-2": _GPT_IMAGE_2,
    "gpt-image-2-2026-04-21": _GPT_IMAGE_2,
    "gpt-image-2.5-sunburst": _GPT_IMAGE_2_5,
    "gpt-image-2.5-sunburst-2026-09-08": _GPT_IMAGE_2_5,
    "gpt-image-2.5-flare": _GPT_IMAGE_2_5,
    "gpt-image-2.5-flare-2026-09-08": _GPT_IMAGE_2_5,
    "gpt-image-2.6-sunburst": _GPT_IMAGE_2_6,
    "gpt-image-2.6-flare": _GPT_IMAGE_2_6,
    "gpt-image-1.5": _GPT_IMAGE_1_5,
    "gpt-image-1-mini": _GPT_IMAGE_1_MINI,
    "chatgpt-image-latest": _GPT_IMAGE_1_5,
    "gpt-image-1": _GPT_IMAGE_1,
    "dall-e-3": _DALL_E_3,
    "dall-e-2": _DALL_E_2,
}
"""Snapshots have the rules of their model."""

OPENAI: Final = Profile(
    name="openai",
    base_url="https://api.openai.com/v1",
    key_variable="OPENAI_API_KEY",
    models=MODELS,
    prices=PriceList(
        models=OPENAI_TOKEN_PRICES,
        source="estimate from OpenAI's token prices of 2026-11-22",
        day=date(2026, 11, 22),
    ),
)
