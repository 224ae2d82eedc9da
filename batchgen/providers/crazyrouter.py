"""Crazyrouter: models, rules and prices.

Sources: https://docs.crazyrouter.com/en/api-endpoint (base URLs),
https://docs.crazyrouter.com/images/gpt-image and its sibling pages (options),
https://crazyrouter.com/guide/gpt-image-2-api (price list). Crazyrouter runs a fork of new-api
(https://github.com/QuantumNous/new-api).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Final

from batchgen.money import Micros
from batchgen.providers.adapters.registry import Route
from batchgen.providers.openai import REFERENCES
from batchgen.providers.price_list import ModelPrice, PriceList, Rate, Unit
from batchgen.providers.profile import AccountLog, Profile
from batchgen.providers.rules.model_rules import Condition, ModelRules
from batchgen.providers.rules.option_rules import (
    AspectRatio,
    Choice,
    Flag,
    ImageUrl,
    Integer,
    Number,
    Text,
)
from batchgen.providers.rules.size_rules import AnySize, SizeGrid

_UNKNOWN_OPTIONS: Final = "the provider ignores unknown options and charges for the image"


def _images(*rates: tuple[str, str, int, bool]) -> ModelPrice:
    """Return rates by (bucket, resolution, micros per image, verified by the price list)."""
    return ModelPrice(
        unit=Unit.IMAGE,
        rates=tuple(
            Rate(bucket=bucket, resolution=resolution, amount=Micros(amount), verified=verified)
            for bucket, resolution, amount, verified in rates
        ),
    )


def _image(micros: int) -> ModelPrice:
    return ModelPrice(unit=Unit.IMAGE, rates=(Rate(amount=Micros(micros)),))


def _veo(*, silent: int, audio: int, silent_4k: int, audio_4k: int) -> ModelPrice:
    """Return rates in micros per second; the list verifies silent video from text or one image."""
    return ModelPrice(
        unit=Unit.SECOND,
        rates=tuple(
            Rate(
                bucket=bucket,
                resolution=resolution,
                audio=sound,
                amount=Micros(amounts[sound]),
                verified=bucket in ("t2v", "i2v") and resolution != "4k" and not sound,
            )
            for bucket in ("t2v", "i2v", "start_end", "reference")
            for resolution, amounts in (
                ("720p", (silent, audio)),
                ("1080p", (silent, audio)),
                ("4k", (silent_4k, audio_4k)),
            )
            for sound in (False, True)
        ),
    )


PRICES: Final = PriceList(
    source="public price list of 2026-06-06",
    day=date(2026, 6, 6),
    models={
        "gpt-image-2": _image(37_700),
        "grok-4-image": _image(44_000),
        "qwen-image-plus": _image(28_571),
        "qwen-image-2.0": _image(28_571),
        "qwen-image-max": _image(71_429),
        "nano-banana": _images(
            ("t2i", "1k", 21_450, False),
            ("i2i", "1k", 21_450, True),
            ("reference", "1k", 21_450, True),
        ),
        "nano-banana-2": _images(
            ("t2i", "1k", 36_850, False),
            ("t2i", "2k", 55_550, False),
            ("t2i", "4k", 82_500, False),
            ("i2i", "1k", 36_850, True),
            ("i2i", "2k", 55_550, True),
            ("i2i", "4k", 82_500, False),
            ("reference", "1k", 36_850, True),
            ("reference", "2k", 55_550, False),
            ("reference", "4k", 82_500, False),
        ),
        "nano-banana-pro": _images(
            ("t2i", "1k", 73_700, False),
            ("t2i", "2k", 73_700, False),
            ("t2i", "4k", 132_000, False),
            ("i2i", "1k", 73_700, True),
            ("i2i", "2k", 73_700, False),
            ("i2i", "4k", 132_000, True),
            ("reference", "1k", 73_700, True),
            ("reference", "2k", 73_700, False),
            ("reference", "4k", 132_000, False),
        ),
        "veo-3.1": _veo(silent=200_000, audio=400_000, silent_4k=400_000, audio_4k=600_000),
        "veo-3.1-fast": _veo(silent=100_000, audio=150_000, silent_4k=300_000, audio_4k=350_000),
    },
)
"""``platform_base_price`` or ``model_price`` times ``discount`` of the provider's price list."""

GPT_IMAGE_2: Final = ModelRules(
    source="Crazyrouter's page on gpt-image-2, June 2026",
    options={
        "size": SizeGrid(
            step=16, max_side=3840, min_pixels=655_360, max_pixels=8_294_400, max_ratio=3
        ),
        "quality": Choice(
            values=("auto", "low", "medium", "high", "hd"), nearest={"standard": "auto"}
        ),
        "background": Choice(values=("auto", "opaque"), nearest={"transparent": "opaque"}),
        "output_format": Choice(values=("png", "jpeg", "webp")),
        "output_compression": Integer(least=0, most=100),
        "moderation": Choice(values=("auto", "low")),
        "stream": Flag(),
        "partial_images": Integer(least=0, most=3),
        "user": Text(),
    },
    refused={
        "response_format": "remove it; output_format selects png, jpeg or webp",
        "style": "remove it, and describe the style in the prompt",
        "input_fidelity": "remove it",
    },
    unknown_options=_UNKNOWN_OPTIONS,
    conditions=(
        Condition(
            option="output_compression",
            other="output_format",
            among=("jpeg", "webp"),
            default="png",
        ),
        Condition(option="partial_images", other="stream", among=(True,), default=False),
    ),
    without_references=frozenset({"moderation"}),
    max_references=16,
    references_instead="remove some",
    references=REFERENCES,
    max_prompt_chars=32_000,
)
"""The strict list of early June 2026. Newer pages accept ``response_format``, ``style`` and
``quality: standard`` without passing them on, which helps no user."""

