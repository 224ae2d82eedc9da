"""Which URLs may be used: rules that manifest, settings and engine share."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

_BUCKET: Final = re.compile(r"(?:s3|gs|az)://", re.IGNORECASE)
_FILE: Final = "file://"


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


def is_bucket(root: str) -> bool:
    """Return whether an output directory is a bucket: ``s3://``, ``gs://`` or ``az://``."""
    return _BUCKET.match(root) is not None


def output_root(text: str) -> str:
    """Return an output directory in the form that is stored: a path, or a URL of a bucket.

    A ``file://`` URL becomes its path. Raises ValueError for any other URL.
    """
    if text.lower().startswith(_FILE):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError(f"{text!r}: expected file:///PATH")
        return unquote(parts.path)
    if not is_bucket(text):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
            raise ValueError(f"{text!r}: expected a path, or s3://, gs://, az:// or file://")
        return text
    scheme, _, rest = text.partition("://")
    bucket, *parts_of_prefix = rest.rstrip("/").split("/")
    if not bucket or any(part in ("", ".", "..") for part in parts_of_prefix) or "?" in rest:
        raise ValueError(f"{text!r}: expected {scheme.lower()}://BUCKET/PREFIX")
    return f"{scheme.lower()}://{rest.rstrip('/')}"


def path_below(root: str, path: str) -> str:
    """Return a path below an output directory: a path, or the URL of an object."""
    return f"{root}/{path}" if is_bucket(root) else str(PurePosixPath(root) / path)
