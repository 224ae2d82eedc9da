"""Crazyrouter, the gateway batchgen was first made for (provider sheet, sections 1, 8 and 9)."""

from __future__ import annotations

from typing import Final

from batchgen.money import Micros
from batchgen.providers.profile import Profile

CRAZYROUTER: Final = Profile(
    name="crazyrouter",
    base_url="https://cn.crazyrouter.com/v1",
    key_variable="CRAZYROUTER_API_KEY",
    # base x discount of the public list; its flat rows only, since the others depend on options
    prices={"gpt-image-2": Micros(37_700), "grok-4-image": Micros(44_000)},
    price_source="public price list of 2026-06-06",
)
