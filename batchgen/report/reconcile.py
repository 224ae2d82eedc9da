"""Format the result of a reconciliation as text or JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from batchgen.job import Billed
from batchgen.ledger.reconciliation import Moved
from batchgen.money import decimal_string, dollars, rounded_dollars
from batchgen.outcomes.classify import clean
from batchgen.reconciliation.charges import UsageLog
from batchgen.reconciliation.settlement import Reconciliation, Settled, Why
from batchgen.system.shell_command import batch_command
from batchgen.text import counted

_SHOWN: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """A reconciliation whose results are in the ledger."""

    batch: str
    source: str
    """The log file, or the provider whose log was fetched."""
    log: UsageLog
    attempts: int
    """Number of attempts of the batch that were matched with the log."""
    found: Reconciliation
    moved: Moved


def reconcile_text(done: Reconciled) -> str:
    """Return the settled, open and unexpected charges, and the next steps."""
    found, log = done.found, done.log
    lines = [
        f"{done.batch}: matched {counted(done.attempts, 'request')} with {done.source}",
        f"  {len(log.charges):>9,}  charges from {_moment(log.since)} to {_moment(log.until)}",
    ]
    uncertain = [one for one in found.billed if one.attempt.billed is Billed.MAYBE]
    surprises = [one for one in found.billed if one.attempt.billed is Billed.NO]
    refunded = [
        one
        for one in (*found.billed, *found.unbilled, *found.corrected)
        if one.refunded > one.attempt.refunded
    ]
    other = [one for one in found.corrected if one.refunded == one.attempt.refunded]
    for settled, what in (
        (uncertain, "were uncertain and are charged"),
        (surprises, "were recorded as free and are charged"),
        (other, "are charged a different amount than recorded"),
    ):
        lines += _line(len(settled), what, sum(one.amount for one in settled))
    lines += _line(
        len(found.unbilled),
        "were uncertain and are not charged",
        sum(one.attempt.price for one in found.unbilled),
    )
    lines += _line(
        len(refunded),
        "were refunded",
        sum(one.refunded - one.attempt.refunded for one in refunded),
    )
    lines += _open_lines(found)
    lines += [
        f"  price drift: {drift.model} was charged {dollars(drift.amount)}, not"
        f" {dollars(drift.price)}, for {counted(drift.requests, 'request')}"
        for drift in found.drift
    ]
    if found.agrees:
        lines.append("  the ledger and the log agree")
    return "\n".join([*lines, *_next_steps(done)])


def _line(count: int, what: str, amount: int) -> list[str]:
    return [f"  {count:>9,}  {what}: {rounded_dollars(amount)}"] if count else []


def _open_lines(found: Reconciliation) -> list[str]:
    lines = []
    for why, count in Counter(one.why for one in found.unproven).most_common():
        example = next(one.attempt.key for one in found.unproven if one.why is why)
        lines.append(f"  {count:>9,}  unproven (such as {example}): {why.value}")
    for sent in found.missing[:1]:
        cost = rounded_dollars(sum(one.cost for one in found.missing))
        lines.append(
            f"  {len(found.missing):>9,}  charged {cost} in the ledger and missing in the log"
            f" (such as {sent.key})"
        )
    if found.foreign:
        count = len(found.foreign)
        cost = rounded_dollars(sum(charge.amount for charge in found.foreign))
        lines.append(
            f"  {count:>9,}  foreign charges of {cost} that match no request of this ledger:"
        )
    lines += [
        f"             {_moment(charge.at)}  {clean(charge.model)}  {dollars(charge.amount)}"
        f"  {clean(charge.request_id or '')}".rstrip()
        for charge in found.foreign[:_SHOWN]
    ]
    if len(found.foreign) > _SHOWN:
        lines.append(f"             and {len(found.foreign) - _SHOWN:,} more")
    return lines


def _next_steps(done: Reconciled) -> list[str]:
    moved, lines, name = done.moved, list[str](), done.batch
    if moved.pending.jobs:
        lines.append(
            f"{counted(moved.pending.jobs, 'job')} pending again, estimated at"
            f" {rounded_dollars(moved.pending.cost)}; next: {batch_command('resume', name)}"
        )
    if moved.charged:
        lines.append(
            f"{counted(moved.charged, 'job')} still uncertain: charged, and the response is lost;"
            f" {batch_command('retry', name, '--uncertain')} rebuys them,"
            f" {batch_command('acknowledge', name)} closes them"
        )
    if any(one.why is Why.CUT_OFF for one in done.found.unproven):
        resume = batch_command("resume", name)
        lines.append(f"{resume} recovers requests that a kill interrupted")
    if any(one.why is Why.YOUNG for one in done.found.unproven):
        lines.append("run reconcile again after the settle window (--settle)")
    if done.found.foreign:
        lines.append("foreign charges: if no one else uses this API key, it has leaked")
    return lines


def reconcile_record(done: Reconciled) -> dict[str, object]:
    """Return the result as JSON-compatible values, with money as decimal strings in dollars."""
    found, moved = done.found, done.moved
    return {
        "batch": done.batch,
        "agrees": found.agrees,
        "log": {
            "source": done.source,
            "charges": len(done.log.charges),
            "since": _moment(done.log.since),
            "until": _moment(done.log.until),
        },
        "attempts": done.attempts,
        "billed": [_settled(one) for one in found.billed],
        "unbilled": [_settled(one) for one in found.unbilled],
        "corrected": [_settled(one) for one in found.corrected],
        "unproven": [
            {"attempt": one.attempt.id, "key": one.attempt.key, "why": one.why.name.lower()}
            for one in found.unproven
        ],
        "missing": [{"attempt": one.id, "key": one.key} for one in found.missing],
        "foreign": [
            {
                "at": _moment(charge.at),
                "model": charge.model,
                "amount": decimal_string(charge.amount),
                "request_id": charge.request_id,
            }
            for charge in found.foreign
        ],
        "drift": [
            {
                "model": drift.model,
                "price": decimal_string(drift.price),
                "charged": decimal_string(drift.amount),
                "requests": drift.requests,
            }
            for drift in found.drift
        ],
        "jobs": {"pending_again": moved.pending.jobs, "charged_and_held": moved.charged},
    }


def _settled(one: Settled) -> dict[str, object]:
    return {
        "attempt": one.attempt.id,
        "key": one.attempt.key,
        "charged": decimal_string(one.amount),
        "refunded": decimal_string(one.refunded),
    }


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
