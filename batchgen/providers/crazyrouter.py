"""Crazyrouter, the gateway batchgen was first made for (provider sheet, sections 1, 8 and 9)."""

from __future__ import annotations

from datetime import date
from typing import Final

from batchgen.money import Micros
from batchgen.providers.prices import ModelPrice, PriceList, Rate, Unit
from batchgen.providers.profile import Profile


def _pictures(*rates: tuple[str, str, int, bool]) -> ModelPrice:
    """Rates by bucket and resolution, in micros an image; whether the list calls it verified."""
    return ModelPrice(
        unit=Unit.IMAGE,
        rates=tuple(
            Rate(bucket=bucket, resolution=resolution, amount=Micros(amount), verified=verified)
            for bucket, resolution, amount, verified in rates
        ),
    )


def _picture(micros: int) -> ModelPrice:
    return ModelPrice(unit=Unit.IMAGE, rates=(Rate(amount=Micros(micros)),))


def _veo(*, silent: int, audio: int, silent_4k: int, audio_4k: int) -> ModelPrice:
    """Micros a second; the list verifies plain text and one picture to silent video."""
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
        "gpt-image-2": _picture(37_700),
        "grok-4-image": _picture(44_000),
        "qwen-image-plus": _picture(28_571),
        "qwen-image-2.0": _picture(28_571),
        "qwen-image-max": _picture(71_429),
        "nano-banana": _pictures(
            ("t2i", "1k", 21_450, False),
            ("i2i", "1k", 21_450, True),
            ("reference", "1k", 21_450, True),
        ),
        "nano-banana-2": _pictures(
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
        "nano-banana-pro": _pictures(
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
"""base x discount of the provider's own list, for the models that batchgen speaks to."""

CRAZYROUTER: Final = Profile(
    name="crazyrouter",
    base_url="https://cn.crazyrouter.com/v1",
    key_variable="CRAZYROUTER_API_KEY",
    prices=PRICES,
    price_route="/api/pricing",
)
