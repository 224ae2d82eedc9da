"""Requests to the local endpoint: the key, images, and readers of its responses."""

from __future__ import annotations

import io
from typing import Any

import httpx
from PIL import Image

from tests.support import rig

KEY = {"Authorization": "Bearer sk-test"}
PROMPT = "A ceramic mug"


def ask(
    endpoint: rig.Endpoint, headers: dict[str, str] | None = None, **body: Any
) -> httpx.Response:
    """One generation."""
    fields = {"model": "gpt-image-2", "prompt": PROMPT, **body}
    return httpx.post(
        f"{endpoint.base_url}/images/generations",
        json={name: value for name, value in fields.items() if value is not None},
        headers=KEY if headers is None else headers,
        timeout=60,
    )


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    return response.status_code, response.json()["error"]["code"] or ""


def image_file(mode: str = "RGB", side: int = 64, file_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, file_format)
    return buffer.getvalue()


PNG = ("a.png", image_file(), "image/png")
