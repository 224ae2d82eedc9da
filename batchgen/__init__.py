"""Batchgen: a batch job runner for bulk image generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchgen.version import __version__

if TYPE_CHECKING:
    from batchgen.api import Batch as Batch
    from batchgen.api import Result as Result
    from batchgen.errors import BatchgenError as BatchgenError
    from batchgen.job import JobState as JobState

__all__ = ["Batch", "BatchgenError", "JobState", "Result", "__version__"]

_HOMES = {
    "Batch": "batchgen.api",
    "Result": "batchgen.api",
    "BatchgenError": "batchgen.errors",
    "JobState": "batchgen.job",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: most commands need none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'batchgen' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
