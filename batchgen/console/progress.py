"""What a person or a program sees while a run goes on: a live line, plain lines, or JSON lines."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, TextIO

import anyio

from batchgen.console.nonblocking_stream import Outlet, behind, unhurried
from batchgen.console.standard_streams import note_loss
from batchgen.engine.events import (
    AttemptEnded,
    AttemptStarted,
    DownloadRetried,
    JobDone,
    JobHeld,
    Recovered,
    RunEvent,
    Stopping,
)
from batchgen.engine.throttle.limits import DispatchStatus
from batchgen.job import Billed, JobState
from batchgen.money import decimal_string, dollars
from batchgen.session.presenter import RunProgress

_SHOWN_PER_MINUTE: Final = 6000
"""A learned rate above this does not slow down any run."""
_RATE_WINDOW_S: Final = 120.0
_PLAIN_EVERY_S: Final = 60.0
_LOOK_EVERY_S: Final = 2.0
"""A wait that is seen at two looks in a row is shown at once, once a minute for each kind."""
_NUMBER: Final = re.compile(r"\d+")
_LIVE_EVERY_S: Final = 0.5
_WARNINGS_SHOWN: Final = 20


@dataclass(slots=True)
class Tally:
    """Counts and money of this run so far, in micros."""

    total: int
    done: int = 0
    held: int = 0
    reserved: int = 0
    charged: int = 0
    maybe: int = 0


class _Counting:
    """The tally that all faces keep."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.tally = Tally(total=total)
        self._clock = clock
        self._finished: deque[float] = deque()
        self._started = self._shown_at = clock()
        self._waits_seen = ""
        self._waits_shown: set[str] = set()

    def observe(self, event: RunEvent) -> None:
        """Count it."""
        tally = self.tally
        match event:
            case AttemptStarted(price=price):
                tally.reserved += price
            case AttemptEnded(price=price, billed=billed, state=state):
                tally.reserved -= price
                tally.charged += price if billed is Billed.YES else 0
                tally.maybe += price if billed is Billed.MAYBE else 0
                if state in (JobState.FAILED, JobState.BLOCKED, JobState.UNCERTAIN):
                    tally.held += 1
            case JobDone():
                tally.done += 1
                self._finished.append(self._clock())
            case JobHeld():
                tally.held += 1
            case DownloadRetried() | Recovered() | Stopping():
                pass

    def is_due(self, throttle: DispatchStatus) -> bool:
        """Whether to say where things are: each minute, and when a longer wait has begun."""
        now = self._clock()
        wait = _NUMBER.sub("", throttle.waiting_for or "")
        lasts = bool(wait) and wait == self._waits_seen and wait not in self._waits_shown
        self._waits_seen = wait
        if now - self._shown_at >= _PLAIN_EVERY_S:
            self._shown_at = now
            self._waits_shown = {wait}
            return True
        if lasts:
            self._waits_shown.add(wait)
        return lasts

    def per_minute(self) -> float:
        """Images a minute, over the last two minutes or since the start."""
        now = self._clock()
        while self._finished and self._finished[0] < now - _RATE_WINDOW_S:
            self._finished.popleft()
        span = min(_RATE_WINDOW_S, now - self._started)
        return len(self._finished) / span * 60 if span >= 1 else 0.0

    def sentence(self, throttle: DispatchStatus) -> str:
        """Everything in one line."""
        tally = self.tally
        parts = [
            f"{tally.done:,}/{tally.total:,} done",
            f"{self.per_minute():.0f} images/min",
            f"{dollars(tally.charged)} spent",
        ]
        if tally.maybe:
            parts.append(f"{dollars(tally.maybe)} in doubt")
        if tally.reserved:
            parts.append(f"{dollars(tally.reserved)} reserved")
        if tally.held:
            parts.append(f"{tally.held:,} held or failed")
        parts.append(waiting(throttle))
        return ", ".join(parts)


def waiting(throttle: DispatchStatus) -> str:
    """What the run is waiting for."""
    if throttle.waiting_for:
        return f"waiting for {throttle.waiting_for}"
    if throttle.stopped:
        return f"ending, {throttle.in_flight} in flight"
    return f"{throttle.in_flight} of {throttle.width} in flight{_slowed(throttle)}"


def _slowed(throttle: DispatchStatus) -> str:
    """How far 429s slow the run down; empty if they do not."""
    if throttle.per_minute is not None and throttle.per_minute < _SHOWN_PER_MINUTE:
        return f", slowed to {throttle.per_minute:.0f} per minute by 429"
    if throttle.width < throttle.limit:
        return f", slowed to {throttle.width} of {throttle.limit} by 429"
    return ""


def _notice(event: RunEvent) -> str | None:
    """The line that an event is worth on a terminal or in a log of lines."""
    match event:
        case Stopping(reason=reason):
            return f"stopping: {reason}; what is in flight finishes"
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
        case _:
            return None


