"""Check the uploaded images and mask of an edit by their bytes, as the upstream provider does."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from batchgen.simulator.errors import CARRIER, ApiError, invalid_value
from batchgen.simulator.models.fields import missing
from batchgen.simulator.models.rules import Reference

MAX_IMAGES = 16
_MAX_IMAGE_BYTES = 50 * 1024 * 1024
_MAX_MASK_BYTES = 4 * 1024 * 1024
_MIME_TYPES = ("image/png", "image/jpeg", "image/webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file part of the form."""

    content: bytes
    mime_type: str | None


@dataclass(frozen=True, slots=True)
class _Header:
    format: str
    size: tuple[int, int]
    has_alpha: bool


def check_uploads(images: list[Upload], mask: Upload | None) -> tuple[Reference, ...]:
    """Return the files in order, the mask last, if all are acceptable.

    Source: https://platform.openai.com/docs/api-reference/images/createEdit. Raises ApiError.
    """
    if not images:
        raise missing("image")
    if len(images) > MAX_IMAGES:
        raise invalid_value("image", f"{len(images)} images; at most {MAX_IMAGES} are allowed.")
    headers = [_checked(image, "image", _MAX_IMAGE_BYTES) for image in images]
    files = list(images)
    if mask is not None:
        files.append(mask)
        headers.append(_checked(mask, "mask", _MAX_MASK_BYTES))
        _check_mask(headers[-1], headers[0])
    return tuple(map(_reference, files, headers))


def check_reference(upload: Upload, param: str) -> Reference:
    """Return one file if it is acceptable. Raises ApiError."""
    return _reference(upload, _checked(upload, param, _MAX_IMAGE_BYTES))


def _reference(upload: Upload, header: _Header) -> Reference:
    width, height = header.size
    digest = hashlib.sha256(upload.content).hexdigest()
    return Reference(digest=digest, width=width, height=height)


def _checked(upload: Upload, param: str, max_bytes: int) -> _Header:
    if upload.mime_type not in _MIME_TYPES:
        raise ApiError(
            400,
            f"Invalid file '{param}': unsupported mimetype ('{upload.mime_type}'). "
            f"Supported file formats are {', '.join(_MIME_TYPES)}.",
            type="invalid_request_error",
            code="unsupported_file_mimetype",
            param=param,
        )
    if len(upload.content) > max_bytes:
        raise invalid_value(param, f"The file is larger than {max_bytes} bytes.")
    try:
        with Image.open(io.BytesIO(upload.content), formats=("PNG", "JPEG", "WEBP")) as image:
            header = _Header(image.format or "", image.size, image.has_transparency_data)
            image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise ApiError(
            400,
            "The image file is invalid or could not be read.",
            type=CARRIER,
            code="invalid_image_file",
            param=param,
        ) from None
    return header


def _check_mask(mask: _Header, first_image: _Header) -> None:
    if mask.format != "PNG" or not mask.has_alpha:
        raise invalid_value("mask", "The mask must be a PNG with an alpha channel.")
    if mask.size != first_image.size:
        raise invalid_value("mask", "The mask must have the same dimensions as the first image.")
