"""Check from its bytes whether an image is whole, and return its format and size.

Structure is checked to the last byte without decoding, so a truncated download never passes.
`decode` checks the pixels too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final

from batchgen.images.formats import (
    USUAL_FORMATS,
    BadImage,
    Extent,
    Flaw,
    ImageFormat,
    ImageInfo,
    printable,
)
from batchgen.images.gif import GIF_SIGNATURES, walk_gif
from batchgen.images.heif import heif_format, walk_heif
from batchgen.images.jpeg import walk_jpeg
from batchgen.images.pillow_warnings import without_warnings
from batchgen.images.png import PNG_SIGNATURE, walk_png
from batchgen.images.webp import walk_webp

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.ImageFile import ImageFile

    from batchgen.images.formats import Octets

MAX_PIXELS: Final = 4 * 3840 * 2160
"""Four times the largest image of gpt-image-2; as RGBA 133 MB."""
MAX_BYTES: Final = 64 * 1024 * 1024

_MAX_TRAILER: Final = 16
"""Bytes of any kind that are not worth a warning: a line end or a boundary."""
_NOT_NUL: Final = re.compile(rb"[^\0]")
_SIZE: Final = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")


def sniff(head: bytes) -> ImageFormat | None:
    """Return the format that a file's first bytes announce; None for any other.

    12 bytes are enough, except for a few files of AVIF and HEIC: 64 are enough for those.
    """
    if head.startswith(PNG_SIGNATURE):
        return ImageFormat.PNG
    if head.startswith(b"\xff\xd8\xff"):
        return ImageFormat.JPEG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ImageFormat.WEBP
    if head.startswith(GIF_SIGNATURES):
        return ImageFormat.GIF
    return heif_format(head)


def inspect(
    data: Octets,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> ImageInfo:
    """Walk an image's structure to its end, without copying or decoding it.

    Data after the end does no harm: every viewer shows such an image, phones append films and depth
    maps, generators labels. It is counted as ``trailing_bytes``, unless it is 16 bytes or shorter,
    or all NUL. Raises BadImage, and nothing else for any content.
    """
    with memoryview(data) as view:
        size = len(view)
        if size == 0:
            raise BadImage(Flaw.EMPTY, "the file is empty")
        if size > max_bytes:
            raise BadImage(Flaw.TOO_LARGE, f"{size:,} bytes are more than {max_bytes:,}")
        head = bytes(view[:64])
        kind = sniff(head)
        if kind is None:
            raise _not_an_image(head)
        walk = _walk(view, kind, max_pixels)
        left = size - walk.end
        has_trailer = left > _MAX_TRAILER and _NOT_NUL.search(view, walk.end) is not None
        return ImageInfo(
            format=kind,
            width=walk.width,
            height=walk.height,
            size_bytes=size,
            has_alpha=walk.has_alpha,
            is_signed=walk.is_signed,
            trailing_bytes=left if has_trailer else 0,
        )


def _walk(view: memoryview, kind: ImageFormat, max_pixels: int) -> Extent:
    match kind:
        case ImageFormat.PNG:
            return walk_png(view, max_pixels)
        case ImageFormat.JPEG:
            return walk_jpeg(view, max_pixels)
        case ImageFormat.WEBP:
            return walk_webp(view, max_pixels)
        case ImageFormat.GIF:
            return walk_gif(view, max_pixels)
        case _:
            return walk_heif(view, max_pixels, kind)


def decode(path: Path, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> ImageInfo:
    """Inspect an image file, then decode every pixel. Blocks; call it on a worker thread.

    A file that this Pillow has no decoder for (HEIC, and AVIF in some builds) is only inspected.
    Raises BadImage, and OSError if the file cannot be read.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise BadImage(Flaw.TOO_LARGE, f"{size:,} bytes are more than {max_bytes:,}")
    data = path.read_bytes()
    info = inspect(data, max_pixels=max_pixels, max_bytes=max_bytes)
    reader = _reader(info.format)
    if reader is None:
        return info
    try:
        with _open_quietly(data, reader) as image:
            _load_frames(image)
    except MemoryError:
        raise  # the machine's fault, not the image's
    except Exception as error:  # Pillow raises errors of a dozen kinds for damaged images
        raise BadImage(Flaw.UNDECODABLE, f"the {info.format} cannot be decoded: {error}") from error
    return info


def is_blank(path: Path) -> bool:
    """Return whether every pixel has the same color; False if unknown. Decodes, so blocks."""
    data = path.read_bytes()
    kind = sniff(data[:64])
    reader = None if kind is None else _reader(kind)
    if reader is None:
        return False
    try:
        with _open_quietly(data, reader) as image:
            return image.convert("RGB").getcolors(maxcolors=1) is not None
    except Exception:  # Pillow raises errors of a dozen kinds for damaged images
        return False


