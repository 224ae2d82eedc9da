"""What a reconciliation found, for a person and for a program."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from batchgen.job import Billed
from batchgen.ledger.reconciliation import Moved
from batchgen.money import decimal_string, dollars
from batchgen.outcomes.classify import clean
from batchgen.reconciliation.charges import UsageLog
from batchgen.reconciliation.settlement import Reconciliation, Settled, Why

_SHOWN: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """A reconciliation that is written down."""

    batch: str
    source: str
    """Where the log is from."""
    log: UsageLog
    attempts: int
    """Of the batch, that were held against it."""
    found: Reconciliation
    moved: Moved


def reconcile_text(done: Reconciled) -> str:
    """What was settled, what is open and what is wrong, and the next step."""
    found, log = done.found, done.log
    lines = [
        f"{done.batch}: {done.attempts:,} requests against {done.source}",
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
        (surprises, "were taken for free and are charged"),
        (other, "are charged another amount than was recorded"),
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
        f" {dollars(drift.price)}, for {drift.requests:,} requests"
        for drift in found.drift
    ]
    if found.agrees:
        lines.append("  the ledger and the log agree")
    return "\n".join([*lines, *_next_steps(done)])


def _line(count: int, what: str, amount: int) -> list[str]:
    return [f"  {count:>9,}  {what}: {dollars(amount)}"] if count else []


def _open_lines(found: Reconciliation) -> list[str]:
    lines = []
    for why, count in Counter(one.why for one in found.unproven).most_common():
        example = next(one.attempt.key for one in found.unproven if one.why is why)
        lines.append(f"  {count:>9,}  unproven (as {example}): {why.value}")
    for sent in found.missing[:1]:
        cost = dollars(sum(one.cost for one in found.missing))
        lines.append(
            f"  {len(found.missing):>9,}  charged {cost} by our ledger and not in the log"
            f" (as {sent.key})"
        )
    if found.foreign:
        count, cost = len(found.foreign), dollars(sum(charge.amount for charge in found.foreign))
        lines.append(f"  {count:>9,}  foreign charges of {cost}, of no request of this ledger:")
    lines += [
        f"             {_moment(charge.at)}  {clean(charge.model)}  {dollars(charge.amount)}"
        f"  {clean(charge.request_id or '')}".rstrip()
        for charge in found.foreign[:_SHOWN]
    ]
    if len(found.foreign) > _SHOWN:
        lines.append(f"             and {len(found.foreign) - _SHOWN:,} more")
    return lines


def _next_steps(done: Reconciled) -> list[str]:
    moved, lines = done.moved, []
    if moved.pending.jobs:
        lines.append(
            f"{moved.pending.jobs:,} jobs are pending again, estimated at"
            f" {dollars(moved.pending.cost)}; next: batchgen resume {done.batch}"
        )
    if moved.charged:
        lines.append(
            f"{moved.charged:,} jobs stay uncertain: they are charged and their responses are"
            f" lost; batchgen retry {done.batch} --uncertain makes them again and pays again,"
            f" batchgen acknowledge {done.batch} closes them"
        )
    if any(one.why is Why.CUT_OFF for one in done.found.unproven):
        lines.append(f"batchgen resume {done.batch} recovers what a kill cut off")
    if any(one.why is Why.YOUNG for one in done.found.unproven):
        lines.append("reconcile again when the settle window is over")
    if done.found.foreign:
        lines.append("foreign charges: does anyone else use this key? If not, it has leaked")
    return lines


def reconcile_record(done: Reconciled) -> dict[str, object]:
    """The same for other programs; money as decimal strings in dollars."""
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
