"""Write the events of runs as JSON lines to a rotating file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

import orjson

from batchgen.console.progress import event_record
from batchgen.engine.events import RunEvent
from batchgen.engine.throttle.limits import DispatchStatus
from batchgen.errors import SettingsError
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.session.presenter import RunProgress

_MAX_BYTES: Final = 10 * 1024 * 1024
_OLD_FILES: Final = 9


class LoggedProgress:
    """A run display that logs each event before it passes it on.

    Raises SettingsError if the log cannot be written from the start. A disk that fills up later
    does not end a run that costs money.
    """

    def __init__(self, shown: RunProgress, path: Path, *, batch: str) -> None:
        self._shown = shown
        self._batch = batch
        try:
            self._file = _Rotating(path)
        except OSError as exc:
            raise SettingsError(f"{path}: the log can't be written: {exc.strerror}") from exc

    def observe(self, event: RunEvent) -> None:
        """Log the event, and pass it on."""
        line = {"time": timestamp(utc_now()), "batch": self._batch, **event_record(event)}
        self._file.write(orjson.dumps(line).decode())
        self._shown.observe(event)

    async def run(self, throttle: Callable[[], DispatchStatus]) -> None:
        """Run the display until cancelled."""
        await self._shown.run(throttle)

    def close(self) -> None:
        """Close the file and the display."""
        self._file.close()
        self._shown.close()


class _Rotating(RotatingFileHandler):
    """The rotation of the standard library, without its error reports."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_MAX_BYTES, backupCount=_OLD_FILES, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        # Prompts and the provider's messages about them are private.
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return TextIOWrapper(os.fdopen(handle, "ab"), encoding=self.encoding)

    def write(self, line: str) -> None:
        self.handle(logging.LogRecord("batchgen", logging.INFO, "", 0, line, None, None))

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore the error: a log that fails must not stop a run."""