def warnings_of(info: ImageInfo, options: Mapping[str, object]) -> tuple[str, ...]:
    """Return sentences on an image that differs from what was requested, or is unusual."""
    return (*mismatches(info, options), *oddities(info, options))


def mismatches(info: ImageInfo, options: Mapping[str, object]) -> tuple[str, ...]:
    """Return sentences on how an image differs from the requested `size` and `output_format`."""
    found = []
    asked = _SIZE.fullmatch(str(options.get("size", "auto")))
    if asked and (int(asked[1]), int(asked[2])) != (info.width, info.height):
        found.append(f"requested {asked[0]}, got {info.width}x{info.height}")
    wanted = str(options.get("output_format") or info.format).lower()
    if wanted not in (info.format.value, info.format.extension):
        found.append(f"requested {wanted}, got {info.format}")
    return tuple(found)


def oddities(info: ImageInfo, options: Mapping[str, object]) -> tuple[str, ...]:
    """Return sentences on what is unusual in a whole image, which is kept as it is."""
    found = []
    if info.format not in USUAL_FORMATS and not options.get("output_format"):
        found.append(f"got {info.format}, which was not requested")
    if info.trailing_bytes:
        found.append(f"{info.trailing_bytes:,} bytes of other data follow the {info.format} image")
    return tuple(found)


_OTHER_IMAGES: Final = (
    (re.compile(rb"GIF8"), "a GIF of an unknown version"),
    (re.compile(rb"II\*\0|MM\0\*"), "a TIFF"),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), "a BMP"),
    (re.compile(rb"\0\0\x01\0"), "an ICO"),
    (re.compile(rb".{4}ftyp(hei|mif|msf|j2ki)", re.DOTALL), "a HEIF of an unknown codec"),
    (re.compile(rb"(\0\0\0\x0c)?(JXL \r\n\x87\n|\xff\x0a)"), "a JPEG XL"),
    (re.compile(rb"%PDF-"), "a PDF"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "an EPS"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?<svg", re.IGNORECASE), "an SVG"),
)
_ACCEPTED: Final = "PNG, JPEG, WebP, GIF, AVIF or HEIC"
_OTHER_TEXTS: Final = (
    (re.compile(rb"\s*<(!doctype html|html|head|body)", re.IGNORECASE), "an HTML page"),
    (re.compile(rb"\s*<(\?xml|[a-z])", re.IGNORECASE), "an XML text"),
    (re.compile(rb"\s*[{\[]"), "a JSON text"),
)


def _not_an_image(head: bytes) -> BadImage:
    """Describe bytes that do not begin like an accepted format."""
    head = head.removeprefix(b"\xef\xbb\xbf")
    for pattern, name in _OTHER_IMAGES:
        if pattern.match(head):
            return BadImage(Flaw.UNSUPPORTED_FORMAT, f"{name}, not an image of {_ACCEPTED}")
    for pattern, name in _OTHER_TEXTS:
        if pattern.match(head):
            found = f"{name} beginning {printable(head[:40])}"
            return BadImage(Flaw.NOT_AN_IMAGE, f"{found}, not an image")
    return BadImage(Flaw.NOT_AN_IMAGE, f"data beginning {printable(head[:16])}, not an image")


_READERS: Final = {
    ImageFormat.PNG: ("PngImagePlugin", "PngImageFile"),
    ImageFormat.JPEG: ("JpegImagePlugin", "JpegImageFile"),
    ImageFormat.WEBP: ("WebPImagePlugin", "WebPImageFile"),
    ImageFormat.GIF: ("GifImagePlugin", "GifImageFile"),
    ImageFormat.AVIF: ("AvifImagePlugin", "AvifImageFile"),
}


def _reader(kind: ImageFormat) -> type[ImageFile] | None:
    """Return Pillow's reader of a format; None if this Pillow has none.

    Bypassing `Image.open` avoids its guesses at other formats and at multi-image files, and its own
    pixel limit, which `inspect` has applied already.
    """
    names = _READERS.get(kind)
    if names is None or (kind is ImageFormat.AVIF and not _has_avif()):
        return None
    module, name = names
    reader: type[ImageFile] = getattr(import_module(f"PIL.{module}"), name)
    return reader


def _has_avif() -> bool:
    try:
        from PIL.AvifImagePlugin import SUPPORTED
    except ImportError:  # before Pillow 11.3
        return False
    return SUPPORTED


def _open_quietly(data: bytes, reader: type[ImageFile]) -> ImageFile:
    """Open with Pillow's warnings on metadata off.

    Only opening parses metadata that causes warnings (EXIF, animation control).
    """
    with without_warnings():
        return reader(io.BytesIO(data))


def _load_frames(image: ImageFile) -> None:
    """Decode the image, and the frames of an animation up to a limit."""
    image.load()
    frames = min(getattr(image, "n_frames", 1), MAX_PIXELS // (image.width * image.height))
    for frame in range(1, frames):
        image.seek(frame)
        image.load()
