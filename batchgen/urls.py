"""Which URLs may be used: rules that manifest, settings and engine share."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urljoin, urlsplit


def check_base_url(url: str) -> str:
    """Return the base URL without its trailing slashes.

    Raises ValueError for a URL that no key may be sent to. The message never shows a part of the
    URL that may be a secret.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise ValueError(f"not a valid URL: {exc}; expected https://HOST/v1") from exc
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "user, password, query and fragment are not allowed in this URL; expected"
            " https://HOST/v1 and the key in the environment"
        )
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise ValueError(f"not a valid URL: {url!r}; expected https://HOST/v1")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(f"http:// would send the key to {host} unencrypted; expected https://")
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether the host name or IP address of a URL is this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def absolute_url(url: str, base_url: str) -> str:
    """Return the URL of an image; one without a scheme is relative to the URL of the request.

    An absolute URL stays unchanged to the last character, as a signature may cover it. So does
    one that cannot be parsed.
    """
    try:
        return url if urlsplit(url).scheme else urljoin(f"{base_url}/images/generations", url)
    except ValueError:
        return url
