"""Show a run while it works: a live line, plain lines, or JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final, TextIO

import anyio

from batchgen.console.color import is_colored, shown
from batchgen.console.live_line import live_line, log_line
from batchgen.console.nonblocking_stream import Outlet, outlet_of, unhurried
from batchgen.console.standard_streams import note_loss
from batchgen.console.tally import Counter, RunFacts
from batchgen.engine.events import (
    AttemptEnded,
    JobDone,
    JobHeld,
    Noticed,
    Recovered,
    RunEvent,
    Stopping,
)
from batchgen.engine.throttle.limits import DispatchStatus
from batchgen.job import JobState
from batchgen.money import decimal_string, rounded_dollars
from batchgen.session.presenter import RunProgress
from batchgen.system.shutdown import CTRL_C
from batchgen.text import counted, duration

_POLL_EVERY_S: Final = 2.0
_LIVE_EVERY_S: Final = 0.5
_BAR_FROM_COLUMNS: Final = 100
_BAR_FORMAT: Final = "{percentage:3.0f}%|{bar:20}| {desc}"
_BAR_COLUMNS: Final = len("100%|") + 20 + len("| ")
_DEFAULT_COLUMNS: Final = 80
_WARNINGS_SHOWN: Final = 20


class _Notices(Counter):
    """Chooses the lines that events are worth to a person.

    A provider that ignores the size causes a warning per image; only the first ones are shown.
    """

    def __init__(self, facts: RunFacts) -> None:
        super().__init__(facts)
        self._warned = 0

    def notice(self, event: RunEvent) -> str | None:
        """Return the line for an event, or None."""
        if isinstance(event, Stopping):
            return self._stopping_text(event.reason)
        if isinstance(event, JobDone) and event.warnings:
            self._warned += 1
            if self._warned > _WARNINGS_SHOWN:
                return None
        return _notice(event)

    def _stopping_text(self, reason: str) -> str:
        """Say what is in flight, how long it may take and what another signal would cost."""
        tally = self.tally
        if not tally.in_flight:
            return f"stopping: {reason}; no request is in flight"
        flying = counted(tally.in_flight, "request")
        verb, them = ("is", "it") if tally.in_flight == 1 else ("are", "them")
        text = (
            f"stopping: {reason}; {flying} {verb} in flight and may be charged; waiting at most"
            f" {duration(self.facts.grace_s, whole=True)} for {them}."
        )
        again = "Ctrl-C again" if reason == CTRL_C else "A signal"
        return f"{text} {again} leaves {them} uncertain (up to {rounded_dollars(tally.reserved)})"

    def remaining(self) -> str | None:
        """Return a line about the warnings that were not shown; None without any."""
        count = self._warned - _WARNINGS_SHOWN
        if count <= 0:
            return None
        return f"{counted(count, 'more image')} with warnings; --json and --log-file list them all"


def _notice(event: RunEvent) -> str | None:
    """Return the line for an event on a terminal or in a log; None for most events."""
    match event:
        case JobHeld(key=key, state=state, reason=reason):
            return f"{key}: {state.value}: {reason}"
        case AttemptEnded(key=key, state=state, code=code, message=message) if state in (
            JobState.FAILED,
            JobState.BLOCKED,
            JobState.UNCERTAIN,
        ):
            return f"{key}: {state.value}: {code}: {message}"
        case Recovered(key=key, outcome=outcome, state=state):
            return f"{key}: cut off in an earlier run, {outcome.value}, now {state.value}"
        case JobDone(key=key, warnings=warnings) if warnings:
            return f"{key}: {'; '.join(warnings)}"
        case Noticed(message=message):
            return f"notice: {message}"
        case _:
            return None


class LiveProgress(_Notices):
    """One line at the bottom of a terminal, with notices above it."""

    def __init__(self, facts: RunFacts, stream: TextIO | None) -> None:
        from tqdm import tqdm  # 45 ms to import, and only a terminal needs it

        super().__init__(facts)
        self._stream = stream
        self._is_colored = is_colored(stream)
        self._bar: Any = tqdm(
            total=facts.total,
            file=stream,
            unit="job",
            dynamic_ncols=True,
            leave=False,
            bar_format="{desc}",
        )

    def observe(self, event: RunEvent) -> None:
        """Count the event, and write its notice above the line."""
        self.count(event)
        if isinstance(event, JobDone):
            self._bar.update(1)
        if notice := self.notice(event):
            self._bar.write(notice, file=self._bar.fp)

    async def run(self, throttle: Callable[[], DispatchStatus]) -> None:
        """Redraw twice a second, fitted to the current width of the terminal."""
        while True:
            columns = (self._bar.format_dict["ncols"] or _DEFAULT_COLUMNS) - 1
            has_bar = columns >= _BAR_FROM_COLUMNS - 1
            self._bar.bar_format = _BAR_FORMAT if has_bar else "{desc}"
            width = columns - _BAR_COLUMNS if has_bar else columns
            line = live_line(self, throttle(), width, color=self._is_colored)
            self._bar.set_description_str(line)
            await anyio.sleep(_LIVE_EVERY_S)

    def close(self) -> None:
        """Remove the line; the summary follows."""
        if remaining := self.remaining():
            self._bar.write(remaining, file=self._bar.fp)
        self._bar.close()
        _settle(self._stream)


class PlainProgress(_Notices):
    """A line per minute, and one per notice, for a log or a cron mail."""

    def __init__(self, facts: RunFacts, stream: TextIO | None, *, quiet: bool = False) -> None:
        super().__init__(facts)
        self._stream = stream
        self._quiet = quiet

    def observe(self, event: RunEvent) -> None:
        """Count the event, and write its notice."""
        self.count(event)
        if not self._quiet and (notice := self.notice(event)):
            write_line(self._stream, notice)

    async def run(self, throttle: Callable[[], DispatchStatus]) -> None:
        """Write a line per minute, and one when a longer wait begins."""
        while True:
            await anyio.sleep(_POLL_EVERY_S)
            status = throttle()
            if self.is_due(status) and not self._quiet:
                write_line(self._stream, log_line(self, status))

    def close(self) -> None:
        """Write what remains to be said."""
        if not self._quiet and (remaining := self.remaining()):
            write_line(self._stream, remaining)
        _settle(self._stream)


class JsonProgress(Counter):
    """A JSON object per line, for programs."""

    def __init__(self, facts: RunFacts, stream: TextIO | None) -> None:
        super().__init__(facts)
        self._stream = stream

    def observe(self, event: RunEvent) -> None:
        """Count and write the event."""
        self.count(event)
        self._write(event_record(event))

    async def run(self, throttle: Callable[[], DispatchStatus]) -> None:
        """Write the tally once a minute, and when a longer wait begins."""
        while True:
            await anyio.sleep(_POLL_EVERY_S)
            status = throttle()
            if not self.is_due(status):
                continue
            tally, left_s = self.tally, self.left_s()
            self._write(
                {
                    "event": "progress",
                    "done": tally.done,
                    "total": self.facts.total,
                    "failed": tally.failed,
                    "charged": decimal_string(tally.charged),
                    "maybe": decimal_string(tally.maybe),
                    "reserved": decimal_string(tally.reserved),
                    "in_flight": status.in_flight,
                    "per_minute": round(self.per_minute(), 1),
                    "seconds_left": None if left_s is None else round(left_s),
                    "waiting_for": status.waiting_for,
                }
            )

    def _write(self, record: dict[str, object]) -> None:
        import orjson

        write_line(self._stream, orjson.dumps(record).decode())

    def close(self) -> None:
        """Wait for the reader of the stream."""
        _settle(self._stream)


def _dropped_record(lines: int) -> str:
    import orjson

    return orjson.dumps({"event": "lines_dropped", "lines": lines}).decode()


def _dropped_line(lines: int) -> str:
    was = "line was" if lines == 1 else "lines were"
    return f"{lines:,} {was} dropped, because the reader of this output had stopped"


def _settle(stream: object) -> None:
    if isinstance(stream, Outlet):
        stream.settle()


def event_record(event: RunEvent) -> dict[str, object]:
    """Return an event as JSON-compatible values, with money as a decimal string in dollars."""
    values = asdict(event)
    if "price" in values:
        values["price"] = decimal_string(values["price"])
    return {"event": _snake(type(event).__name__), **values}


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def write_line(stream: TextIO | None, text: str) -> None:
    """Write a line; a reader that is gone does not end a run that costs money.

    ``stream`` is None if the caller closed the descriptor.
    """
    stream = outlet_of(stream) or stream
    if stream is None:
        return
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as exc:
        if stream is sys.stdout:
            note_loss(exc)
    except ValueError:  # closed by other code
        pass


def write_text(stream: TextIO | None, text: str) -> None:
    """Write lines for a person, in color where the stream shows it."""
    write_line(stream, shown(text, stream))


def make_progress(facts: RunFacts, *, json: bool, quiet: bool) -> RunProgress:
    """Return the display for the terminal and the flags."""
    if json:
        return JsonProgress(facts, unhurried(sys.stdout, _dropped_record))
    if not quiet and is_terminal():
        return LiveProgress(facts, unhurried(sys.stderr, _dropped_line))
    return PlainProgress(facts, unhurried(sys.stderr, _dropped_line), quiet=quiet)


def is_terminal() -> bool:
    """Return whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()
