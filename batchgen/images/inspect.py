"""Says from its bytes whether an image is whole, what format it has and how large it is.

Structure is checked to the last byte without decoding, so a cut download never passes; whether
the pixels make sense is what `decode` is for.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import mmap
    from pathlib import Path

    from PIL.ImageFile import ImageFile

    Octets: TypeAlias = bytes | bytearray | memoryview | mmap.mmap

MAX_PIXELS: Final = 4 * 3840 * 2160
"""Four times the largest image of gpt-image-2; as RGBA 133 MB."""
MAX_BYTES: Final = 64 * 1024 * 1024

_MAX_PARTS: Final = 65_536
"""Chunks or segments. Encoders put 8 KiB and more into each, so only hostile files have more."""
_MAX_TRAILER: Final = 16
"""Bytes of any kind tolerated after an image's end: a line end or a boundary, no second file."""
_NOT_NUL: Final = re.compile(rb"[^\0]")
_SIZE: Final = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")


class ImageFormat(StrEnum):
    """The formats an image is accepted in."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    MP4 = "mp4"
    """A video; `inspect` takes none, `mp4.py` does."""

    @property
    def extension(self) -> str:
        """File name ending without the dot."""
        return "jpg" if self is ImageFormat.JPEG else self.value

    @property
    def mime(self) -> str:
        return f"{'video' if self is ImageFormat.MP4 else 'image'}/{self.value}"


class Flaw(StrEnum):
    """Why bytes are not an acceptable image."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    NOT_A_IMAGE = "not_a_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    BAD_CRC = "bad_crc"
    BAD_STRUCTURE = "bad_structure"
    TRAILING_DATA = "trailing_data"
    UNDECODABLE = "undecodable"


class BadImage(Exception):
    """The bytes are no whole image of an accepted format; the message says what was found."""

    def __init__(self, reason: Flaw, message: str) -> None:
        super().__init__(message)
        self.reason: Final = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What a whole image's header says."""

    format: ImageFormat
    width: int
    height: int
    size_bytes: int
    has_alpha: bool = False
    """Whether its pixels can be transparent, be any of them so or not."""


def sniff(head: bytes) -> ImageFormat | None:
    """The format that a file's first 12 bytes announce, None for any other."""
    if head.startswith(_PNG_SIGNATURE):
        return ImageFormat.PNG
    if head.startswith(b"\xff\xd8\xff"):
        return ImageFormat.JPEG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ImageFormat.WEBP
    return None


def inspect(
    data: Octets,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    any_trailer: bool = False,
) -> ImageInfo:
    """Walk an image's structure to its end, without copying or decoding it.

    Up to 16 bytes, or any number of NULs, are tolerated after the end; more is a second file hiding
    behind the first, unless ``any_trailer`` allows it: phones put films and depth maps there.
    Raises BadImage, and nothing else for any content.
    """
    with memoryview(data) as view:
        size = len(view)
        if size == 0:
            raise BadImage(Flaw.EMPTY, "the file is empty")
        if size > max_bytes:
            raise BadImage(Flaw.TOO_LARGE, f"{size:,} bytes are more than {max_bytes:,}")
        head = bytes(view[:64])
        match sniff(head):
            case ImageFormat.PNG as kind:
                walk = _walk_png(view, max_pixels)
            case ImageFormat.JPEG as kind:
                walk = _walk_jpeg(view, max_pixels)
            case ImageFormat.WEBP as kind:
                walk = _walk_webp(view, max_pixels)
            case None:
                raise _stranger(head)
        left = size - walk.end
        if left > _MAX_TRAILER and not any_trailer and _NOT_NUL.search(view, walk.end):
            raise BadImage(
                Flaw.TRAILING_DATA, f"{left:,} bytes of other data follow the {kind} image"
            )
        return ImageInfo(
            format=kind,
            width=walk.width,
            height=walk.height,
            size_bytes=size,
            has_alpha=walk.has_alpha,
        )


