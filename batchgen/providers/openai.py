"""OpenAI's own Images API. It bills by tokens, so prices are estimates."""

from __future__ import annotations

from datetime import date
from typing import Final

from batchgen.providers.prices import PriceList
from batchgen.providers.profile import Profile
from batchgen.providers.tokens import OPENAI_TOKEN_PRICES

OPENAI: Final = Profile(
    name="openai",
    base_url="https://api.openai.com/v1",
    key_variable="OPENAI_API_KEY",
    prices=PriceList(
        models=OPENAI_TOKEN_PRICES,
        source="estimate by OpenAI's token prices of 2026-11-22",
        day=date(2026, 11, 22),
    ),
)
