"""Resolve how a provider is reached: proxy, certificates and private hosts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from batchgen.errors import SettingsError
from batchgen.http.network_settings import NetworkSettings, Proxy
from batchgen.urls import is_loopback

if TYPE_CHECKING:
    from batchgen.session.settings import Environment


def resolve_network(
    given: Mapping[str, str], environment: Environment, directory: Path
) -> NetworkSettings:
    """Return the network settings of a provider.

    ``given`` are the fields of the manifest's ``provider``, which precede the environment. Raises
    SettingsError.
    """
    return NetworkSettings(
        proxy=_proxy(given, environment),
        ca_file=_ca_file(given, environment, directory),
        system_trust=given.get("trust_store") == "system",
        keep_alive=given.get("keep_alive") != str(False),
        private_host=_private_host(given.get("base_url", "")),
    )


def _proxy(given: Mapping[str, str], environment: Environment) -> Proxy | None:
    where, url = "provider.proxy", given.get("proxy")
    if url is None:
        where, url = "BATCHGEN_PROXY", environment.proxy
    if url is None:
        return None
    try:
        return Proxy.parse(url)
    except ValueError as exc:
        raise SettingsError(f"{where}: {exc}") from exc


def _ca_file(given: Mapping[str, str], environment: Environment, directory: Path) -> Path | None:
    where, path = "BATCHGEN_CA_FILE", environment.ca_file
    if "ca_file" in given:
        where, path = "provider.ca_file", directory / Path(given["ca_file"]).expanduser()
    if path is not None and not path.is_file():
        raise SettingsError(f"{where}: {path}: not a file; expected PEM certificates")
    return path


def _private_host(base_url: str) -> str | None:
    """Return the host of an http:// base URL, which was checked to be private."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    return host if parts.scheme == "http" and not is_loopback(host) else None
