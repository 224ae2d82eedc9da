"""Small WebP copies of images, without their metadata."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps

from batchgen.images.formats import BadImage, Flaw
from batchgen.images.pillow_warnings import without_warnings

_MOST_PIXELS: Final = 120_000_000
_QUALITY: Final = 80
_EFFORT: Final = 1
"""Of 6; more takes three times as long for a tenth of the size."""


def make_thumbnail(source: Path, target: Path, side: int) -> None:
    """Write a copy that fits into a square of ``side`` pixels; ``target`` appears whole or not.

    A smaller image keeps its size. Raises BadImage for a file that cannot be decoded, and OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as stream:
        small = _reduced(stream, side)
    part = target.with_name(f".{target.name}.{os.getpid()}.{id(small):x}.part")
    try:
        small.save(part, "WEBP", quality=_QUALITY, method=_EFFORT)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


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
