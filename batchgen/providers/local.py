"""The embedded endpoint: no key, no account, no cent. It writes its prices on its own bill."""

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
    # It is as strict as the gateway that it plays.
    models=MODELS,
    routes=ROUTES,
    route_models=ROUTE_MODELS,
    # It bills as the gateway does that it plays; on its own it publishes what it was started with.
    prices=replace(PRICES, source="play money of the embedded endpoint"),
    price_route="/api/pricing",
    account_log=AccountLog(open_token="embedded", open_user="1"),
    is_local=True,
    moves_results=True,
)
