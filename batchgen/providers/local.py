"""The local endpoint (simulator): no API key, account or cost. It keeps a bill of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from batchgen.providers.crazyrouter import MODELS, PRICES, ROUTE_MODELS, ROUTES
from batchgen.providers.profile import AccountLog, Profile

LOCAL: Final = Profile(
    name="local",
    base_url=None,
    key_variable=None,
    open_key="sk-embedded",
    # It is as strict as the provider that it simulates.
    models=MODELS,
    routes=ROUTES,
    route_models=ROUTE_MODELS,
    # It charges the prices of that provider; started with other prices, it publishes those.
    prices=replace(PRICES, source="simulated prices of the local endpoint"),
    price_route="/api/pricing",
    account_log=AccountLog(open_token="embedded", open_user="1"),
    is_local=True,
    moves_results=True,
)
