"""Small WebP and JPEG copies of images, without their metadata."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from PIL import Image, ImageOps

from batchgen.images.formats import BadImage, Flaw
from batchgen.images.pillow_warnings import without_warnings

ThumbnailKind: TypeAlias = Literal["webp", "jpg"]

_MOST_PIXELS: Final = 120_000_000
_ENCODERS: Final[dict[ThumbnailKind, tuple[str, dict[str, Any]]]] = {
    # Method 1 of 6; more takes three times as long for a tenth of the size.
    "webp": ("WEBP", {"quality": 80, "method": 1}),
    # For mail programs, of which some cannot show WebP.
    "jpg": ("JPEG", {"quality": 76, "optimize": True}),
}


def thumbnail_bytes(source: Path, side: int, kind: ThumbnailKind = "webp") -> bytes:
    """Return a copy that fits into a square of ``side`` pixels, as the content of a file.

    A smaller image keeps its size. Raises BadImage for a file that cannot be decoded, and OSError.
    """
    with source.open("rb") as stream:
        small = _reduced(stream, side)
    name, options = _ENCODERS[kind]
    if name == "JPEG":
        small = _opaque(small)
    buffer = io.BytesIO()
    small.save(buffer, name, **options)
    return buffer.getvalue()


def _opaque(image: Image.Image) -> Image.Image:
    """Return the image on white, since JPEG has no transparency."""
    if image.mode != "RGBA":
        return image
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    return page


def _reduced(stream: object, side: int) -> Image.Image:
    try:
        with without_warnings():
            image = Image.open(stream)  # type: ignore[arg-type]
        if image.width * image.height > _MOST_PIXELS:
            raise BadImage(Flaw.TOO_MANY_PIXELS, f"{image.width}x{image.height} pixels")
        image.draft("RGB", (side, side))
        image.load()
        with without_warnings():
            upright = ImageOps.exif_transpose(image)
        upright.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
        has_alpha = "A" in upright.getbands() or "transparency" in upright.info
        return upright.convert("RGBA" if has_alpha else "RGB")
    except BadImage:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as exc:
        raise BadImage(Flaw.UNDECODABLE, str(exc) or "the image cannot be decoded") from exc
