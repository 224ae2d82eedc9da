"""Which URLs may be used: rules that manifest, settings and engine share."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import PurePath, PurePosixPath
from typing import Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

_PRIVATE_SUFFIXES: Final = (".internal", ".local", ".lan", ".home.arpa", ".localhost")
"""Reserved for private networks (RFC 6761, 6762, 8375; ICANN for .internal), or common there."""
_BUCKET: Final = re.compile(r"(?:s3|gs|az)://", re.IGNORECASE)
_BUCKET_PATH: Final = re.compile(r"(?P<scheme>s3|gs|az):(?:/+(?P<rest>.*))?", re.IGNORECASE)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FILE: Final = "file://"
_REQUESTS: Final = "/images/"
"""Directory of the requests of the Images API below the base URL."""
_HOST: Final = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,}", re.IGNORECASE)


def check_base_url(url: str, *, insecure_http: bool = False) -> str:
    """Return the base URL without its trailing slashes.

    With ``insecure_http``, http:// is allowed to private names and IP addresses, too. Raises
    ValueError for a URL that no key may be sent to. The message never shows a part of the URL that
    may be a secret.
    """
    try:
        parts = split_url(url)
    except ValueError as exc:
        raise ValueError(f"{exc}; expected https://HOST/v1") from None
    host = parts.hostname
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "user, password, query and fragment are not allowed in this URL; expected"
            " https://HOST/v1 and the key in the environment"
        )
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        shown = "" if "@" in url else f": {url!r}"
        raise ValueError(f"not a valid URL{shown}; expected https://HOST/v1")
    if parts.scheme == "http" and not is_loopback(host):
        _check_insecure(host, insecure_http=insecure_http)
    return url.rstrip("/")


def split_url(url: str) -> SplitResult:
    """Split a URL whose host and port can be read.

    Raises ValueError with a message that shows no part of the URL. The messages of `urllib.parse`
    quote what it takes for the port or an IP address, which may be a part of a password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.hostname
    except ValueError:
        raise ValueError("not a valid URL") from None
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("not a valid URL: its port is not a number up to 65535") from None
    return parts


def _check_insecure(host: str, *, insecure_http: bool) -> None:
    problem = f"http:// would send the key to {host} unencrypted; expected https://"
    if not is_private(host):
        raise ValueError(problem)
    if not insecure_http:
        raise ValueError(f"{problem}, or `insecure_http: true` for a host in a private network")


def is_private(host: str) -> bool:
    """Return whether a host is in a private network, by its name or IP address alone.

    Names without a dot are private: container and intranet names.
    """
    try:
        ip = ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return "." not in name or name.endswith(_PRIVATE_SUFFIXES)
    return ip.is_private and not ip.is_unspecified


def is_loopback(host: str) -> bool:
    """Return whether the host name or IP address of a URL is this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_url(reference: str) -> bool:
    """Return whether a reference image or an output directory is given by URL, not by path."""
    return _SCHEME.match(reference) is not None


def check_local_path(text: str, *, buckets: bool = False) -> None:
    """Refuse a URL where a path on this machine is expected, so that no directory is named by it.

    With ``buckets``, the URL of a bucket is allowed. Raises ValueError.
    """
    if is_url(text) and not (buckets and is_bucket(text)):
        right = "a path, or s3://BUCKET/PREFIX" if buckets else "a path on this machine"
        raise ValueError(f"not a path: {text!r}; expected {right}")


def is_bucket(root: str) -> bool:
    """Return whether an output directory is a bucket: ``s3://``, ``gs://`` or ``az://``."""
    return _BUCKET.match(root) is not None


def bucket_of_path(path: PurePath) -> str | None:
    """Return the URL of a bucket that was taken for a path, which has one slash of it; else None.

    Raises ValueError for a URL without a bucket.
    """
    found = _BUCKET_PATH.fullmatch(path.as_posix())
    return None if found is None else output_root(f"{found['scheme']}://{found['rest'] or ''}")


def split_object_url(url: str) -> tuple[str, str]:
    """Return the URL of the bucket of an object, with a scheme in lower case, and its name."""
    scheme, _, rest = url.partition("://")
    bucket, _, name = rest.partition("/")
    return f"{scheme.lower()}://{bucket}", name


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
        if is_url(text):
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


def absolute_url(url: str, base_url: str) -> str:
    """Return the URL of an image; one without a scheme is relative to the URL of the request."""
    return url_in_document(url, f"{base_url}{_REQUESTS}generations")


def image_urls(url: str, base_url: str) -> list[str]:
    """Return the URLs that the URL of an image may mean, the one of `absolute_url` first.

    ``files/1.png`` is relative to the request (RFC 3986, section 5). Some servers mean a path below
    the base URL or their root, or a host of which they left out the scheme.
    """
    first = absolute_url(url, base_url)
    below = f"{base_url}{_REQUESTS}"
    path = first.removeprefix(below)
    if path == first or not path:
        return [first]
    parts = urlsplit(base_url)
    found = [first, f"{base_url}/{path}", f"{parts.scheme}://{parts.netloc}/{path}"]
    host, _, rest = path.partition("/")
    if rest and _HOST.fullmatch(host):
        found.append(f"{parts.scheme}://{path}")
    return list(dict.fromkeys(found))


def url_in_document(url: str, document_url: str) -> str:
    """Return a URL that a document contains; one without a scheme is relative to the document.

    An absolute URL stays unchanged to the last character, as a signature may cover it. So does
    one that cannot be parsed.
    """
    try:
        return url if urlsplit(url).scheme else urljoin(document_url, url)
    except ValueError:
        return url
