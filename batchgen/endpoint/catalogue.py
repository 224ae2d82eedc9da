"""The public documents about models and prices, in the shapes the provider publishes."""

from __future__ import annotations

from decimal import Decimal

from batchgen.endpoint.bill import MICROS_PER_DOLLAR
from batchgen.endpoint.rules import MODEL

STANDARD_PRICE = 37_700
"""Micros an image of gpt-image-2 costs: $0.058 at a discount factor of 0.65."""

_PLACEHOLDER_CREATED = 1626777600
"""What stock new-api says of models it knows no date of."""


def model_list() -> dict[str, object]:
    """The answer of GET /v1/models."""
    model = {
        "id": MODEL,
        "object": "model",
        "created": _PLACEHOLDER_CREATED,
        "owned_by": "custom",
        "supported_endpoint_types": ["image-generation", "openai"],
    }
    return {"success": True, "object": "list", "data": [model]}


def price_list(price: int) -> dict[str, object]:
    """The answer of GET /api/pricing when an image of gpt-image-2 costs `price` micros.

    Shape: crazyrouter sheet, 9.1. The other rows are there because a reader of `model_price`
    alone would take them for free, or for an image model.
    """
    standard = price == STANDARD_PRICE
    gpt_image = _row(
        MODEL,
        vendor_id=4,
        quota_type=1,
        model_price=0.058 if standard else float(Decimal(price) / MICROS_PER_DOLLAR),
        discount=0.65 if standard else 1,
        enable_groups=["default", "aiart-test"],
        supported_endpoint_types=["image-generation", "openai"],
        public_endpoint_types=["image-generation"],
    )
    return {
        "success": True,
        "data": [gpt_image, _nano_banana(), _text_model()],
        "group_ratio": {"default": 1},
        "usable_group": {"default": "default"},
        "auto_groups": ["default"],
        "supported_endpoint": {
            "image-generation": {"path": "/v1/images/generations", "method": "POST"},
            "openai": {"path": "/v1/chat/completions", "method": "POST"},
        },
        "vendors": [
            {"id": 4, "name": "OpenAI", "icon": "OpenAI"},
            {"id": 5, "name": "Google", "icon": "Gemini.Color"},
        ],
        "popular_models": [MODEL],
    }


def _nano_banana() -> dict[str, object]:
    rule = {
        "rule_id": "nano-banana-t2i-1k",
        "model_name": "nano-banana",
        "capability_bucket": "t2i",
        "resolution": "1K",
        "official_price": 0.039,
        "official_currency": "USD",
        "official_price_usd": 0.039,
        "platform_base_price": 0.039,
        "platform_currency": "USD",
        "verification_status": "verified",
    }
    return _row(
        "nano-banana",
        vendor_id=5,
        quota_type=0,
        model_price=0,
        discount=0.55,
        enable_groups=["default"],
        supported_endpoint_types=["image-generation", "gemini"],
        public_endpoint_types=["image-generation"],
        billing_mode="per_image",
        display_unit="/图",
        image_pricing={"profile": {"model_name": "nano-banana"}, "rules": [rule]},
    )


def _text_model() -> dict[str, object]:
    return _row(
        "gpt-5.1",
        vendor_id=4,
        quota_type=0,
        model_price=0,
        model_ratio=0.625,
        completion_ratio=8,
        discount=0.55,
        enable_groups=["default"],
        supported_endpoint_types=["openai"],
        public_endpoint_types=["openai"],
    )


def _row(model_name: str, **columns: object) -> dict[str, object]:
    return {
        "model_name": model_name,
        "model_ratio": 0,
        "completion_ratio": 0,
        "owner_by": "",
        **columns,
    }
