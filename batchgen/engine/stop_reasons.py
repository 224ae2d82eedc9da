"""The causes of a stop of dispatch that are not the provider's: the word before the colon."""

from __future__ import annotations

from typing import Final

BUDGET: Final = "budget"
BUG: Final = "bug"
DISK: Final = "disk"
LEDGER: Final = "ledger"
STORAGE: Final = "storage"
"""A bucket."""


def prevents_saving(reason: str | None) -> bool:
    """Return whether no image can be saved for this reason, even if it costs nothing."""
    return _cause(reason) in (DISK, LEDGER, STORAGE)


def stops_all_batches(reason: str | None) -> bool:
    """Return whether this reason stops every batch on this machine, at any provider."""
    return _cause(reason) in (DISK, LEDGER, BUG)


def stops_provider(reason: str | None) -> bool:
    """Return whether this reason stops every batch at the same provider.

    Another batch may have another budget, or save its images elsewhere.
    """
    return reason is not None and _cause(reason) not in (BUDGET, STORAGE)


def _cause(reason: str | None) -> str:
    # The whole word: a provider's error may be "budget_exceeded".
    return (reason or "").partition(":")[0]
