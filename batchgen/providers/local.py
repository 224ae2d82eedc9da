"""The embedded endpoint: no key, no account, no cent. It writes its prices on its own bill."""

from __future__ import annotations

from typing import Final

from batchgen.money import Micros
from batchgen.providers.profile import Profile

LOCAL: Final = Profile(
    name="local",
    base_url=None,
    key_variable=None,
    open_key="sk-embedded",
    flat_price=Micros(37_700),
    price_source="play money of the embedded endpoint",
    moves_results=True,
)
