"""Status, plan and summary as text that fits a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from batchgen.job import ROW_REASON, Billed, JobState
from batchgen.ledger.budgets import Budget
from batchgen.ledger.enrol import Group, GroupSum, Why
from batchgen.ledger.queries import ReasonCount, Status
from batchgen.ledger.uncertain import Doubt, Held
from batchgen.money import dollars
from batchgen.quote import Quote, WhatIf
from batchgen.report.costs import unpriced_text
from batchgen.why import differences

_GROUP_TEXT = {
    Group.NEW: "new",
    Group.CHANGED: "changed since their picture was made",
    Group.STALE: "older than `refresh` allows",
    Group.PENDING: "planned before, not asked yet",
    Group.PAID: "paid for, to be downloaded only",
    Group.UNCERTAIN: "uncertain, held for you",
    Group.FAILED: "failed before, left alone",
    Group.BLOCKED: "blocked before, left alone",
    Group.MOVED: "done, to be moved to their new place",
    Group.UNCHANGED: "done and unchanged",
    Group.REFUSED: "without their reference image, not sent",
    Group.AT_FAULT: "with a fault in their row, not sent",
    Group.KEPT: "done, kept; their row has a fault now",
    Group.RETIRED: "no longer in the manifest",
}
_REASONS_SHOWN = 8
_EXAMPLE_CHARS = 110


def plan_text(
    name: str,
    provider: str,
    price_source: str,
    groups: Mapping[Group, GroupSum],
    quote: Quote,
    budgets: Sequence[Budget],
    *,
    unfetched: int = 0,
) -> str:
    """What a run would do and cost, a line a group; then budgets, time, and the what-if.

    ``unfetched`` addresses of reference images have no copy yet, so what they hold is not known.
    """
    lines = [f"{name}: provider {provider}, prices from {price_source or 'nobody'}"]
    for group in Group:
        if group in groups:
            found = groups[group]
            price = dollars(found.cost) if group.is_sent else ""
            lines.append(f"  {found.jobs:>9,}  {_GROUP_TEXT[group]:<38} {price:>12}".rstrip())
    if unfetched:
        lines.append(f"  {unfetched:>9,}  {unfetched_text(unfetched)}; the run fetches first")
    lines += _quote_lines(quote, budgets)
    return "\n".join(lines)


PERIOD_TEXT = {"run": "this run", "day": "today (UTC)", "month": "this month (UTC)"}


def _quote_lines(quote: Quote, budgets: Sequence[Budget]) -> list[str]:
    if not quote.requests:
        return ["  nothing to send, nothing to pay"]
    total = f"{'requests to send, estimated at':<38} {dollars(quote.cost):>12}"
    lines = [f"  {quote.requests:>9,}  {total}"]
    if quote.limit is not None and quote.limit < quote.requests:
        lines.append(f"  {quote.limit:>9,}  of them at most in this run (--limit)")
    for budget in budgets:
        short = "; too little" if quote.cost > budget.left else ""
        lines.append(
            f"  budget for {PERIOD_TEXT[budget.period]}: {dollars(budget.left)} left of"
            f" {dollars(budget.max_cost)}{short}"
        )
    return [*lines, *_time_lines(quote), _what_if_line(quote.what_if)]


def _time_lines(quote: Quote) -> list[str]:
    pace = quote.pace
    expected_s = pace.expected_s(quote.requests)
    if expected_s is None:
        return []
    why = [f"{pace.concurrency:,} in flight"]
    if pace.latency_s is not None:
        why.append(f"{duration(pace.latency_s)} a picture so far")
    if pace.per_minute is not None:
        why.append(f"{pace.per_minute:g} a minute")
    return [f"  time: about {duration(expected_s)} ({', '.join(why)})"]


def _what_if_line(found: WhatIf) -> str:
    text = f"  what if {found.again_percent:f} % are made again: {dollars(found.total)}"
    if found.per_accepted is None:
        return text
    accepted = f"{found.accepted_percent:f} % accepted"
    return f"{text}; with {accepted}, {dollars(found.per_accepted)} for each of those"


def why_text(key: str, found: Why) -> str:
    """What a run would do with one job, and why."""
    if found.refused is not None:
        return f"{key}: not sent, {found.refused}"
    if found.made is None:
        held = found.state in (JobState.FAILED, JobState.BLOCKED, JobState.UNCERTAIN)
        if held and found.state is not None:
            return f"{key}: {found.state} before, {found.reason}; left alone until `retry`"
        return f"{key}: no picture of it has been made yet"
    changed = differences(found.made, found.planned)
    made = f"the picture of {found.done_at}"
    if changed:
        return "\n".join([f"{key}: changed since {made}", *(f"  {line}" for line in changed)])
    if found.stale:
        return f"{key}: unchanged, but {made} is older than `refresh` allows"
    return f"{key}: unchanged since {made}; a run leaves it alone"


def unfetched_text(addresses: int) -> str:
    """What is not known without the network."""
    what = "address of a reference image is" if addresses == 1 else "addresses of images are"
    return f"{what} not fetched yet"


def status_text(status: Status) -> str:
    """One batch on a screen."""
    total = sum(status.jobs.values())
    lines = [f"{status.batch}: {status.jobs[JobState.DONE]:,} of {total:,} jobs done"]
    lines += _state_lines(status)
    if status.retired:
        lines.append(f"  {status.retired:>9,}  retired (no longer in the manifest)")
    lines.append(f"  {status.images_saved:>9,}  pictures on disk")
    lines.append("  " + money_line(status))
    lines += reason_lines(status.reasons)
    lines += waiting_lines(status)
    run = status.last_run
    if run is not None and run.ended_at is None:
        lines.append(f"  run {run.id} began {run.started_at} and has not ended, or was killed")
    elif run is not None and run.stopped:
        lines.append(f"  run {run.id} stopped: {run.stopped}")
    return "\n".join(lines)


def _state_lines(status: Status) -> list[str]:
    """A line for each state but done, and one for what uncertain jobs cost."""
    lines = [
        f"  {count:>9,}  {state}"
        for state, count in status.shown_jobs.items()
        if count and state != JobState.DONE.value
    ]
    return lines + ([f"  {held_text(status.batch, status.held)}"] if status.held.jobs else [])


def held_text(name: str, held: Held) -> str:
    """What uncertain jobs of a batch cost, and how to make them again or close them."""
    if held.maybe:
        cost = f"charged {dollars(held.charged)}, possible {dollars(held.maybe)}"
        what = f"{held.jobs:,} uncertain ({cost})"
    elif held.charged:
        what = f"{held.jobs:,} paid and lost ({dollars(held.charged)}, charged)"
    else:
        what = f"{held.jobs:,} uncertain (price unknown)"
    again = f"batchgen retry {name} --uncertain makes them again for {dollars(held.again)}"
    is_open = held.jobs > held.acknowledged
    close = f", batchgen acknowledge {name} closes them" if is_open else ""
    return f"{what}; {again}{close}"


def money_line(status: Status) -> str:
    """Money of a batch and of its attempts, in one line."""
    billed = status.attempts
    charged = "unknown" if status.unpriced and not status.charged else dollars(status.charged)
    estimated = "unknown" if status.unpriced and not status.estimated else dollars(status.estimated)
    text = f"estimated {estimated}, charged {charged} for {billed[Billed.YES]:,} attempts"
    if billed[Billed.MAYBE]:
        text += f", possible {dollars(status.maybe)} for {billed[Billed.MAYBE]:,} more"
    elif status.maybe:
        text += f", possible {dollars(status.maybe)} more"
    return f"{text}; {unpriced_text(status.unpriced)}" if status.unpriced else text


def reason_lines(reasons: Sequence[ReasonCount]) -> list[str]:
    """Failures counted by reason, each with one example."""
    lines = []
    for reason in reasons[:_REASONS_SHOWN]:
        text = reason.example.partition(": ")[2] or reason.example
        if len(text) > _EXAMPLE_CHARS:
            text = text[: _EXAMPLE_CHARS - 1] + "…"
        lines.append(
            f"  {reason.jobs:>9,}  {reason.state.value}, {reason.code}: {text}"
            f" (as {reason.example_key})"
        )
    if len(reasons) > _REASONS_SHOWN:
        lines.append(f"             and {len(reasons) - _REASONS_SHOWN} more reasons")
    return lines


def waiting_lines(status: Status) -> list[str]:
    """Paid images that wait for their download, and what happens to them next, in one line."""
    waiting = status.waiting
    if waiting is None:
        return []
    what = "1 paid image waits" if waiting.images == 1 else f"{waiting.images:,} paid images wait"
    tries = "1 try" if waiting.tries == 1 else f"{waiting.tries:,} tries"
    line = f"  {what} for a download ({tries} so far); each run tries again, for free,"
    if waiting.not_before is not None:
        line += f" not before {minute(waiting.not_before)},"
    return [f"{line} until {minute(waiting.until)} at least"]


def minute(timestamp: str) -> str:
    """Return a timestamp of the ledger to the minute."""
    return f"{datetime.fromisoformat(timestamp):%Y-%m-%d %H:%M} UTC"


def doubt_text(doubt: Doubt) -> str:
    """An uncertain job, in two lines."""
    name = f"request {doubt.request_id}" if doubt.request_id else f"our id {doubt.attempt}"
    closed = f", acknowledged {doubt.acknowledged_at}" if doubt.acknowledged_at else ""
    money = doubt_money(doubt)
    return f"{doubt.key}: {money}, sent {doubt.sent_at}, {name}{closed}\n    {doubt.reason}"


def doubt_money(doubt: Doubt) -> str:
    """What the requests of an uncertain job cost."""
    charged, possible = f"charged {dollars(doubt.charged)}", f"possible {dollars(doubt.maybe)}"
    if doubt.charged and doubt.maybe:
        return f"{charged}, {possible}"
    return charged if doubt.charged else possible


def summary_text(status: Status, *, pictures: str, made: int, seconds: float) -> str:
    """The end of a run."""
    total = sum(status.jobs.values())
    done = status.jobs[JobState.DONE]
    idle = made == 0 and done == total
    if idle:
        head = f"{status.batch}: all {total:,} jobs are done already; nothing sent, nothing paid"
    else:
        head = (
            f"{status.batch}: {done:,} of {total:,} jobs done,"
            f" {made:,} in this run of {duration(seconds)}"
        )
    lines = [head, f"  pictures in {pictures}"]
    run = status.last_run
    if run is not None and not idle:
        lines.append(
            f"  this run: estimated {dollars(run.estimate)}, charged {dollars(run.charged)},"
            f" possible {dollars(run.maybe + run.reserved)}"
        )
    if status.unpriced:
        lines.append(f"  {unpriced_text(status.unpriced)}")
    lines += _state_lines(status)
    lines += reason_lines(status.reasons)
    lines += waiting_lines(status)
    if run is not None and run.stopped:
        lines.append(f"  stopped: {run.stopped}")
    return "\n".join(lines)


def next_step(status: Status, db_option: str, *, has_log: bool) -> str:
    """The command that a person would want now; ``has_log``: the provider keeps one to be read."""
    name, again = status.batch, dollars(status.held.again)
    if status.uncertain:
        if has_log and status.unsettled:
            return f"batchgen reconcile {name}{db_option}   # what the provider's log says of it"
        return f"batchgen retry {name} --uncertain{db_option}   # makes them again for {again}"
    if status.unfinished:
        return f"batchgen resume {name}{db_option}"
    if status.jobs[JobState.FAILED] and all(
        reason.code == ROW_REASON for reason in status.reasons if reason.state is JobState.FAILED
    ):
        return (
            f"batchgen report {name}{db_option}   # fix these rows; the next run tries them again"
        )
    if status.jobs[JobState.FAILED]:
        return f"batchgen retry {name}{db_option}"
    if status.jobs[JobState.BLOCKED]:
        return f"batchgen export {name} --what jobs{db_option}"
    return f"batchgen status {name}{db_option}"


def duration(seconds: float) -> str:
    """Whole hours, minutes and seconds."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    if minutes:
        return f"{minutes} min {left:02d} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{left} s"
