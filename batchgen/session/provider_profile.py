"""Resolve the provider that a manifest names or describes to a profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from batchgen.errors import SettingsError
from batchgen.job import Billed
from batchgen.money import Micros, parse_dollars
from batchgen.session.provider_network import resolve_network
from batchgen.urls import check_base_url

if TYPE_CHECKING:
    from batchgen.manifest.model import ProviderSpec
    from batchgen.providers.profile import Profile
    from batchgen.session.settings import Environment


def resolve_profile(
    provider: str | ProviderSpec, environment: Environment, directory: Path | None = None
) -> Profile:
    """Return the profile that a manifest's ``provider`` names or describes, with its network.

    ``directory`` is the manifest's; ``ca_file`` is relative to it. A mapping overrides fields of
    the built-in provider it names. Raises SettingsError.
    """
    # Importing providers loads HTTP and pydantic, which takes 200 ms that commands on the ledger
    # alone should not pay.
    from batchgen.providers.adapters.registry import Route

    given = {} if isinstance(provider, str) else _expanded(provider, environment)
    network = resolve_network(given, environment, directory or Path())
    if isinstance(provider, str):
        profile = _built_in(provider)
        return profile if network == profile.network else replace(profile, network=network)
    profile = _base_profile(given)
    changes: dict[str, Any] = {
        field: convert(given[key]) for key, (field, convert) in _FIELDS.items() if key in given
    }
    if "base_url" in given:
        changes["moves_results"] = False
    routes = {model: Route(route) for model, route in (provider.routes or {}).items()}
    return replace(
        profile,
        **changes,
        routes={**profile.routes, **routes},
        replays_idempotency_key=given.get("idempotency") == "replay",
        network=network,
    )


def _expanded(provider: ProviderSpec, environment: Environment) -> dict[str, str]:
    """Return the fields that a manifest sets, with their environment variables expanded."""
    given = {
        name: environment.expand(str(value), f"provider.{name}")
        for name, value in provider.model_dump(exclude={"routes", "insecure_http"}).items()
        if value is not None
    }
    if "base_url" in given:
        try:
            insecure_http = provider.insecure_http
            given["base_url"] = check_base_url(given["base_url"], insecure_http=insecure_http)
        except ValueError as exc:
            raise SettingsError(f"provider.base_url: {exc}") from exc
    return given


def _base_profile(given: Mapping[str, str]) -> Profile:
    """Return the profile that the fields of a manifest override: a built-in or a new one."""
    from batchgen.providers.profile import Profile
    from batchgen.providers.registry import PROFILES

    name, base_url = given.get("name"), given.get("base_url")
    if name is not None and name in PROFILES:
        return PROFILES[name]
    if base_url is None:
        if name:
            return _built_in(name)
        raise SettingsError("provider: base_url or the name of a built-in provider is required")
    return Profile(
        name=name or urlsplit(base_url).netloc or "endpoint",
        base_url=base_url,
        key_variable=None,
        # It is unknown what this endpoint charges for: a proxy may fail after its provider
        # charged for the image.
        server_errors_billed=Billed.MAYBE,
    )


def _price(text: str) -> Micros:
    try:
        return parse_dollars(text)
    except ValueError as exc:
        raise SettingsError(f"provider.price: {exc}") from exc


_BILLED: Final = {"free": Billed.NO, "maybe": Billed.MAYBE, "billed": Billed.YES}
_FIELDS: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "base_url": ("base_url", str),
    "api_key_env": ("key_variable", str),
    "price": ("flat_price", _price),
    "server_errors": ("server_errors_billed", _BILLED.__getitem__),
    "refusals": ("refusals_billed", _BILLED.__getitem__),
}
"""Keys of ``provider`` in a manifest: the field of the profile, and how to convert the text."""


def _built_in(name: str) -> Profile:
    """Return a built-in profile. Raises SettingsError for an unknown name."""
    from batchgen.providers.registry import PROFILES

    if name not in PROFILES:
        known = ", ".join(PROFILES)
        raise SettingsError(
            f"provider: unknown provider {name!r}; expected {known}, or a mapping with base_url and"
            " api_key_env"
        )
    return PROFILES[name]