class _Telling(_Counting):
    """The lines that events are worth to a person.

    A provider that ignores the size warns with each of a thousand images, of which some will do.
    """

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self._warned = 0

    def notice(self, event: RunEvent) -> str | None:
        """The line for an event, if there is one."""
        if isinstance(event, JobDone) and event.warnings:
            self._warned += 1
            if self._warned > _WARNINGS_SHOWN:
                return None
        return _notice(event)

    def rest(self) -> str | None:
        """The line for all that had none of their own, in the end."""
        unsaid = self._warned - _WARNINGS_SHOWN
        if unsaid <= 0:
            return None
        return f"{unsaid:,} more images came with warnings; --json and --log-file tell of each"


class LiveProgress(_Telling):
    """A bar on a terminal, with notices above it."""

    def __init__(self, total: int, stream: TextIO | None) -> None:
        from tqdm import tqdm  # 45 ms to import, and only a terminal needs it

        super().__init__(total)
        self._stream = stream
        self._bar: Any = tqdm(
            total=total,
            file=stream,
            unit="job",
            dynamic_ncols=True,
            leave=False,
            bar_format="{percentage:3.0f}%|{bar:20}| {desc} [{elapsed}<{remaining}]",
        )

    def observe(self, event: RunEvent) -> None:
        """Count it, and move the bar."""
        super().observe(event)
        if isinstance(event, JobDone):
            self._bar.update(1)
        if notice := self.notice(event):
            self._bar.write(notice, file=self._bar.fp)

    async def run(self, throttle: Callable[[], DispatchStatus]) -> None:
        """Redraw twice a second."""
        while True:
            self._bar.set_description_str(self.sentence(throttle()))
            await anyio.sleep(_LIVE_EVERY_S)

    def close(self) -> None:
        """Take the bar away; the summary follows."""
        if rest := self.rest():
            self._bar.write(rest, file=self._bar.fp)
        self._bar.close()
        _settle(self._stream)


class PlainProgress(_Telling):
    """A line a minute, and one for what a person should know, as in a cron mail or a log."""

    def __init__(self, total: int, stream: TextIO | None, *, quiet: bool = False) -> None:
        super().__init__(total)
        self._stream = stream
        self._quiet = quiet

    def observe(self, event: RunEvent) -> None:
        """Count it, and say it if it matters."""
        super().observe(event)
        if not self._quiet and (notice := self.notice(event)):
            write_line(self._stream, notice)

    async def run(self, throttle: Callable[[], DispatchStatus]) -> None:
        """Say where things are, a line a minute, and what a longer wait is for."""
        while True:
            await anyio.sleep(_LOOK_EVERY_S)
            status = throttle()
            if self.is_due(status) and not self._quiet:
                write_line(self._stream, self.sentence(status))

    def close(self) -> None:
        """Nothing is left on the screen."""
        if not self._quiet and (rest := self.rest()):
            write_line(self._stream, rest)
        _settle(self._stream)


class JsonProgress(_Counting):
    """A JSON object a line, for programs."""

    def __init__(self, total: int, stream: TextIO | None) -> None:
        super().__init__(total)
        self._stream = stream

    def observe(self, event: RunEvent) -> None:
        """Write the event."""
        super().observe(event)
        self._write(event_record(event))

    async def run(self, throttle: Callable[[], DispatchStatus]) -> None:
        """Write the tally, a line a minute, and when a longer wait has begun."""
        while True:
            await anyio.sleep(_LOOK_EVERY_S)
            status = throttle()
            if not self.is_due(status):
                continue
            tally = self.tally
            self._write(
                {
                    "event": "progress",
                    "done": tally.done,
                    "total": tally.total,
                    "charged": decimal_string(tally.charged),
                    "maybe": decimal_string(tally.maybe),
                    "reserved": decimal_string(tally.reserved),
                    "waiting_for": status.waiting_for,
                }
            )

    def _write(self, record: dict[str, object]) -> None:
        import orjson

        write_line(self._stream, orjson.dumps(record).decode())

    def close(self) -> None:
        """Nothing is left on the screen."""
        _settle(self._stream)


def _dropped_record(lines: int) -> str:
    import orjson

    return orjson.dumps({"event": "lines_dropped", "lines": lines}).decode()


def _dropped_line(lines: int) -> str:
    return f"{lines:,} lines were dropped that nobody read"


def _settle(stream: object) -> None:
    if isinstance(stream, Outlet):
        stream.settle()


def event_record(event: RunEvent) -> dict[str, object]:
    """An event for other programs; money as a decimal string in dollars."""
    values = asdict(event)
    if "price" in values:
        values["price"] = decimal_string(values["price"])
    return {"event": _snake(type(event).__name__), **values}


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def write_line(stream: TextIO | None, text: str) -> None:
    """Write a line; a reader that is gone does not end a run that costs money.

    Python has no stream at all where the caller closed it.
    """
    stream = behind(stream) or stream
    if stream is None:
        return
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as exc:
        if stream is sys.stdout:
            note_loss(exc)
    except ValueError:  # closed by somebody else
        pass


def make_progress(total: int, *, json: bool, quiet: bool) -> RunProgress:
    """The face that fits the terminal and the flags."""
    if json:
        return JsonProgress(total, unhurried(sys.stdout, _dropped_record))
    if not quiet and is_terminal():
        return LiveProgress(total, unhurried(sys.stderr, _dropped_line))
    return PlainProgress(total, unhurried(sys.stderr, _dropped_line), quiet=quiet)


def is_terminal() -> bool:
    """Return whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()
