"""Copies without metadata of images in formats whose metadata cannot be cut out: as WebP."""

from __future__ import annotations

import io
import warnings
from typing import Final

from PIL import Image, ImageOps

from batchgen.images.formats import BadImage, Flaw
from batchgen.images.inspect import inspect

_QUALITY: Final = 90


def plain_copy(data: bytes) -> bytes:
    """Return a WebP with the pixels of an image, and all frames of an animation.

    Raises BadImage for a file that is not complete, or that this Pillow cannot decode.
    """
    kind = inspect(data).format
    copy = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=[kind.upper()]) as image:
                if getattr(image, "is_animated", False):
                    image.save(copy, "WEBP", save_all=True, quality=_QUALITY)
                else:
                    upright = ImageOps.exif_transpose(image)
                    profile = image.info.get("icc_profile")
                    upright.save(copy, "WEBP", quality=_QUALITY, icc_profile=profile)
    except MemoryError:
        raise  # the machine's fault, not the image's
    except Exception as error:  # Pillow raises errors of a dozen kinds for damaged images
        raise BadImage(Flaw.UNDECODABLE, f"the {kind} cannot be decoded: {error}") from error
    return copy.getvalue()
