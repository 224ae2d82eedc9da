"""Where images wait while images that block each other's paths are moved."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MOVING_DIRECTORY: Final = ".moving"


def moving_path(root: Path, image: int, path: str) -> Path:
    """Return the temporary path of an image below its output directory."""
    return root / MOVING_DIRECTORY / f"{image}{Path(path).suffix}"