def decode(path: Path, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> ImageInfo:
    """Inspect an image file, then decode every pixel; blocking, so for a thread.

    Raises BadImage, and OSError where the file cannot be read.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise BadImage(Flaw.TOO_LARGE, f"{size:,} bytes are more than {max_bytes:,}")
    data = path.read_bytes()
    info = inspect(data, max_pixels=max_pixels, max_bytes=max_bytes)
    try:
        with _open_quietly(data, info.format) as image:
            image.load()
    except MemoryError:
        raise  # the machine's fault, not the image's
    except Exception as error:  # Pillow raises errors of a dozen kinds for damaged images
        raise BadImage(Flaw.UNDECODABLE, f"the {info.format} cannot be decoded: {error}") from error
    return info


def is_blank(path: Path) -> bool:
    """Whether every pixel has the same colour; decodes, so for a thread. False where it can't."""
    data = path.read_bytes()
    kind = sniff(data[:64])
    if kind is None:
        return False
    try:
        with _open_quietly(data, kind) as image:
            return image.convert("RGB").getcolors(maxcolors=1) is not None
    except Exception:  # Pillow raises errors of a dozen kinds for damaged images
        return False


def mismatches(info: ImageInfo, options: Mapping[str, object]) -> tuple[str, ...]:
    """Sentences on where an image differs from the `size` and `output_format` asked for."""
    found = []
    asked = _SIZE.fullmatch(str(options.get("size", "auto")))
    if asked and (int(asked[1]), int(asked[2])) != (info.width, info.height):
        found.append(f"asked for {asked[0]}, got {info.width}x{info.height}")
    wanted = str(options.get("output_format") or info.format).lower()
    if wanted not in (info.format.value, info.format.extension):
        found.append(f"asked for {wanted}, got {info.format}")
    return tuple(found)


class _Walk(NamedTuple):
    """What was met on the way through an image."""

    width: int
    height: int
    end: int
    """Where the image ends."""
    has_alpha: bool = False


def _truncated(what: str) -> BadImage:
    return BadImage(Flaw.TRUNCATED, f"{what} is cut off")


def _broken(what: str) -> BadImage:
    return BadImage(Flaw.BAD_STRUCTURE, what)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width == 0 or height == 0:
        raise _broken(f"the header gives the size {width}x{height}")
    if width * height > max_pixels:
        raise BadImage(
            Flaw.TOO_MANY_PIXELS, f"{width}x{height} are more than {max_pixels:,} pixels"
        )


# PNG: https://www.w3.org/TR/png-3/

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTHS: Final = {
    0: (1, 2, 4, 8, 16),
    2: (8, 16),
    3: (1, 2, 4, 8),
    4: (8, 16),
    6: (8, 16),
}
_PNG_PALETTE: Final = 3
_PNG_WITH_ALPHA: Final = (4, 6)


def _walk_png(view: memoryview, max_pixels: int) -> _Walk:
    size = len(view)
    width = height = 0
    has_alpha = False
    seen: set[bytes] = set()
    pos = len(_PNG_SIGNATURE)
    for _ in range(_MAX_PARTS):
        if pos + 12 > size:
            raise _truncated("the PNG")
        length, kind = struct.unpack_from(">I4s", view, pos)
        end = pos + 12 + length
        if end > size:
            raise _truncated(f"PNG chunk {_printable(kind)}")
        if zlib.crc32(view[pos + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise BadImage(Flaw.BAD_CRC, f"PNG chunk {_printable(kind)} is damaged (CRC)")
        if (kind == b"IHDR") == bool(seen):
            raise _broken("the PNG does not begin with its one header")
        if kind == b"IHDR":
            width, height = _png_size(view, pos + 8, length, max_pixels)
            has_alpha = view[pos + 17] in _PNG_WITH_ALPHA
            if view[pos + 17] != _PNG_PALETTE:
                seen.add(b"PLTE")  # only palette images need one
        elif kind == b"IEND":
            if length or not seen >= {b"IDAT", b"PLTE"}:
                raise _broken("the PNG lacks its pixels or its palette")
            return _Walk(width, height, end, has_alpha or b"tRNS" in seen)
        elif kind == b"acTL" and b"IDAT" in seen:
            raise _broken("the PNG's animation control stands behind its pixels")
        if length:
            seen.add(kind)
        pos = end
    raise _broken(f"the PNG has more than {_MAX_PARTS:,} chunks")


def _png_size(view: memoryview, pos: int, length: int, max_pixels: int) -> tuple[int, int]:
    if length != 13:
        raise _broken("the PNG header has a wrong length")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack_from(
        ">IIBBBBB", view, pos
    )
    if (
        depth not in _PNG_BIT_DEPTHS.get(colour, ())
        or compression
        or filtering
        or interlace > 1
        or max(width, height) >= 1 << 31
    ):
        raise _broken("the PNG header holds values that do not exist")
    _check_pixels(width, height, max_pixels)
    return width, height


# JPEG: ITU-T T.81, annex B

_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_RST: Final = range(0xD0, 0xD8)
_SOF_DECODABLE: Final = (0xC0, 0xC1, 0xC2)
_SOF_OTHER: Final = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_SCAN_END: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The first marker that is neither a stuffed byte, nor fill, nor a restart inside a scan."""


def _walk_jpeg(view: memoryview, max_pixels: int) -> _Walk:
    """Pass segments by their lengths: a thumbnail's end is not taken for the image's own."""
    size = len(view)
    frame: tuple[int, int] | None = None
    scanned = False
    pos = 2
    for _ in range(_MAX_PARTS):
        pos, marker = _jpeg_marker(view, pos)
        if marker == _EOI:
            if frame is None or not scanned:
                raise _broken("the JPEG holds no pixels")
            return _Walk(*frame, pos)
        if marker in _RST or marker in (0x00, _TEM, _SOI):
            raise _broken(f"JPEG marker {marker:02X} stands where none may be")
        if pos + 2 > size:
            raise _truncated("the JPEG")
        end = pos + int.from_bytes(view[pos : pos + 2], "big")
        if end < pos + 2:
            raise _broken(f"JPEG segment {marker:02X} has an impossible length")
        if end > size:
            raise _truncated(f"JPEG segment {marker:02X}")
        if marker in _SOF_OTHER:
            raise BadImage(
                Flaw.UNSUPPORTED_FORMAT, "a lossless, hierarchical or arithmetic-coded JPEG"
            )
        if marker in _SOF_DECODABLE:
            if frame is not None:
                raise _broken("the JPEG has two frames")
            frame = _jpeg_size(view, pos, end, max_pixels)
        elif marker == _SOS:
            if frame is None:
                raise _broken("a JPEG scan precedes the frame's header")
            found = _SCAN_END.search(view, end)
            if found is None:
                raise _truncated("the JPEG")
            scanned = scanned or found.start() > end
            end = found.start()
        pos = end
    raise _broken(f"the JPEG has more than {_MAX_PARTS:,} segments")


def _jpeg_marker(view: memoryview, pos: int) -> tuple[int, int]:
    """The marker at a position, past any fill bytes, and where its segment begins."""
    size = len(view)
    if pos < size and view[pos] != 0xFF:
        raise _broken(f"JPEG data at byte {pos:,} where a marker should be")
    while pos < size and view[pos] == 0xFF:
        pos += 1
    if pos >= size:
        raise _truncated("the JPEG")
    return pos + 1, view[pos]


def _jpeg_size(view: memoryview, pos: int, end: int, max_pixels: int) -> tuple[int, int]:
    if end - pos < 8:
        raise _broken("the JPEG frame's header is too short")
    length, precision, height, width, components = struct.unpack_from(">HBHHB", view, pos)
    if length != 8 + 3 * components or components not in (1, 3, 4):
        raise _broken(f"the JPEG frame's header gives {components} components")
    if precision != 8:
        raise BadImage(Flaw.UNSUPPORTED_FORMAT, f"a JPEG of {precision} bits a sample")
    _check_pixels(width, height, max_pixels)
    return width, height


# WebP: RFC 9649; VP8 frame header: RFC 6386, section 9.1

_VP8X_ANIMATED: Final = 0x02
_VP8X_ALPHA: Final = 0x10
_VP8L_ALPHA: Final = 0x10
"""In the last byte of the frame's header, above the version."""
_VP8_START: Final = b"\x9d\x01\x2a"


def _walk_webp(view: memoryview, max_pixels: int) -> _Walk:
    end = 8 + int.from_bytes(view[4:8], "little")
    if end > len(view):
        raise _truncated("the WebP")
    canvas: tuple[int, int] | None = None
    frame: tuple[int, int] | None = None
    has_alpha = False
    pos = 12
    for _ in range(_MAX_PARTS):
        if pos == end:
            break
        if pos + 8 > end:
            raise _broken("the WebP chunks do not fill the size it gives")
        kind, length = struct.unpack_from("<4sI", view, pos)
        body, pos = pos + 8, pos + 8 + length + length % 2
        if pos > end:
            raise _broken(f"WebP chunk {_printable(kind)} is longer than the file")
        if kind == b"VP8X":
            if body != 20:
                raise _broken("the extended WebP header is not the first chunk")
            canvas = _webp_canvas(view, body, length)
            has_alpha = bool(view[body] & _VP8X_ALPHA)
            _check_pixels(*canvas, max_pixels)
        elif kind in (b"VP8 ", b"VP8L"):
            if frame is not None:
                raise _broken("the WebP has two frames")
            frame = (_vp8_size if kind == b"VP8 " else _vp8l_size)(view, body, length)
            if kind == b"VP8L" and canvas is None:
                has_alpha = bool(view[body + 4] & _VP8L_ALPHA)
            _check_pixels(*frame, max_pixels)
    else:
        raise _broken(f"the WebP has more than {_MAX_PARTS:,} chunks")
    if frame is None:
        raise _broken("the WebP holds no pixels")
    if canvas not in (None, frame):
        raise _broken("the WebP canvas and its frame differ in size")
    return _Walk(*frame, end, has_alpha)


def _webp_canvas(view: memoryview, body: int, length: int) -> tuple[int, int]:
    if length < 10:
        raise _broken("the extended WebP header is too short")
    if view[body] & _VP8X_ANIMATED:
        raise BadImage(Flaw.UNSUPPORTED_FORMAT, "an animated WebP")
    width = int.from_bytes(view[body + 4 : body + 7], "little") + 1
    height = int.from_bytes(view[body + 7 : body + 10], "little") + 1
    return width, height


def _vp8_size(view: memoryview, body: int, length: int) -> tuple[int, int]:
    if length <= 10 or bytes(view[body + 3 : body + 6]) != _VP8_START or view[body] & 1:
        raise _broken("the WebP frame is no VP8 key frame")
    first_partition = int.from_bytes(view[body : body + 3], "little") >> 5
    if 10 + first_partition > length:
        raise _truncated("the WebP's VP8 frame")
    width, height = struct.unpack_from("<HH", view, body + 6)
    return width & 0x3FFF, height & 0x3FFF


def _vp8l_size(view: memoryview, body: int, length: int) -> tuple[int, int]:
    if length <= 5 or view[body] != 0x2F:
        raise _broken("the WebP frame is no VP8L stream")
    bits = int.from_bytes(view[body + 1 : body + 5], "little")
    if bits >> 29:
        raise _broken("the WebP frame is of an unknown VP8L version")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


_OTHER_IMAGES: Final = (
    (re.compile(rb"GIF8"), "a GIF"),
    (re.compile(rb"II\*\0|MM\0\*"), "a TIFF"),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), "a BMP"),
    (re.compile(rb"\0\0\x01\0"), "an ICO"),
    (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), "an AVIF"),
    (re.compile(rb".{4}ftyp(hei|mif|msf)", re.DOTALL), "a HEIF"),
    (re.compile(rb"(\0\0\0\x0c)?(JXL \r\n\x87\n|\xff\x0a)"), "a JPEG XL"),
    (re.compile(rb"%PDF-"), "a PDF"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "an EPS"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?<svg", re.IGNORECASE), "an SVG"),
)
_OTHER_TEXTS: Final = (
    (re.compile(rb"\s*<(!doctype html|html|head|body)", re.IGNORECASE), "an HTML page"),
    (re.compile(rb"\s*<(\?xml|[a-z])", re.IGNORECASE), "an XML text"),
    (re.compile(rb"\s*[{\[]"), "a JSON text"),
)


def _stranger(head: bytes) -> BadImage:
    """What to say of bytes that begin like none of the accepted formats."""
    head = head.removeprefix(b"\xef\xbb\xbf")
    for pattern, name in _OTHER_IMAGES:
        if pattern.match(head):
            return BadImage(Flaw.UNSUPPORTED_FORMAT, f"{name}, not a PNG, JPEG or WebP image")
    for pattern, name in _OTHER_TEXTS:
        if pattern.match(head):
            found = f"{name} beginning {_printable(head[:40])}"
            return BadImage(Flaw.NOT_A_IMAGE, f"{found}, not an image")
    return BadImage(Flaw.NOT_A_IMAGE, f"data beginning {_printable(head[:16])}, not an image")


def _printable(octets: bytes) -> str:
    """Quoted, with anything but ASCII letters and signs escaped: safe on a terminal."""
    return ascii(octets.decode("latin-1"))


_QUIET: Final = threading.Lock()


def _open_quietly(data: bytes, kind: ImageFormat) -> ImageFile:
    """Pillow's reader of this one format, with its warnings on metadata off.

    Going past `Image.open` leaves out its guesses at other formats and at multi-image files, and
    its own pixel limit, which `inspect` has applied already. Only opening parses metadata that is
    warned about (EXIF, animation control); the lock is there because filters are process-wide.
    """
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    readers: dict[ImageFormat, type[ImageFile]] = {
        ImageFormat.PNG: PngImageFile,
        ImageFormat.JPEG: JpegImageFile,
        ImageFormat.WEBP: WebPImageFile,
    }
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return readers[kind](io.BytesIO(data))
