"""The public lists of models and prices, in the form that the provider publishes."""

from __future__ import annotations

from decimal import Decimal

from batchgen.simulator.billing import MICROS_PER_DOLLAR
from batchgen.simulator.models import grok, nano_banana, qwen, registry, veo
from batchgen.simulator.models.rules import MODEL
from batchgen.simulator.models.tariffs import PriceRule, Tariff

STANDARD_PRICE = 37_700
"""Micro-dollars per image of gpt-image-2: $0.058 at a discount factor of 0.65."""

_PLACEHOLDER_CREATED = 1626777600
"""The creation time that stock new-api gives models without a known one."""

_OPENAI, _ALIBABA, _XAI, _GOOGLE = 4, 5, 10, 31
_VENDORS = [
    {"id": _OPENAI, "name": "OpenAI", "icon": "OpenAI"},
    {"id": _ALIBABA, "name": "Alibaba", "icon": "Qwen.Color"},
    {"id": _XAI, "name": "xAI", "icon": "XAI"},
    {"id": _GOOGLE, "name": "Google", "icon": "Gemini.Color"},
]
_ENDPOINTS = {
    "image-generation": {"path": "/v1/images/generations", "method": "POST"},
    "openai": {"path": "/v1/chat/completions", "method": "POST"},
    "gemini": {"path": "/v1beta/models/{model}:generateContent", "method": "POST"},
    "unified-video": {"path": "/v1/video/create", "method": "POST"},
}


def model_list() -> dict[str, object]:
    """Return the response of GET /v1/models."""
    names = (*registry.READERS, *veo.TARIFFS)
    return {"success": True, "object": "list", "data": [_model(name) for name in names]}


def _model(name: str) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": _PLACEHOLDER_CREATED,
        "owned_by": "custom",
        "supported_endpoint_types": _endpoint_types(name),
    }


def _endpoint_types(name: str) -> list[str]:
    if name in veo.TARIFFS:
        return ["gemini", "openai"]
    also = ["gemini"] if name in nano_banana.FAMILY else []
    return ["image-generation", "openai", *also]


def price_list(price: int) -> dict[str, object]:
    """Return the response of GET /api/pricing if an image of gpt-image-2 costs `price`
    micro-dollars.

    The list is shaped like https://crazyrouter.com/api/pricing. It includes a text model, which a
    client that reads only `model_price` would take for an image model, or for a free one.
    """
    families = (
        *(_nano_banana(name) for name in nano_banana.FAMILY),
        *(_qwen(name) for name in qwen.TARIFFS),
        *(_veo(name) for name in veo.TARIFFS),
    )
    return {
        "success": True,
        "data": [_gpt_image(price), _grok(), *families, _text_model()],
        "group_ratio": {"default": 1},
        "usable_group": {"default": "default"},
        "auto_groups": ["default"],
        "supported_endpoint": _ENDPOINTS,
        "vendors": _VENDORS,
        "popular_models": [MODEL],
    }


def _gpt_image(price: int) -> dict[str, object]:
    standard = price == STANDARD_PRICE
    return _row(
        MODEL,
        vendor_id=_OPENAI,
        quota_type=1,
        model_price=0.058 if standard else float(Decimal(price) / MICROS_PER_DOLLAR),
        discount=0.65 if standard else 1,
        enable_groups=["default", "aiart-test"],
    )


def _grok() -> dict[str, object]:
    return _row(
        grok.MODEL,
        vendor_id=_XAI,
        quota_type=1,
        model_price=float(grok.TARIFF.flat or 0),
        discount=float(grok.TARIFF.discount),
        release_date="2025-07-09",
        series="grok-4",
    )


def _qwen(name: str) -> dict[str, object]:
    return _row(name, vendor_id=_ALIBABA, quota_type=1, **_by_image(name, qwen.TARIFFS[name]))


def _nano_banana(name: str) -> dict[str, object]:
    return _row(
        name,
        vendor_id=_GOOGLE,
        # The real list has 0, which usually means per token, for the first model of the family.
        quota_type=0 if name == "nano-banana" else 1,
        series="nano-banana",
        **_by_image(name, nano_banana.FAMILY[name].tariff),
    )


def _veo(name: str) -> dict[str, object]:
    tariff = veo.TARIFFS[name]
    maker_name = f"{name}-generate-001"
    profile = {
        "model_name": maker_name,
        "default_platform_billing_mode": "per_second",
        "supported_capability_buckets": list(dict.fromkeys(rule.bucket for rule in tariff.rules)),
        "pricing_dimensions": ["resolution", "audio"],
        "display_unit": "/秒",
    }
    return _row(
        name,
        vendor_id=_GOOGLE,
        quota_type=1,
        discount=float(tariff.discount),
        public_endpoint_types=["unified-video"],
        billing_mode="per_second",
        display_unit="/秒",
        video_pricing={
            "profile": profile,
            "rules": [_video_rule(maker_name, rule) for rule in tariff.rules],
        },
    )


def _video_rule(name: str, rule: PriceRule) -> dict[str, object]:
    key = f"{name}:{rule.bucket}:{rule.resolution}:audio{int(bool(rule.audio))}"
    document: dict[str, object] = {
        "rule_id": key,
        "model_name": name,
        "capability_bucket": rule.bucket,
        "resolution": rule.resolution,
        "has_audio": rule.audio,
        "billing_key": key,
        "status": "enabled",
    }
    return document | _amounts(rule)


def _by_image(name: str, tariff: Tariff) -> dict[str, object]:
    """Return the columns of a model whose prices are in its rules."""
    buckets = list(dict.fromkeys(rule.bucket for rule in tariff.rules))
    profile = {
        "model_name": name,
        "default_platform_billing_mode": "per_image",
        "supported_capability_buckets": buckets,
        "display_unit": "/图",
    }
    return {
        "discount": float(tariff.discount),
        "billing_mode": "per_image",
        "display_unit": "/图",
        "image_pricing": {
            "profile": profile,
            "rules": [_image_rule(name, rule) for rule in tariff.rules],
        },
    }


def _image_rule(name: str, rule: PriceRule) -> dict[str, object]:
    tier = rule.resolution.lower() or "per_image"
    document: dict[str, object] = {
        "rule_id": f"{name}:{rule.bucket}:{tier}",
        "model_name": name,
        "capability_bucket": rule.bucket,
    }
    if rule.resolution:
        document["resolution"] = rule.resolution
    if rule.references:
        document["reference_count_bucket"] = rule.references
    return document | _amounts(rule)


def _amounts(rule: PriceRule) -> dict[str, object]:
    dollars = float(rule.dollars)
    return {
        "official_price": dollars if rule.yuan is None else float(rule.yuan),
        "official_currency": "USD" if rule.yuan is None else "CNY",
        "official_price_usd": dollars,
        "platform_base_price": dollars,
        "platform_currency": "USD",
        "verification_status": "verified" if rule.verified else "beta",
    }


def _text_model() -> dict[str, object]:
    return _row(
        "gpt-5.1",
        vendor_id=_OPENAI,
        quota_type=0,
        model_ratio=0.625,
        completion_ratio=8,
        discount=0.55,
        supported_endpoint_types=["openai"],
        public_endpoint_types=["openai"],
    )


def _row(model_name: str, **columns: object) -> dict[str, object]:
    return {
        "model_name": model_name,
        "model_ratio": 0,
        "model_price": 0,
        "completion_ratio": 0,
        "owner_by": "",
        "enable_groups": ["default"],
        "supported_endpoint_types": _endpoint_types(model_name),
        "public_endpoint_types": ["image-generation"],
        **columns,
    }
