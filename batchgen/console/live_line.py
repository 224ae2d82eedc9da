"""Compose the line that shows a run's progress, for a terminal or a log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from batchgen.console.color import Style, styled
from batchgen.console.tally import Counter
from batchgen.engine.throttle.limits import DispatchStatus
from batchgen.money import rounded_dollars
from batchgen.text import counted, duration

GAP: Final = "  "
_SHOWN_PER_MINUTE: Final = 6000
"""A learned rate above this does not slow down any run."""
_COOL_DOWN: Final = re.compile(r"cool-down after (\d+)[^:]*: (\d+) s")
_RATE_LIMIT: Final = re.compile(r"rate limit: (\d+) s")


@dataclass(frozen=True, slots=True)
class Field:
    """One part of the line."""

    text: str
    short: str = ""
    """Used if the whole line does not fit; empty without a shorter form."""
    style: Style | None = None


def live_line(counter: Counter, throttle: DispatchStatus, width: int, *, color: bool) -> str:
    """Return the fields that fit into ``width`` columns, the most important first.

    If not all fit, short forms are used, then the last fields are left out. Amounts and counts keep
    their width during a run, so that the line does not jump.
    """
    fields = _fields(counter, throttle)
    if _columns(fields) > width:
        fields = [Field(field.short or field.text, style=field.style) for field in fields]
    while len(fields) > 1 and _columns(fields) > width:
        fields.pop()
    return GAP.join(styled(field.text, field.style, on=color) for field in fields)


def _columns(fields: list[Field]) -> int:
    return sum(len(field.text) for field in fields) + len(GAP) * (len(fields) - 1)


def _fields(counter: Counter, throttle: DispatchStatus) -> list[Field]:
    """Return all fields by worth: what remains, money and trouble, then the details."""
    tally = counter.tally
    total = f"{counter.facts.total:,}"
    fields = [Field(f"{tally.done:>{len(total)},}/{total}")]
    left_s = counter.left_s()
    if left_s is not None:
        fields.append(Field(f"{duration(left_s, whole=True):>7} left"))
    charged = rounded_dollars(tally.charged)
    if counter.facts.budget is None:
        fields.append(Field(f"{charged:>7} charged"))
    else:
        budget = rounded_dollars(counter.facts.budget)
        fields.append(Field(f"{charged:>{len(budget)}} of {budget}"))
    if tally.failed:
        fields.append(Field(f"{tally.failed:,} failed", style=Style.RED))
    if cause := _cause(throttle, counter.facts.concurrency):
        fields.append(cause)
    if left_s is not None:
        fields.append(Field(f"{counter.per_minute():>4.0f}/min"))
    flying = f"{throttle.in_flight:>{len(str(throttle.width))}} in flight"
    fields.append(Field(flying))
    if tally.maybe:
        fields.append(Field(f"possible {rounded_dollars(tally.maybe)}", style=Style.YELLOW))
    if tally.reserved:
        fields.append(Field(f"{rounded_dollars(tally.reserved):>5} reserved"))
    return fields


def _cause(throttle: DispatchStatus, concurrency: int) -> Field | None:
    """Return why the run is slower than it could be; None if it is not."""
    if throttle.waiting_for:
        short = _COOL_DOWN.sub(r"\1: wait \2s", throttle.waiting_for)
        short = _RATE_LIMIT.sub(r"rate limit: \1s", short)
        return Field(f"waiting for {throttle.waiting_for}", short, Style.YELLOW)
    if throttle.stopped:
        return Field(f"stopping: {throttle.stopped}", "stopping", Style.YELLOW)
    if throttle.per_minute is not None and throttle.per_minute < _SHOWN_PER_MINUTE:
        rate = f"{throttle.per_minute:.0f}"
        return Field(f"slowed by 429 to {rate} per minute", f"slowed: {rate}/min", Style.YELLOW)
    if throttle.width < concurrency:
        text = f"slowed by 429 or overload to {throttle.width} of {concurrency}"
        return Field(text, f"slowed: {throttle.width}/{concurrency}", Style.YELLOW)
    return None


def log_line(counter: Counter, throttle: DispatchStatus) -> str:
    """Return everything in words, for a log."""
    tally, facts = counter.tally, counter.facts
    parts = [f"{tally.done:,} of {counted(facts.total, 'job')} done"]
    left_s = counter.left_s()
    if left_s is not None:
        parts.append(f"about {duration(left_s, whole=True)} left")
    parts.append(f"{counter.per_minute():.0f} images per minute")
    of_budget = "" if facts.budget is None else f" of {rounded_dollars(facts.budget)}"
    parts.append(f"charged {rounded_dollars(tally.charged)}{of_budget}")
    if tally.maybe:
        parts.append(f"possible {rounded_dollars(tally.maybe)}")
    if tally.reserved:
        parts.append(f"reserved {rounded_dollars(tally.reserved)}")
    if tally.failed:
        parts.append(f"{tally.failed:,} failed")
    if cause := _cause(throttle, facts.concurrency):
        parts.append(cause.text)
    parts.append(f"{throttle.in_flight:,} of {throttle.width:,} in flight")
    return ", ".join(parts)
