"""Reference images of a manifest: files, or addresses that a run fetched; known by their content.

Each is read once, however many jobs share it. Nothing is fetched here.
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

from batchgen.images.formats import BadImage, Flaw, ImageInfo
from batchgen.images.inspect import MAX_BYTES, inspect

_ANY_PIXELS: Final = 1 << 62
"""A photo is sent as it is and never decoded here."""
_MAX_URL_CHARS: Final = 8192
_MAX_SHOWN_CHARS: Final = 200
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A reference image, or a mask, of one job."""

    name: str
    """As messages call it: the file's path or the address."""
    address: str
    """What the job is given: the absolute path of a file, or the address where there is none."""
    identity: str
    """What of it goes into the fingerprint. Only a job that can't be sent has an address there."""
    image: ImageInfo | None = None
    """None where its content is not on this machine."""
    is_remote: bool = False
    """Given by address: what is wrong with it is no fault of the manifest."""
    warning: str = ""
    refusal: str = ""
    """Why a job can't be sent with it, where it is remote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What is known of an address."""

    path: Path | None = None
    """The file that was fetched from it; None where none is on this machine."""
    sha256: str | None = None
    """Of what was fetched last, whether the file is still there or not."""
    problem: str = ""
    """Why this run could not have it. With a path, that of an earlier copy."""


class Addresses(Protocol):
    """The addresses that earlier runs, or this one, fetched."""

    def find(self, url: str) -> Copy:
        """What is known of an address; it is noted as one that the plan needs."""


def find_reference(text: str, base: Path, addresses: Addresses | None) -> Reference:
    """Find and read a reference image, which a relative path names from the directory ``base``.

    Raises ValueError, with a message for the manifest's writer.
    """
    if not text:
        raise ValueError("the name of the reference image is empty")
    if scheme := _SCHEME.match(text):
        _check_address(text, scheme[1].lower())
        return _remote(text, Copy() if addresses is None else addresses.find(text))
    path = base / text
    content = _content(path)
    if isinstance(content, str):
        raise ValueError(content)
    return Reference(
        name=str(path),
        address=str(path),
        identity=f"sha256:{content.sha256}",
        image=content.image,
    )


def is_address(reference: str) -> bool:
    """Whether a reference image is named by address, and not as a file."""
    return _SCHEME.match(reference) is not None


def _check_address(url: str, scheme: str) -> None:
    shown = _shown(url)
    if scheme not in ("http", "https"):
        raise ValueError(
            f"the reference image {shown} is neither a file nor an https:// address;"
            " put the file beside the manifest"
        )
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host or _UNPRINTABLE.search(url) or len(url) > _MAX_URL_CHARS:
        raise ValueError(
            f"the reference image {shown} is no usable address;"
            " write it like https://shop.example/mug.jpg, with %20 for a space"
        )


def _remote(url: str, copy: Copy) -> Reference:
    """A reference image by address. Whatever is wrong with it, only its own jobs suffer."""
    known = f"sha256:{copy.sha256}" if copy.sha256 else f"address:{url}"
    name = _shown(url)
    if copy.path is None:
        refusal = f"{name}: {copy.problem}" if copy.problem else ""
        return Reference(name=name, address=url, identity=known, is_remote=True, refusal=refusal)
    content = _content(copy.path)
    if isinstance(content, str):
        return Reference(name=name, address=url, identity=known, is_remote=True, refusal=content)
    warning = f"{name}: {copy.problem}; the copy fetched before is used" if copy.problem else ""
    return Reference(
        name=name,
        address=str(copy.path),
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
    """A whole image."""

    sha256: str
    image: ImageInfo


def read_content(path: Path) -> Content:
    """Read an image file to its end. Raises BadImage and OSError."""
    with path.open("rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
            raise BadImage(Flaw.TOO_LARGE, f"{size:,} bytes are more than {MAX_BYTES:,}")
        # Not mapped: a file that somebody cuts meanwhile would kill the process.
        data = file.read(MAX_BYTES + 1)
    image = inspect(data, max_pixels=_ANY_PIXELS, any_trailer=True)
    return Content(sha256(data).hexdigest(), image)


def _content(path: Path) -> Content | str:
    """The content of a file, or what is wrong with it."""
    try:
        stat = path.stat()
        if not S_ISREG(stat.st_mode):
            return f"the reference image {path} is no file"
        return _read_once(str(path), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
    except FileNotFoundError:
        return f"there is no reference image {path}"
    except OSError as error:
        return f"the reference image cannot be read: {error}"


@lru_cache(maxsize=4096)
def _read_once(path: str, mtime_ns: int, ctime_ns: int, size: int, inode: int) -> Content | str:
    """Read a file whose times, size and inode, which are there to notice changes, are these."""
    try:
        return read_content(Path(path))
    except BadImage as error:
        return f"the reference image {path}: {error}; give a whole PNG, JPEG or WebP file"


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file. Reads it again if its stat data changed. Raises OSError."""
    stat = path.stat()
    return _hash_once(str(path), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=4096)
def _hash_once(path: str, mtime_ns: int, ctime_ns: int, size: int, inode: int) -> str:
    with Path(path).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
