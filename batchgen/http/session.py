"""Settings that all HTTP clients of a run share: TLS, cookies, logs."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx

from batchgen.errors import SettingsError
from batchgen.http.network import Network
from batchgen.http.network_settings import NetworkSettings

_LOGGER: Final = logging.getLogger("httpx")
"""httpcore logs nothing of ours: all requests go through our own transport."""
_DIRECT: Final = NetworkSettings()
_unlogged: ContextVar[bool] = ContextVar("_unlogged", default=False)


class _DropOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _unlogged.get()


_DROP_OURS: Final = _DropOurs()


@contextmanager
def without_logs() -> Iterator[None]:
    """Keep httpx from logging requests made in this context.

    It logs URLs, which may contain secrets. Other uses of httpx in the same process are logged as
    before.
    """
    _LOGGER.addFilter(_DROP_OURS)
    token = _unlogged.set(True)
    try:
        yield
    finally:
        _unlogged.reset(token)


def no_cookies() -> CookieJar:
    """Return a cookie jar that stays empty, so that no request identifies an earlier one."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def ssl_context(settings: NetworkSettings = _DIRECT) -> ssl.SSLContext:
    """Create the TLS context of a run; all clients share it, as creating one costs 20 ms, 400 kB.

    It ignores the environment. Raises SettingsError for an unusable ``ca_file``.
    """
    context = (
        _system_context() if settings.system_trust else httpx.create_ssl_context(trust_env=False)
    )
    if settings.ca_file is not None:
        try:
            context.load_verify_locations(settings.ca_file)
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            reason = getattr(exc, "strerror", None) or str(exc)
            raise SettingsError(
                f"{settings.ca_file}: no certificates can be read: {reason}; expected a PEM file"
            ) from exc
    # Python itself reads SSLKEYLOGFILE, which would write the session's secrets to a file.
    context.keylog_filename = None  # type: ignore[assignment]  # None ends it; typeshed has str
    return context


def open_network(settings: NetworkSettings = _DIRECT) -> Network:
    """Return the network of a run. Raises SettingsError."""
    return Network(ssl_context(settings), settings.proxy, settings.keep_alive)


def _system_context() -> ssl.SSLContext:
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
