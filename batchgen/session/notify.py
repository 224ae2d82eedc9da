"""Notify the operator's own services that a run began or ended; their errors never end a run.

Their URLs are often secrets, so no message shows one.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import anyio
import httpx

from batchgen.http.dns import look_up
from batchgen.http.network_settings import NetworkSettings
from batchgen.http.session import open_network, without_logs
from batchgen.http.transport import StreamTransport

_WEB_TIMEOUT_S: Final = 10.0
_COMMAND_TIMEOUT_S: Final = 60.0
_DIRECT: Final = NetworkSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """How a run ended."""

    title: str
    text: str
    body: bytes
    """The report as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program with its arguments, run in a directory."""

    arguments: Sequence[str] = field(repr=False)
    directory: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A URL that takes JSON by POST."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Apprise:
    """A URL of the `apprise` package, which is an optional extra."""

    url: str = field(repr=False)


def notify(
    channel: Command | Webhook | Apprise, notice: Notice, network: NetworkSettings = _DIRECT
) -> str | None:
    """Send the notice; return what went wrong, or None if it arrived."""
    match channel:
        case Command():
            return _run(channel, notice.body)
        case Webhook(url=url):
            return _ask("POST", url, notice.body, network)
        case Apprise(url=url):
            return _apprise(url, notice)


def ping(url: str, suffix: str = "", network: NetworkSettings = _DIRECT) -> str | None:
    """Request a health check's URL, with ``/start`` or ``/fail``; return what went wrong, or
    None.
    """
    parts = urlsplit(url)
    return _ask(
        "GET", urlunsplit(parts._replace(path=parts.path.rstrip("/") + suffix)), None, network
    )


def has_apprise() -> bool:
    """Return whether the optional extra is installed."""
    return importlib.util.find_spec("apprise") is not None


def _run(command: Command, body: bytes) -> str | None:
    try:
        done = subprocess.run(
            list(command.arguments),
            input=body,
            cwd=command.directory,
            # Our own stdout is for results.
            stdout=subprocess.DEVNULL,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {_COMMAND_TIMEOUT_S:.0f} s"
    except (OSError, ValueError) as exc:
        return f"it can't be started: {getattr(exc, 'strerror', None) or type(exc).__name__}"
    return f"it ended with exit code {done.returncode}" if done.returncode else None


def _ask(method: str, url: str, body: bytes | None, network: NetworkSettings) -> str | None:
    try:
        status = anyio.run(_status, method, url, body, network)
    except TimeoutError:
        return f"no response within {_WEB_TIMEOUT_S:.0f} s"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
        return f"no response ({type(exc).__name__})"
    return None if 200 <= status < 300 else f"HTTP {status}"


async def _status(method: str, url: str, body: bytes | None, network: NetworkSettings) -> int:
    headers = {} if body is None else {"Content-Type": "application/json"}
    with anyio.fail_after(_WEB_TIMEOUT_S), without_logs():
        async with (
            httpx.AsyncClient(
                trust_env=False,
                transport=StreamTransport(network=open_network(network), resolve=look_up),
            ) as client,
            client.stream(method, url, content=body, headers=headers) as response,
        ):
            return response.status_code  # the rest of its message is not read


def _apprise(url: str, notice: Notice) -> str | None:
    apprise = importlib.import_module("apprise")
    post = apprise.Apprise()
    if not post.add(url):
        return "apprise does not know this kind of URL"
    return None if post.notify(title=notice.title, body=notice.text) else "apprise failed"
