"""The provider that a manifest names or describes, as a profile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from batchgen.errors import SettingsError
from batchgen.job import Billed
from batchgen.money import Micros, parse_dollars
from batchgen.urls import check_base_url

if TYPE_CHECKING:
    from batchgen.manifest.model import ProviderSpec
    from batchgen.providers.profile import Profile
    from batchgen.session.settings import Environment


def resolve_profile(provider: str | ProviderSpec, environment: Environment) -> Profile:
    """The profile that a manifest's ``provider`` names or describes. Raises SettingsError."""
    # Providers bring HTTP and pydantic, 200 ms that commands on the ledger alone should not wait.
    from batchgen.providers.adapters.registry import Route
    from batchgen.providers.profile import Profile
    from batchgen.providers.registry import PROFILES

    if isinstance(provider, str):
        return _built_in(provider)
    given = {
        name: environment.expand(str(value), f"provider.{name}")
        for name, value in provider.model_dump(exclude={"routes"}).items()
        if value is not None
    }
    if "base_url" in given:
        try:
            given["base_url"] = check_base_url(given["base_url"])
        except ValueError as exc:
            raise SettingsError(f"provider.base_url: {exc}") from exc
    name = given.get("name")
    profile = PROFILES.get(name) if name else None
    if profile is None:
        base_url = given.get("base_url")
        if base_url is None:
            if name:
                _built_in(name)
            raise SettingsError("provider: give a base_url, or the name of a built-in provider")
        profile = Profile(
            name=name or urlsplit(base_url).netloc or "endpoint",
            base_url=base_url,
            key_variable=given.get("api_key_env"),
            # Nobody has said what it bills: a proxy may fail on its own behind a paid image.
            server_errors_billed=Billed.MAYBE,
        )
    if "base_url" in given:
        profile = replace(profile, base_url=given["base_url"], moves_results=False)
    if "api_key_env" in given:
        profile = replace(profile, key_variable=given["api_key_env"])
    if "price" in given:
        profile = replace(profile, flat_price=_price(given["price"]))
    if provider.routes:
        routes = {model: Route(route) for model, route in provider.routes.items()}
        profile = replace(profile, routes={**profile.routes, **routes})
    if "server_errors" in given:
        profile = replace(profile, server_errors_billed=_BILLED[given["server_errors"]])
    if "refusals" in given:
        profile = replace(profile, refusals_billed=_BILLED[given["refusals"]])
    return replace(profile, replays_idempotency_key=given.get("idempotency") == "replay")


_BILLED: Final = {"free": Billed.NO, "maybe": Billed.MAYBE, "billed": Billed.YES}


def _price(text: str) -> Micros:
    try:
        return parse_dollars(text)
    except ValueError as exc:
        raise SettingsError(f"provider.price: {exc}") from exc


def _built_in(name: str) -> Profile:
    from batchgen.providers.registry import PROFILES

    if name not in PROFILES:
        known = ", ".join(PROFILES)
        raise SettingsError(
            f"provider: {name!r} is not built in (there are {known}); describe another as a mapping"
            " with base_url and api_key_env"
        )
    return PROFILES[name]
