"""Find the modules of the package."""

from __future__ import annotations

from pathlib import Path

import batchgen

PACKAGE = Path(batchgen.__file__).parent


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below ``batchgen``."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }
