"""Every error batchgen raises on purpose, each with the exit code it leads to.

    BatchgenError             4
    ├── ManifestError         2   the manifest, or a file it names, is not usable
    ├── SettingsError         2   a flag, the environment or the provider settings
    ├── UnknownBatchError     2   a NAME that the ledger does not hold
    ├── LedgerError           2   the ledger cannot be used as it is
    │   └── LedgerBusyError   3   another program locked the ledger for too long
    ├── BatchLockedError     75   another run holds this batch
    └── StoppedError          3   the run was stopped: budget, quota, key or breaker

An error of another kind that reaches the command line is a bug and exits with 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final


class ExitCode(IntEnum):
    """The exit code of the process, as listed in README.md."""

    DONE = 0
    UNFINISHED = 1
    USAGE = 2
    STOPPED = 3
    BUG = 4
    LOCKED = 75
    INTERRUPTED = 130
    TERMINATED = 143


class BatchgenError(Exception):
    """Base of all expected errors. The message says what, where and what would be right."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong with a manifest, at the place where a person can fix it."""

    file: str
    line: int
    """1-based; 0 if the fault concerns the file as a whole."""
    column: int
    """1-based; 0 if only the line is known."""
    path: str
    """Path in the document, such as ``jobs[2].options.size``; empty for the document itself."""
    message: str
    """What is wrong, and what would be right."""

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}"
            if self.column:
                place += f":{self.column}"
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """A violation of a provider's rules by a job, before its place in the manifest is known."""

    place: tuple[str | int, ...]
    """Path in a job: ``("options", "size")``, ``("model",)``, ``("images", 0)``."""
    message: str
    options: tuple[str, ...] = ()
    """The options whose values it concerns."""
    fatal: bool = True
    """Whether the job is refused; else it is planned with a warning."""


class ManifestError(BatchgenError):
    """All faults found in a manifest at once."""

    exit_code = ExitCode.USAGE

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(str(fault) for fault in self.faults))


class SettingsError(BatchgenError):
    """A flag, an environment variable or a provider setting is wrong."""

    exit_code = ExitCode.USAGE


class UnknownBatchError(BatchgenError):
    """The ledger has no batch of that name."""

    exit_code = ExitCode.USAGE


class LedgerError(BatchgenError):
    """The ledger is damaged, of a newer schema, or not a ledger at all. It is never recreated."""

    exit_code = ExitCode.USAGE


class LedgerBusyError(LedgerError):
    """Another program holds the lock of the ledger longer than batchgen waits."""

    exit_code = ExitCode.STOPPED


class BatchLockedError(BatchgenError):
    """Another process runs this batch."""

    exit_code = ExitCode.LOCKED


class StoppedError(BatchgenError):
    """A run may not start or continue: budget, quota, key or breaker."""

    exit_code = ExitCode.STOPPED


_MAX_NOTES: Final = 10


def one_error(exc: BaseException) -> BaseException:
    """Return the one exception to raise in place of a group; any other exception unchanged.

    A cancellation, KeyboardInterrupt or SystemExit comes first, because nothing may hide it. Then
    comes the first BatchgenError, then the first exception. The exceptions that are left out become
    notes of the one that is returned, at most 10 of them.
    """
    if not isinstance(exc, BaseExceptionGroup):
        return exc
    leaves = list(_leaves(exc))
    chosen = min(leaves, key=_rank)
    others = (leaf for leaf in leaves if leaf is not chosen and isinstance(leaf, Exception))
    notes = list(dict.fromkeys(f"also raised: {type(leaf).__name__}: {leaf}" for leaf in others))
    for note in notes[:_MAX_NOTES]:
        chosen.add_note(note)
    if len(notes) > _MAX_NOTES:
        chosen.add_note(f"also raised: {len(notes) - _MAX_NOTES} more exceptions")
    return chosen


def message_of(exc: BaseException) -> str:
    """Return the message of an exception and, on lines of their own, its notes."""
    return "\n".join([str(exc), *getattr(exc, "__notes__", ())])


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group in their order; groups may be nested to any depth."""
    left = [exc]
    while left:
        found = left.pop()
        if isinstance(found, BaseExceptionGroup):
            left += reversed(found.exceptions)
        else:
            yield found


def _rank(exc: BaseException) -> int:
    if isinstance(exc, KeyboardInterrupt | SystemExit):
        return 0
    if not isinstance(exc, Exception):  # the cancellation of an event loop
        return 1
    return 2 if isinstance(exc, BatchgenError) else 3
