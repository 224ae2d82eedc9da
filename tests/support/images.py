"""Write images of every kind that Pillow writes in the supported formats."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable
from typing import Final

from PIL import Image, features

HAS_AVIF: Final = "avif" in features.get_supported_modules()


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
    """Every kind of file that Pillow writes in the accepted formats, by a name for it."""

    def made(kind: str, mode: str = "RGB", **options: object) -> tuple[str, bytes]:
        return kind, encoded(drawing(width, height, mode), kind, **options)

    exif = exif_with_thumbnail()
    second = drawing(width, height).transpose(Image.Transpose.ROTATE_180)
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
        "webp animated": made("WEBP", save_all=True, append_images=[second]),
        **{f"gif {mode}": made("GIF", mode) for mode in ("P", "L", "1")},
        "gif with transparency": made("GIF", "P", transparency=3),
        "gif with a comment": made("GIF", "P", comment=b"a mug;" * 100),
        "gif interlaced": made("GIF", "P", interlace=1),
        "gif animated": made("GIF", "P", save_all=True, append_images=[second], loop=0),
        **({} if not HAS_AVIF else _avif_images(made, second, exif)),
    }


def _avif_images(
    made: Callable[..., tuple[str, bytes]], second: Image.Image, exif: bytes
) -> dict[str, tuple[str, bytes]]:
    transparent = second.convert("RGBA")
    transparent.putpixel((3, 3), (0, 0, 0, 0))
    return {
        "avif": made("AVIF"),
        "avif alpha": ("AVIF", encoded(transparent, "AVIF")),
        "avif lossless": made("AVIF", quality=100),
        "avif with exif": made("AVIF", exif=exif),
        "avif animated": made("AVIF", save_all=True, append_images=[second]),
    }


SMALL = images(13, 9)

HEIC: Final = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAANoAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABo"
    "dmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEA"
    "GEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAA"
    "AwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAAB"
    "AAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAOJt"
    "ZGF0AAAA1igBrwtg9eVXgqyv0fYcw3eiDOJrUkUe97dNIVDzzq5rvPMXsh/lin6f72ZOAw9c8mbueZpFmZf/QOYqmYjE"
    "oMfLA9lnm1zjugfYOWmyakrAxPh169Z9OyY11MUE3wfIyb1FNvxcnDw88b4odOUbrSh2OC43Fvrm6E4wIHU9vvBMB3pR"
    "juX3HSIoYlNiXjwGiWDLrQF8+K5kn3BLngULfqVZGV9UF9Lp4IkOBSBW6vYQy2b1d+uLYSuDFUd5d27JrEfj2SnYY6rv"
    "Tj1s7dHdubfbt/+wY8A="
)
"""64x48 pixels, written by libheif 1.23 (pillow_heif 1.8.1): Pillow has no encoder."""
HEIC_ALPHA: Final = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAmttZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAADRpbG9jAAAAAERAAAIAAQAAAAACjwABAAAAAAAAANoAAgAAAAADaQABAAAAAAAAABMAAAA4aWluZgAAAAAA"
    "AgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAAACAABodmMxAAAAAA5waXRtAAAAAAABAAABqmlwcnAAAAGC"
    "aXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAq"
    "QgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQAN"
    "AAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBp"
    "eGkAAAAAAwgICAAAAHBodmNDAQQIAAAAn/gAAAAAHvAA/Pz4+AAADwNgAAEAF0ABDAH//wQIAAADAJ/4AAADAAAeugJA"
    "YQABACVCAQEECAAAAwCf+AAAAwAAHsCCBBZbq5Ka5sCAAAAMgAAAAwCEYgABAAZEAcFzwIkAAAAOcGl4aQAAAAABCAAA"
    "ACdhdXhDAAAAAHVybjptcGVnOmhldmM6MjAxNTphdXhpZDoxAAAAACBpcG1hAAAAAAAAAAIAAQWBAgMFhAACBYYDB4iE"
    "AAAAGmlyZWYAAAAAAAAADmF1eGwAAgABAAEAAAD1bWRhdAAAANYoAa8LYPXlV4Ksr9H2HMN3ogzia1JFHve3TSFQ886u"
    "a7zzF7If5Yp+n+9mTgMPXPJm7nmaRZmX/0DmKpmIxKDHywPZZ5tc47oH2DlpsmpKwMT4devWfTsmNdTFBN8HyMm9RTb8"
    "XJw8PPG+KHTlG60odjguNxb65uhOMCB1Pb7wTAd6UY7l9x0iKGJTYl48Bolgy60BfPiuZJ9wS54FC36lWRlfVBfS6eCJ"
    "DgUgVur2EMtm9Xfri2ErgxVHeXduyaxH49kp2GOq7049bO3R3bm327f/sGPAAAAADygBrhbA0DB73j3Sa+P3gA=="
)
"""The same with transparent pixels."""
