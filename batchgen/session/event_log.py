"""Pass the events of a run to `logging`, for programs that use the Python API."""

from __future__ import annotations

import logging
from typing import Final

from batchgen.engine.events import (
    AttemptEnded,
    AttemptStarted,
    DownloadRetried,
    JobDone,
    JobHeld,
    Noticed,
    Recovered,
    RunEvent,
    Stopping,
)
from batchgen.job import JobState

LOGGER: Final = logging.getLogger("batchgen")
# Without a handler, Python would print warnings to stderr; the API prints nothing.
LOGGER.addHandler(logging.NullHandler())
_TROUBLE: Final = (JobState.FAILED, JobState.BLOCKED, JobState.UNCERTAIN)


def log_event(batch: str, event: RunEvent) -> None:
    """Log an event: problems as warnings, images as info, all else as debug.

    Records have the attributes ``batch`` and ``event``, the event itself.
    """
    level = _level(event)
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, "%s: %s", batch, _text(event), extra={"batch": batch, "event": event})


def _level(event: RunEvent) -> int:
    match event:
        case JobHeld() | Stopping():
            return logging.WARNING
        case AttemptEnded(state=state) if state in _TROUBLE:
            return logging.WARNING
        case JobDone() | Noticed():
            return logging.INFO
        case _:
            return logging.DEBUG


def _text(event: RunEvent) -> str:
    match event:
        case Stopping(reason=reason):
            return f"stopping: {reason}"
        case Noticed(message=message):
            return message
        case JobHeld(key=key, state=state, reason=reason):
            return f"{key}: {state.value}: {reason}"
        case AttemptEnded(key=key, state=state, outcome=outcome, code=code, message=message):
            detail = f", {code}: {message}" if code else ""
            return f"{key}: {outcome.value}, now {state.value}{detail}"
        case JobDone(key=key, paths=paths, warnings=warnings):
            notes = f" ({'; '.join(warnings)})" if warnings else ""
            return f"{key}: done: {', '.join(paths)}{notes}"
        case AttemptStarted(key=key, attempt=attempt):
            return f"{key}: request {attempt}"
        case DownloadRetried(key=key, reason=reason, wait_s=wait_s):
            return f"{key}: download retried in {wait_s:.0f} s: {reason}"
        case Recovered(key=key, outcome=outcome, state=state):
            return f"{key}: cut off in an earlier run, {outcome.value}, now {state.value}"
