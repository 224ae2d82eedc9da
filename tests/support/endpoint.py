"""Provide the key, an image and an error reader for requests to the local endpoint."""

from __future__ import annotations

import io

import httpx
from PIL import Image

KEY = {"Authorization": "Bearer sk-test"}


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    return response.status_code, response.json()["error"]["code"] or ""


def image_file(mode: str = "RGB", side: int = 64, file_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, file_format)
    return buffer.getvalue()


PNG = ("a.png", image_file(), "image/png")
