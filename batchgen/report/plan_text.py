"""Format a plan, and why a job is in its group, as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from batchgen.ledger.budgets import PERIOD_TEXT, Budget
from batchgen.ledger.groups import Group, GroupSum
from batchgen.ledger.sharing import NO_REPEATS, Repeats
from batchgen.money import Micros, decimal_string, dollars, rounded_dollars
from batchgen.planning.changes import differences
from batchgen.planning.cost_estimate import Estimate, WhatIf
from batchgen.report.status import minute
from batchgen.text import duration

if TYPE_CHECKING:
    from batchgen.ledger.explain import JobExplanation

_GROUP_TEXT = {
    Group.NEW: "new",
    Group.CHANGED: "changed since their image was made",
    Group.REVISED: "changed since they failed or were blocked",
    Group.STALE: "to be regenerated (refresh)",
    Group.REJECTED: "rejected in review, to be regenerated",
    Group.REDO: "redo requested with another prompt",
    Group.PENDING: "waiting from an earlier run",
    Group.RETRIED: "failed at no cost, retried",
    Group.IN_FLIGHT: "in flight when the last run was killed; rebought within max_waste",
    Group.HELD: "in flight when the last run was killed; over max_waste, left uncertain",
    Group.PAID_CHANGED: "paid, then changed; downloaded, then regenerated",
    Group.PAID: "paid, only downloaded",
    Group.UNCERTAIN: "uncertain, waiting for your decision",
    Group.FAILED: "failed before, left alone",
    Group.BLOCKED: "blocked before, left alone",
    Group.MOVED: "done, to be moved to their new path",
    Group.UNCHANGED: "done and unchanged",
    Group.REFUSED: "not sent because a reference image is missing",
    Group.AT_FAULT: "not sent because of an error in their row",
    Group.KEPT: "done, kept; their row has an error now",
    Group.SHARED: "share the image of another job",
    Group.RETIRED: "no longer in the manifest",
}


def plan_heading(name: str, provider: str, price_source: str) -> str:
    """Return the first line of a plan."""
    return f"{name}: provider {provider}, prices from {price_source or 'no source'}"


def plan_text(
    heading: str,
    groups: Mapping[Group, GroupSum],
    quote: Estimate,
    budgets: Sequence[Budget],
    *,
    unfetched: int = 0,
    repeats: Repeats = NO_REPEATS,
    has_unpriced: bool = False,
    unpublished: Sequence[str] = (),
) -> str:
    """Return what a run would do and cost: one line per group, budgets, time, and the what-if.

    ``unfetched``: number of reference images given by URL that have not been downloaded yet.
    ``has_unpriced``: a price of 0 means unknown. ``unpublished``: lines about images that wait.
    """
    free = sum(found.free for group, found in groups.items() if group.is_sent)
    unpriced = free if has_unpriced else 0
    lines = [heading]
    lines += [_group_line(group, groups[group], has_unpriced) for group in Group if group in groups]
    if unfetched:
        lines.append(f"  {unfetched:>9,}  {unfetched_text(unfetched)}; the run downloads first")
    lines += unpublished
    lines += _quote_lines(quote, budgets, unpriced)
    if repeats.jobs:
        lines.append(f"  {repeats_text(repeats, is_priced=bool(repeats.cost) or not unpriced)}")
    return "\n".join(lines)


def repeats_text(repeats: Repeats, *, is_priced: bool = True) -> str:
    """Return how many jobs repeat another job, and how to pay for one request only."""
    jobs = "1 job repeats" if repeats.jobs == 1 else f"{repeats.jobs:,} jobs repeat"
    cost = rounded_dollars(repeats.cost) if is_priced else "price unknown"
    return f"{jobs} another job: {cost}; share: true makes each image once"


def _group_line(group: Group, found: GroupSum, has_unpriced: bool) -> str:
    if group is Group.SHARED:
        return _counted(found.jobs, _GROUP_TEXT[group], rounded_dollars(0))
    unpriced = found.free if has_unpriced else 0
    price = _price(found.cost, unpriced) if group.is_sent else ""
    return _counted(found.jobs, _GROUP_TEXT[group], price)


def _price(cost: int, unpriced: int) -> str:
    """Return the price of requests, of which some may have no known price."""
    if not unpriced:
        return rounded_dollars(cost) if cost else ""
    return f"{rounded_dollars(cost)} + unknown" if cost else "unknown"


def _counted(count: int, text: str, price: str) -> str:
    """Return a line of a plan: a count, its meaning, and the price of one request for each."""
    return f"  {count:>9,}  {text:<{_PLAN_TEXT_WIDTH}} {price:>12}".rstrip()


_PLAN_TEXT_WIDTH = 47


def _quote_lines(quote: Estimate, budgets: Sequence[Budget], unpriced: int) -> list[str]:
    if not quote.requests:
        return ["  nothing to send, nothing to pay"]
    due, due_cost = (quote.requests, quote.cost)
    if quote.limit is not None:
        due, due_cost = quote.due, quote.due_cost
    what = "request" if due == 1 else "requests"
    lines = [_counted(due, f"{what} to send, estimated at", _price(due_cost, unpriced))]
    if quote.limit is not None:
        price = _price(quote.cost, unpriced)
        lines.append(_counted(quote.requests, "of them in this run (--limit)", price))
    for budget in budgets:
        short = "; not enough" if quote.cost > budget.left else ""
        lines.append(
            f"  budget for {PERIOD_TEXT[budget.period]}: {rounded_dollars(budget.left)} left of"
            f" {rounded_dollars(budget.max_cost)}{short}"
        )
    lines += _time_lines(quote)
    if quote.what_if is None or unpriced:
        return lines
    return [*lines, _what_if_line(quote.what_if)]


def _time_lines(quote: Estimate) -> list[str]:
    pace = quote.pace
    expected_s = pace.expected_s(quote.requests)
    if expected_s is None:
        return []
    if pace.measured_per_minute is not None:
        why = [f"{pace.measured_per_minute:,.0f} images per minute in the last run"]
    else:
        why = [f"{pace.concurrency:,} in flight"]
        if pace.latency_s is not None:
            why.append(f"{duration(pace.latency_s)} per image so far")
    if pace.per_minute is not None:
        why.append(f"at most {pace.per_minute:g} per minute")
    return [f"  time: about {duration(expected_s)} ({', '.join(why)})"]


def _what_if_line(found: WhatIf) -> str:
    text = f"  if {found.again_percent:f} % are made again: {rounded_dollars(found.total)}"
    if found.per_accepted is None:
        return text
    each = Micros(round(found.per_accepted, -3))
    accepted = f"if {found.accepted_percent:f} % are accepted"
    return f"{text}; {accepted}: {dollars(each)} per accepted image"


def why_text(key: str, found: JobExplanation) -> str:
    """Return what a run would do with one job, and why."""
    head, *rest = _why_lines(found)
    return "\n".join([f"{key}: {head}", *(f"  {line}" for line in rest)])


def why_record(key: str, found: JobExplanation) -> dict[str, object]:
    """Return the same as JSON-compatible values, with money as decimal strings in dollars."""
    head, *changes = _why_lines(found)
    attempt, made = found.attempt, found.decision
    return {
        "key": key,
        "group": found.group.value,
        "is_sent": found.group.is_sent,
        "why": head,
        "changes": changes,
        "state": found.state,
        "reason": found.reason or None,
        "done_at": found.done_at,
        "refused": found.refused,
        "shares": found.shares,
        "attempt": attempt
        and {
            "sent_at": attempt.sent_at,
            "price": decimal_string(attempt.price),
            "request_id": attempt.request_id,
            "billed": attempt.billed,
        },
        "decision": made
        and {
            "decision": str(made.decision),
            "note": made.note,
            "by": made.decided_by,
            "at": made.decided_at,
        },
    }


def _why_lines(found: JobExplanation) -> list[str]:
    image = f"the image of {found.done_at}"
    match found.group:
        case Group.REFUSED | Group.AT_FAULT:
            return [f"not sent, {found.refused}"]
        case Group.KEPT:
            return [f"{image} is kept; its row has an error now, {found.refused}"]
        case Group.UNCHANGED:
            return [f"unchanged since {image}; a run leaves it alone"]
        case Group.MOVED:
            return [f"unchanged since {image}; a run moves it to its new path"]
        case Group.STALE:
            return [f"unchanged, but {image} is to be regenerated (refresh)"]
        case Group.REJECTED | Group.REDO:
            return _decision_lines(found)
        case Group.CHANGED:
            return [f"changed since {image}", *_changes(found)]
        case Group.FAILED | Group.BLOCKED | Group.UNCERTAIN:
            flag = "" if found.group is Group.FAILED else f" --{found.group.value}"
            return [f"{found.group.value}, {found.reason}; left alone until `retry{flag}`"]
        case Group.REVISED:
            return [f"{found.state} before, {found.reason}; changed since; a run requests it again"]
        case Group.RETRIED:
            return [f"failed at no cost, {found.reason}; a run retries it"]
        case Group.PAID:
            return ["paid; a run only downloads it"]
        case Group.PAID_CHANGED:
            return ["paid, then changed: its image is downloaded, then a new one is requested"]
        case Group.IN_FLIGHT | Group.HELD:
            return [_in_flight_text(found)]
        case Group.SHARED:
            return [f"shares the image of {found.shares}; no request is sent for it"]
        case Group.PENDING:
            return ["waiting from an earlier run; no image of it has been made yet"]
        case _:
            return ["no image of it has been made yet"]


def _decision_lines(found: JobExplanation) -> list[str]:
    made = found.decision
    if made is None:
        return ["its image was rejected in review; a run regenerates it"]
    by = f"in review by {made.decided_by} on {minute(made.decided_at)}"
    note = f": {made.note}" if made.note else ""
    if found.group is Group.REJECTED:
        return [f"rejected {by}{note}; a run regenerates it"]
    return [f"amended {by}{note}", *_changes(found)]


def _changes(found: JobExplanation) -> list[str]:
    if found.made is None:
        return ["the ledger does not record what that image was made of"]
    return differences(found.made, found.planned)


def _in_flight_text(found: JobExplanation) -> str:
    attempt = found.attempt
    sent = f"sent {attempt.sent_at}, " if attempt is not None else ""
    cost = f" {rounded_dollars(attempt.price)}" if attempt is not None else ""
    again = "a run rebuys it within max_waste"
    held = "over max_waste, so a run leaves it uncertain"
    then = again if found.group is Group.IN_FLIGHT else held
    return f"{sent}in flight when the last run was killed; possibly charged{cost}; {then}"


def unfetched_text(urls: int) -> str:
    """Return a phrase for this number of reference images that are not downloaded yet."""
    return f"reference image{'' if urls == 1 else 's'} not downloaded yet"
