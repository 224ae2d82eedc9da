"""Fetch what an endpoint publishes for free: its price list, models, and an account's log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import anyio
import httpx

from batchgen.http.content_coding import BadCoding, BodyTooLarge, read_decoded
from batchgen.http.dns import look_up
from batchgen.http.network_settings import NetworkSettings
from batchgen.http.session import no_cookies, open_network, without_logs
from batchgen.http.transport import StreamTransport
from batchgen.spool.redaction import Redactor, redacted

TIMEOUT_S: Final = 10.0
MAX_BYTES: Final = 8 * 1024 * 1024
PATIENCE_S: Final = 20.0
"""Wait after a 429 for an account's page: new-api allows 180 requests in 180 s per IP address."""
_MAX_WAITS: Final = 12
_MAX_NAME_CHARS: Final = 200
_DIRECT: Final = NetworkSettings()


class Unavailable(Exception):
    """The document cannot be fetched. ``status`` is the HTTP status; None without a response."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, order=True)
class OfferedModel:
    """A model that a key may use."""

    name: str
    shutdown_date: str | None = None
    """``YYYY-MM-DD``; None if the endpoint announces no end."""


async def fetch_price_list(url: str, network: NetworkSettings = _DIRECT) -> bytes:
    """Fetch a price list without sending a key. Raises Unavailable and SettingsError."""
    return await _get(url, {}, network)


async def fetch_models(
    base_url: str, key: str | None, network: NetworkSettings = _DIRECT
) -> list[OfferedModel]:
    """Fetch ``GET /v1/models`` with the key, by name. Raises Unavailable and SettingsError."""
    url = f"{base_url}/models"
    body = await _get(url, _bearer(key) if key is not None else {}, network)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Unavailable(f"{url}: the response is not JSON") from None
    items = document.get("data") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise Unavailable(f"{url}: the response is not a list of models")
    found = {
        item["id"]: OfferedModel(item["id"], _day(item.get("shutdown_date")))
        for item in items
        if isinstance(item, dict) and _is_name(item.get("id"))
    }
    return sorted(found.values(), key=lambda model: model.name)


async def fetch_account(
    url: str, token: str, user: str, network: NetworkSettings = _DIRECT
) -> bytes:
    """Fetch a page of an account with its access token. Raises Unavailable and SettingsError."""
    headers = _bearer(token) | {"New-Api-User": user}
    for _ in range(_MAX_WAITS):
        try:
            return await _get(url, headers, network)
        except Unavailable as exc:
            if exc.status != 429:
                raise
        await anyio.sleep(PATIENCE_S)
    return await _get(url, headers, network)


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= _MAX_NAME_CHARS


def _day(value: object) -> str | None:
    return value if isinstance(value, str) and value.isprintable() and len(value) == 10 else None


async def _get(url: str, identity: Mapping[str, str], network: NetworkSettings) -> bytes:
    """Fetch one document within ``TIMEOUT_S`` without following redirects.

    ``identity`` contains the headers that authenticate the request.
    """
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "batchgen",
        **identity,
    }
    redactor = Redactor.of(identity.get("Authorization", "").removeprefix("Bearer "))
    try:
        with anyio.fail_after(TIMEOUT_S), without_logs():
            transport = StreamTransport(network=open_network(network), resolve=look_up)
            async with (
                httpx.AsyncClient(
                    headers=headers,
                    cookies=no_cookies(),
                    transport=transport,
                    trust_env=False,
                    follow_redirects=False,
                    timeout=None,
                ) as client,
                client.stream("GET", url) as response,
            ):
                body = await _receive(url, response)
                return body if redactor is None else redactor.data(body)
    except TimeoutError:
        raise Unavailable(f"{url}: no complete response within {TIMEOUT_S:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
        detail = str(exc) or type(exc).__name__  # may repeat text from the server
        raise Unavailable(f"{url}: {redacted(detail, redactor)}") from None


async def _receive(url: str, response: httpx.Response) -> bytes:
    if response.status_code != 200:
        raise Unavailable(f"{url}: HTTP {response.status_code}", response.status_code)
    coding = response.headers.get("content-encoding", "")
    try:
        return await read_decoded(response.aiter_raw(), coding, MAX_BYTES)
    except BodyTooLarge:
        raise Unavailable(f"{url}: the response is larger than {MAX_BYTES >> 20} MiB") from None
    except BadCoding as exc:
        raise Unavailable(f"{url}: {exc}") from None
