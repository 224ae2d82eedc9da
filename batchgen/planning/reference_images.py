"""Reference images of a manifest: files, or URLs fetched by a run, identified by their content.

Each image is read once, however many jobs share it. Nothing is fetched here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from stat import S_ISREG
from typing import Final, Protocol
from urllib.parse import urlsplit

from batchgen.images.formats import USUAL_FORMATS, BadImage, Flaw, ImageFormat, ImageInfo
from batchgen.images.inspect import MAX_BYTES, inspect, sniff
from batchgen.planning.reference_names import ImageNames
from batchgen.text import cause_of
from batchgen.urls import is_bucket, is_url, split_object_url

_ANY_PIXELS: Final = 1 << 62
"""Photos are sent unchanged and never decoded here."""
_HEAD_BYTES: Final = 64
_MAX_URL_CHARS: Final = 8192
_MAX_SHOWN_CHARS: Final = 200
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A reference image or mask of one job."""

    name: str
    """Path or shortened URL, for messages."""
    location: str
    """The absolute path of its file, or its URL without one."""
    identity: str
    """Its part of the fingerprint: a content hash, or the URL if nothing was ever fetched from it.
    A job with a URL here is never sent."""
    image: ImageInfo | None = None
    """None if its content is not on this machine."""
    is_remote: bool = False
    """Given by URL. A problem with it fails only its own jobs, not the manifest."""
    warning: str = ""
    refusal: str = ""
    """Why no job can be sent with it; empty unless it is remote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedReference:
    """What earlier runs or this one fetched from a URL."""

    path: Path | None = None
    """The fetched file; None if it is not on this machine."""
    sha256: str | None = None
    """Hash of the last fetched content, whether the file still exists or not."""
    problem: str = ""
    """Why this run could not fetch it. With a path, an earlier copy is used."""


class ReferenceUrls(Protocol):
    """Lookup of URLs that were fetched."""

    def find(self, url: str) -> FetchedReference:
        """Return what is known about a URL, and record that the plan needs it."""


def find_reference(text: str, names: ImageNames, urls: ReferenceUrls | None) -> Reference:
    """Find and read a reference image, given by URL or by a name of ``names``.

    Raises ValueError with a message for the author of the manifest.
    """
    if not text:
        raise ValueError("name of the reference image is empty; expected a file or an https:// URL")
    if is_url(text):
        _check_url(text, text.partition("://")[0].lower())
        return _remote(text, FetchedReference() if urls is None else urls.find(text))
    path = names.resolve(text)
    content = _content(path)
    if isinstance(content, str):
        raise ValueError(content)
    return Reference(
        name=str(path),
        location=str(path),
        identity=f"sha256:{content.sha256}",
        image=content.image,
    )


def _check_url(url: str, scheme: str) -> None:
    shown = _shown(url)
    if is_bucket(url):
        bucket, name = split_object_url(url)
        if bucket.endswith("/") or not name.strip("/"):
            raise ValueError(
                f"reference image URL is not valid: {shown}; expected s3://BUCKET/NAME"
            )
        return
    if scheme not in ("http", "https"):
        raise ValueError(
            f"unsupported reference image URL: {shown}; expected https://... or the path of a file"
        )
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host or _UNPRINTABLE.search(url) or len(url) > _MAX_URL_CHARS:
        raise ValueError(
            f"reference image URL is not valid: {shown};"
            " expected a URL like https://shop.example/mug.jpg, with %20 for a space"
        )


def _remote(url: str, fetched: FetchedReference) -> Reference:
    """Return a reference image given by URL. Its problems are recorded, not raised."""
    known = f"sha256:{fetched.sha256}" if fetched.sha256 else f"address:{url}"
    name = _shown(url)
    if fetched.path is None:
        refusal = f"{name}: {fetched.problem}" if fetched.problem else ""
        return Reference(name=name, location=url, identity=known, is_remote=True, refusal=refusal)
    content = _content(fetched.path)
    if isinstance(content, str):
        return Reference(name=name, location=url, identity=known, is_remote=True, refusal=content)
    warning = (
        f"{name}: {fetched.problem}; the copy fetched earlier is used" if fetched.problem else ""
    )
    return Reference(
        name=name,
        location=str(fetched.path),
        identity=f"sha256:{content.sha256}",
        image=content.image,
        is_remote=True,
        warning=warning,
    )


def _shown(url: str) -> str:
    text = _UNPRINTABLE.sub("\ufffd", url)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}..."


# Content


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a complete image file."""

    sha256: str
    image: ImageInfo


def read_content(path: Path) -> Content:
    """Read and check an image file. Raises BadImage and OSError."""
    with path.open("rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
            raise BadImage(
                Flaw.TOO_LARGE, f"file is too large: {size:,} bytes; expected at most {MAX_BYTES:,}"
            )
        # Not memory-mapped: truncation by another process would kill this one (SIGBUS).
        data = file.read(MAX_BYTES + 1)
    kind = sniff(data[:_HEAD_BYTES])
    if kind is not None and kind not in USUAL_FORMATS:
        article = "an" if kind is ImageFormat.AVIF else "a"
        raise BadImage(
            Flaw.UNSUPPORTED_FORMAT, f"{article} {kind.upper()}, not a PNG, JPEG or WebP image"
        )
    image = inspect(data, max_pixels=_ANY_PIXELS)
    return Content(sha256(data).hexdigest(), image)


def _content(path: Path) -> Content | str:
    """Return the content of a file, or an error message."""
    try:
        stat = path.stat()
        if not S_ISREG(stat.st_mode):
            return f"reference image is not a regular file: {path}"
        return _read_once(str(path), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
    except FileNotFoundError:
        return f"reference image not found: {path}"
    except OSError as error:
        return f"cannot read reference image {path}: {cause_of(error)}"


@lru_cache(maxsize=4096)
def _read_once(path: str, mtime_ns: int, ctime_ns: int, size: int, inode: int) -> Content | str:
    """Read a file; the stat data is part of the cache key, so that a changed file is read again."""
    try:
        return read_content(Path(path))
    except BadImage as error:
        return (
            f"reference image {path} cannot be used: {error}; expected a complete PNG, JPEG or"
            " WebP file"
        )


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, cached by its stat data. Raises OSError."""
    stat = path.stat()
    return _hash_once(str(path), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=4096)
def _hash_once(path: str, mtime_ns: int, ctime_ns: int, size: int, inode: int) -> str:
    with Path(path).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
