"""Draw images that show their prompt: real files of the requested format and size, at low cost."""

from __future__ import annotations

import colorsys
import functools
import hashlib
import io
import struct
import textwrap
import zlib
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

Color = tuple[int, int, int]

_SHOWN_PROMPT_CHARACTERS = 600
_TAG_BYTES = 40
_PLACEHOLDER = b"#" * _TAG_BYTES
_PNG_HEADER_BYTES = 33
"""Size of signature and IHDR chunk, after which another chunk may be inserted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What to draw.

    `name` is unique to this image and is written to the file's metadata. `compression` is the API's
    output_compression, 0 to 100, for jpeg and webp.
    """

    name: str
    prompt: str
    model: str
    quality: str
    width: int
    height: int
    output_format: str
    compression: int | None
    references: int


def draw(drawing: Drawing) -> bytes:
    """Return an image file: the prompt on a background whose color depends on the prompt."""
    image = _card(drawing)
    return _encode(image, drawing.output_format, drawing.compression, _tag(drawing.name))


def draw_fast(drawing: Drawing) -> bytes:
    """Return a file of the right size and format that differs from others only in its metadata.

    For load tests: drawn and compressed once per size and format, without the prompt.
    """
    plain = _plain(drawing.width, drawing.height, drawing.output_format, drawing.compression)
    tag = _tag(drawing.name)
    if drawing.output_format == "png":
        return plain[:_PNG_HEADER_BYTES] + _png_text_chunk(tag) + plain[_PNG_HEADER_BYTES:]
    return plain.replace(_PLACEHOLDER, tag)


def draw_partial(drawing: Drawing, step: int) -> bytes:
    """Return a partial image of a stream: coarse in step 0, then finer."""
    coarse = _card(drawing).reduce(64 >> step)
    image = coarse.resize((drawing.width, drawing.height), Image.Resampling.NEAREST)
    return _encode(image, drawing.output_format, drawing.compression, _tag(drawing.name))


def _tag(name: str) -> bytes:
    return name.encode("ascii")[:_TAG_BYTES].ljust(_TAG_BYTES, b".")


@functools.lru_cache(maxsize=64)
def _plain(width: int, height: int, output_format: str, compression: int | None) -> bytes:
    image = Image.new("RGB", (width, height), (226, 214, 196))
    image.paste((120, 104, 88), (0, height // 2, width, height))  # one color alone looks failed
    tag = None if output_format == "png" else _PLACEHOLDER
    return _encode(image, output_format, compression, tag)


def _png_text_chunk(tag: bytes) -> bytes:
    content = b"tEXtComment\0" + tag
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def _encode(
    image: Image.Image, output_format: str, compression: int | None, tag: bytes | None
) -> bytes:
    buffer = io.BytesIO()
    if output_format == "png":
        info = PngImagePlugin.PngInfo()
        if tag is not None:
            info.add_text("Comment", tag.decode("ascii"))
        image.save(buffer, "PNG", compress_level=1, pnginfo=info)
    elif output_format == "jpeg":
        image.save(buffer, "JPEG", quality=_encoder_quality(compression), comment=tag)
    else:
        image.save(buffer, "WEBP", quality=_encoder_quality(compression), method=0, xmp=tag)
    return buffer.getvalue()


def _encoder_quality(compression: int | None) -> int:
    return 90 if compression is None else max(1, min(95, compression))


def _card(drawing: Drawing) -> Image.Image:
    digest = hashlib.sha256(drawing.prompt.encode("utf-8", "replace")).digest()
    hue = digest[0] / 256
    image = Image.new("RGB", (drawing.width, drawing.height), _color(hue, 0.80))
    pen = ImageDraw.Draw(image)
    unit = min(drawing.width, drawing.height) // 32
    for index in range(3):
        _circle(
            pen, drawing, digest[1 + 3 * index : 4 + 3 * index], _color(hue, 0.72 - 0.04 * index)
        )
    frame = (2 * unit, 2 * unit, drawing.width - 2 * unit, drawing.height - 2 * unit)
    pen.rounded_rectangle(frame, radius=unit, outline=_color(hue, 0.30), width=max(2, unit // 6))
    ink = _color(hue, 0.16)
    _write(pen, drawing, unit, ink)
    return image


def _circle(pen: ImageDraw.ImageDraw, drawing: Drawing, where: bytes, color: Color) -> None:
    radius = min(drawing.width, drawing.height) * (64 + where[2]) // 1024
    centre = (drawing.width * where[0] // 256, drawing.height * where[1] // 256)
    pen.circle(centre, radius, fill=color)


def _write(pen: ImageDraw.ImageDraw, drawing: Drawing, unit: int, ink: Color) -> None:
    facts = [
        f"{drawing.model}   {drawing.width}x{drawing.height}   {drawing.quality}",
        drawing.name,
    ]
    if drawing.references:
        facts.insert(0, f"edit of {drawing.references} uploaded file(s)")
    small = _font(unit)
    foot = drawing.height - 3 * unit - len(facts) * unit * 3 // 2
    pen.multiline_text((3 * unit, foot), "\n".join(facts), fill=ink, font=small, spacing=unit // 3)

    text = " ".join(drawing.prompt.split())
    text = "".join(character if character.isprintable() else " " for character in text)
    shown = textwrap.shorten(text, _SHOWN_PROMPT_CHARACTERS, placeholder=" ...")
    height = 2 * unit if len(shown) < 160 else unit * 5 // 4
    columns = max(8, (drawing.width - 6 * unit) * 100 // (height * 56))
    lines = textwrap.wrap(shown or text[:_SHOWN_PROMPT_CHARACTERS], columns)
    room = max(1, (foot - 4 * unit) // (height * 4 // 3))
    pen.multiline_text(
        (3 * unit, 3 * unit),
        "\n".join(lines[:room]),
        fill=ink,
        font=_font(height),
        spacing=height // 4,
    )


@functools.lru_cache(maxsize=32)
def _font(height: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=height)


def _color(hue: float, lightness: float) -> Color:
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.45)
    return round(red * 255), round(green * 255), round(blue * 255)
