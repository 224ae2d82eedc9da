"""Batchgen: a batch job runner for bulk image generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchgen.version import __version__

if TYPE_CHECKING:
    from batchgen.api import Batch as Batch
    from batchgen.api import Result as Result
    from batchgen.errors import BatchgenError as BatchgenError
    from batchgen.errors import BatchLockedError as BatchLockedError
    from batchgen.errors import ExitCode as ExitCode
    from batchgen.errors import LedgerError as LedgerError
    from batchgen.errors import ManifestError as ManifestError
    from batchgen.errors import SettingsError as SettingsError
    from batchgen.errors import StoppedError as StoppedError
    from batchgen.job import JobState as JobState
    from batchgen.notebook import RunResults as RunResults
    from batchgen.notebook import run as run

__all__ = [
    "Batch",
    "BatchLockedError",
    "BatchgenError",
    "ExitCode",
    "JobState",
    "LedgerError",
    "ManifestError",
    "Result",
    "RunResults",
    "SettingsError",
    "StoppedError",
    "__version__",
    "run",
]

_ERRORS = "batchgen.errors"
_HOMES = {
    "Batch": "batchgen.api",
    "Result": "batchgen.api",
    "RunResults": "batchgen.notebook",
    "run": "batchgen.notebook",
    "JobState": "batchgen.job",
    "ExitCode": _ERRORS,
    "BatchgenError": _ERRORS,
    "BatchLockedError": _ERRORS,
    "LedgerError": _ERRORS,
    "ManifestError": _ERRORS,
    "SettingsError": _ERRORS,
    "StoppedError": _ERRORS,
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use; most commands need none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'batchgen' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
