"""Image formats, the ways an image file can be damaged, and helpers of the format walkers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeAlias

if TYPE_CHECKING:
    import mmap

    Octets: TypeAlias = bytes | bytearray | memoryview | mmap.mmap

MAX_PARTS: Final = 65_536
"""Maximum chunks or segments. Encoders write 8 KiB and more into each; only hostile files have
more."""


class ImageFormat(StrEnum):
    """Accepted image formats."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    GIF = "gif"
    AVIF = "avif"
    HEIC = "heic"
    MP4 = "mp4"
    """A video, which `mp4.py` checks in place of `inspect`."""

    @property
    def extension(self) -> str:
        """Return the file name extension without the dot."""
        return "jpg" if self is ImageFormat.JPEG else self.value

    @classmethod
    def named(cls, name: object) -> Self | None:
        """Return the format that an option or an extension names; None for another name."""
        if not name:
            return None
        return next((kind for kind in cls if name in (kind.value, kind.extension)), None)

    @property
    def mime(self) -> str:
        return f"{'video' if self is ImageFormat.MP4 else 'image'}/{self.value}"


USUAL_FORMATS: Final = (ImageFormat.PNG, ImageFormat.JPEG, ImageFormat.WEBP)
"""Formats that every provider, browser and tool takes. Reference images must have one of them."""


class Flaw(StrEnum):
    """Why bytes are not an acceptable image."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    BAD_CRC = "bad_crc"
    BAD_STRUCTURE = "bad_structure"
    UNDECODABLE = "undecodable"


class BadImage(Exception):
    """The bytes are not a complete image of an accepted format; the message says what was found."""

    def __init__(self, reason: Flaw, message: str) -> None:
        super().__init__(message)
        self.reason: Final = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """Format and size from the header of a complete image."""

    format: ImageFormat
    width: int
    height: int
    size_bytes: int
    has_alpha: bool = False
    """Whether the format of the pixels has transparency, used or not."""
    is_signed: bool = False
    """Whether it has content credentials (C2PA), whose signature covers the whole file."""
    trailing_bytes: int = 0
    """Length of other data after the image's end; 0 for padding and a few bytes of any kind."""


class Extent(NamedTuple):
    """What the walk through an image found."""

    width: int
    height: int
    end: int
    """Offset of the image's end."""
    has_alpha: bool = False
    is_signed: bool = False


def truncated(what: str) -> BadImage:
    return BadImage(Flaw.TRUNCATED, f"{what} is cut off")


def broken(what: str) -> BadImage:
    return BadImage(Flaw.BAD_STRUCTURE, what)


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width == 0 or height == 0:
        raise broken(f"the header has the invalid size {width}x{height}")
    if width * height > max_pixels:
        raise BadImage(
            Flaw.TOO_MANY_PIXELS, f"{width}x{height} are more than {max_pixels:,} pixels"
        )


def printable(octets: bytes) -> str:
    """Return bytes quoted, with all but printable ASCII escaped: safe on a terminal."""
    return ascii(octets.decode("latin-1"))