_GROK_4_IMAGE: Final = ModelRules(
    source="Crazyrouter's page on Grok images, June 2026",
    options={
        "aspect_ratio": AspectRatio(),
        "resolution": Choice(values=("1k", "2k")),
        "response_format": Choice(values=("url",), nearest={"b64_json": "url"}),
    },
    refused={
        "size": "use aspect_ratio and resolution",
        "quality": "use resolution",
        "style": "remove it, and describe the style in the prompt",
    },
    unknown_options=_UNKNOWN_OPTIONS,
    references_instead="it generates from text only; remove images:",
)

_QWEN_IMAGE: Final = ModelRules(
    source="Crazyrouter's page on Qwen images, June 2026",
    options={"size": AnySize(), "response_format": Choice(values=("url", "b64_json"))},
    unknown_options=_UNKNOWN_OPTIONS,
    references_instead="it generates from text only; remove images:",
)


_NANO_BANANA: Final = ModelRules(
    source="Crazyrouter's pages on nano-banana, May 2026",
    options={
        "image_input": ImageUrl(),
        "resolution": Choice(values=("1K", "2K", "4K")),
        "aspect_ratio": AspectRatio(),
        "output_format": Choice(values=("png", "jpeg", "jpg")),
        "output_compression": Integer(least=0, most=100),
    },
    refused={
        "size": "use aspect_ratio and resolution",
        "generationConfig": "use aspect_ratio and resolution",
        "imageConfig": "use aspect_ratio and resolution",
        "imageOutputOptions": "use output_format and output_compression",
    },
    unknown_options=_UNKNOWN_OPTIONS,
    references_instead="upload the image and set the option image_input to its URL",
)
"""The Images route, which the newer pages recommend for these models:
https://docs.crazyrouter.com/images/nano-banana"""

_NANO_BANANA_NATIVE: Final = ModelRules(
    source="Crazyrouter's page on Gemini images, June 2026",
    options={
        "aspect_ratio": AspectRatio(),
        "resolution": Choice(values=("1K", "2K", "4K")),
        "temperature": Number(least=0, most=2),
        "seed": Integer(least=0, most=2**31 - 1),
    },
    refused={
        "size": "use aspect_ratio and resolution",
        "output_format": "remove it; the model decides",
        "image_input": "list the file under images:",
    },
    unknown_options="generateContent refuses unknown options",
    max_references=14,
    references_instead="remove some",
)
"""Native ``generateContent``, for keys for which the Images route fails:
https://docs.crazyrouter.com/en/chat/gemini/image-gen"""

_VEO: Final = ModelRules(
    source="Crazyrouter's page on Veo, June 2026",
    options={
        "aspect_ratio": Choice(values=("16:9", "9:16")),
        "size": Choice(
            values=("720P", "1080P"), nearest={"1280x720": "720P", "1920x1080": "1080P"}
        ),
        "duration": Integer(least=1, most=60),
        "images": ImageUrl(),
    },
    unknown_options=_UNKNOWN_OPTIONS,
    references_instead="upload the image and set the option images to its URL",
)

MODELS: Final[Mapping[str, ModelRules]] = {
    "gpt-image-2": GPT_IMAGE_2,
    "grok-4-image": _GROK_4_IMAGE,
    "qwen-image-plus": _QWEN_IMAGE,
    "qwen-image-max": _QWEN_IMAGE,
    "qwen-image-2.0": _QWEN_IMAGE,
    "nano-banana": _NANO_BANANA,
    "nano-banana-2": _NANO_BANANA,
    "nano-banana-pro": _NANO_BANANA,
    "veo-3.1": _VEO,
    "veo-3.1-fast": _VEO,
}

ROUTES: Final[Mapping[str, Route]] = {"veo-3.1": Route.VIDEO, "veo-3.1-fast": Route.VIDEO}
ROUTE_MODELS: Final[Mapping[Route, Mapping[str, ModelRules]]] = {
    Route.GEMINI: dict.fromkeys(
        ("nano-banana", "nano-banana-2", "nano-banana-pro"), _NANO_BANANA_NATIVE
    )
}

CRAZYROUTER: Final = Profile(
    name="crazyrouter",
    base_url="https://cn.crazyrouter.com/v1",
    key_variable="CRAZYROUTER_API_KEY",
    models=MODELS,
    routes=ROUTES,
    route_models=ROUTE_MODELS,
    prices=PRICES,
    price_route="/api/pricing",
    account_log=AccountLog(
        token_variable="CRAZYROUTER_ACCESS_TOKEN", user_variable="CRAZYROUTER_USER_ID"
    ),
)
