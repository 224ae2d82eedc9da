"""Provide images, and read those that a run saved."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image


def image(color: str, file_format: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    """Return a real image of one color."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, file_format)
    return buffer.getvalue()


def saved(directory: Path) -> dict[str, bytes]:
    """The images on disk by name."""
    return {file.name: file.read_bytes() for file in (directory / "out/batch").iterdir()}


def encoded(data: bytes) -> str:
    """Base64 as text."""
    return base64.b64encode(data).decode()


RED = image("red")
