"""Write images of every kind that Pillow writes in the supported formats."""

from __future__ import annotations

import io
import random

from PIL import Image


def drawing(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Noise, so that no format shrinks it to nothing."""
    noise = random.Random(width * height).randbytes(width * height * 3)
    return Image.frombytes("RGB", (width, height), noise).convert("RGBA").convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif_with_thumbnail() -> bytes:
    """EXIF whose value is a whole JPEG, end marker included."""
    exif = Image.Exif()
    exif[0x010E] = "a mug"
    exif[0x927C] = encoded(drawing(8, 8), "JPEG")
    return exif.tobytes()


def images(width: int, height: int) -> dict[str, tuple[str, bytes]]:
    """Every kind of file that Pillow writes in the three formats, by a name for it."""

    def made(kind: str, mode: str = "RGB", **options: object) -> tuple[str, bytes]:
        return kind, encoded(drawing(width, height, mode), kind, **options)

    exif = exif_with_thumbnail()
    deep = random.Random(16).randbytes(width * height * 2)
    return {
        **{f"png {mode}": made("PNG", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")},
        "png 16 bit": ("PNG", encoded(Image.frombytes("I;16", (width, height), deep), "PNG")),
        "png with exif": made("PNG", exif=exif),
        **{f"jpeg {mode}": made("JPEG", mode) for mode in ("RGB", "L", "CMYK")},
        "jpeg progressive": made("JPEG", progressive=True),
        "jpeg with exif": made("JPEG", exif=exif),
        "jpeg with profile": made("JPEG", icc_profile=b"p" * 70_000),
        "jpeg with restarts": made("JPEG", restart_marker_blocks=1),
        "webp lossy": made("WEBP"),
        "webp lossy alpha": made("WEBP", "RGBA"),
        "webp lossless": made("WEBP", lossless=True),
        "webp lossless alpha": made("WEBP", "RGBA", lossless=True),
        "webp with exif": made("WEBP", exif=exif),
        "webp lossless with exif": made("WEBP", lossless=True, exif=exif),
    }


SMALL = images(13, 9)
