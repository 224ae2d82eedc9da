"""What happens in runs as JSON lines in a file that is rotated, for a morning when it matters."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

import orjson

from batchgen.console.progress import Progress, event_record
from batchgen.engine.events import RunEvent
from batchgen.engine.throttle.limits import DispatchStatus
from batchgen.errors import SettingsError

_MAX_BYTES: Final = 10 * 1024 * 1024
_OLD_FILES: Final = 9


class LoggedProgress:
    """A face of a run that writes each event to a log before it shows it.

    Raises SettingsError where the log can't be written from the start; a disk that is full later
    does not end a run that costs money.
    """

    def __init__(self, shown: Progress, path: Path, *, batch: str) -> None:
        self._shown = shown
        self._batch = batch
        try:
            self._file = _Rotating(path)
        except OSError as exc:
            raise SettingsError(f"{path}: the log can't be written: {exc.strerror}") from exc

    def observe(self, event: RunEvent) -> None:
        """Write it down, and show it."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "batch": self._batch, **event_record(event)}
        self._file.write(orjson.dumps(line).decode())
        self._shown.observe(event)

    async def run(self, throttle: Callable[[], DispatchStatus]) -> None:
        """Show the state of things until cancelled."""
        await self._shown.run(throttle)

    def close(self) -> None:
        """Close the file, and leave the terminal clean."""
        self._file.close()
        self._shown.close()


class _Rotating(RotatingFileHandler):
    """The rotation of the standard library, without its way to report trouble."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_MAX_BYTES, backupCount=_OLD_FILES, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        # Prompts are nobody else's, and what a provider says of them.
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return TextIOWrapper(os.fdopen(handle, "ab"), encoding=self.encoding)

    def write(self, line: str) -> None:
        self.handle(logging.LogRecord("batchgen", logging.INFO, "", 0, line, None, None))

    def handleError(self, record: logging.LogRecord) -> None:
        """Nobody may be there to read of it."""
