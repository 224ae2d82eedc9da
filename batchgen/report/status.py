"""Status, plan and summary as text that fits a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from batchgen.job import ROW_REASON, Billed, JobState
from batchgen.ledger.budgets import PERIOD_TEXT, Budget
from batchgen.ledger.explain import JobExplanation
from batchgen.ledger.groups import Group, GroupSum
from batchgen.ledger.queries import BatchStatus, ReasonCount
from batchgen.ledger.sharing import NO_REPEATS, Repeats
from batchgen.ledger.uncertain import UncertainJob, UncertainSums
from batchgen.money import Micros, dollars, rounded_dollars
from batchgen.planning.changes import differences
from batchgen.planning.cost_estimate import Quote, WhatIf
from batchgen.report.costs import unpriced_text

_GROUP_TEXT = {
    Group.NEW: "new",
    Group.CHANGED: "changed since their image was made",
    Group.REVISED: "changed since they failed or were refused",
    Group.STALE: "to be regenerated (refresh)",
    Group.PENDING: "waiting from an earlier run",
    Group.RETRIED: "failed at no cost, tried again",
    Group.IN_FLIGHT: "in flight when the last run was killed; asked again within max_waste",
    Group.HELD: "in flight when the last run was killed; over max_waste, held",
    Group.PAID_CHANGED: "paid, then changed; downloaded, then made again",
    Group.PAID: "paid, only downloaded",
    Group.UNCERTAIN: "uncertain, held for you",
    Group.FAILED: "failed before, left alone",
    Group.BLOCKED: "blocked before, left alone",
    Group.MOVED: "done, to be moved to their new place",
    Group.UNCHANGED: "done and unchanged",
    Group.REFUSED: "without their reference image, not sent",
    Group.AT_FAULT: "with a fault in their row, not sent",
    Group.KEPT: "done, kept; their row has a fault now",
    Group.SHARED: "share the image of another job",
    Group.RETIRED: "no longer in the manifest",
}
_REASONS_SHOWN = 8
_EXAMPLE_CHARS = 110


def plan_heading(name: str, provider: str, price_source: str) -> str:
    """The first line of a plan."""
    return f"{name}: provider {provider}, prices from {price_source or 'nobody'}"


def plan_text(
    heading: str,
    groups: Mapping[Group, GroupSum],
    quote: Quote,
    budgets: Sequence[Budget],
    *,
    unfetched: int = 0,
    repeats: Repeats = NO_REPEATS,
) -> str:
    """What a run would do and cost, a line a group; then budgets, time, and the what-if.

    ``unfetched`` URLs of reference images have no copy yet, so what they hold is not known.
    """
    lines = [heading]
    lines += [_group_line(group, groups[group]) for group in Group if group in groups]
    if unfetched:
        lines.append(f"  {unfetched:>9,}  {unfetched_text(unfetched)}; the run fetches first")
    lines += _quote_lines(quote, budgets)
    if repeats.jobs:
        lines.append(f"  {repeats_text(repeats)}")
    return "\n".join(lines)


def repeats_text(repeats: Repeats) -> str:
    """How many requests are for images that another job has, and how to avoid them."""
    jobs = "1 job repeats" if repeats.jobs == 1 else f"{repeats.jobs:,} jobs repeat"
    return f"{jobs} another one: {rounded_dollars(repeats.cost)}; share: true makes each once"


def _group_line(group: Group, found: GroupSum) -> str:
    cost = found.cost if group.is_sent else 0
    return _counted(found.jobs, _GROUP_TEXT[group], cost, is_free=group is Group.SHARED)


def _counted(count: int, text: str, cost: int, *, is_free: bool = False) -> str:
    """A line of a plan: how many, what, and the price of one request each."""
    price = rounded_dollars(cost) if cost or is_free else ""
    return f"  {count:>9,}  {text:<{_PLAN_TEXT_WIDTH}} {price:>12}".rstrip()


_PLAN_TEXT_WIDTH = 47


def _quote_lines(quote: Quote, budgets: Sequence[Budget]) -> list[str]:
    if not quote.requests:
        return ["  nothing to send, nothing to pay"]
    due, due_cost = (quote.requests, quote.cost)
    if quote.limit is not None:
        due, due_cost = quote.due, quote.due_cost
    what = "request" if due == 1 else "requests"
    lines = [_counted(due, f"{what} to send, estimated at", due_cost)]
    if quote.limit is not None:
        lines.append(_counted(quote.requests, "of them at most in this run (--limit)", quote.cost))
    for budget in budgets:
        short = "; too little" if quote.cost > budget.left else ""
        lines.append(
            f"  budget for {PERIOD_TEXT[budget.period]}: {rounded_dollars(budget.left)} left of"
            f" {rounded_dollars(budget.max_cost)}{short}"
        )
    lines += _time_lines(quote)
    return lines if quote.what_if is None else [*lines, _what_if_line(quote.what_if)]


def _time_lines(quote: Quote) -> list[str]:
    pace = quote.pace
    expected_s = pace.expected_s(quote.requests)
    if expected_s is None:
        return []
    if pace.measured_per_minute is not None:
        why = [f"{pace.measured_per_minute:,.0f} images a minute in the last run"]
    else:
        why = [f"{pace.concurrency:,} in flight"]
        if pace.latency_s is not None:
            why.append(f"{duration(pace.latency_s)} an image so far")
    if pace.per_minute is not None:
        why.append(f"{pace.per_minute:g} a minute at most")
    return [f"  time: about {duration(expected_s)} ({', '.join(why)})"]


def _what_if_line(found: WhatIf) -> str:
    text = f"  if {found.again_percent:f} % are made again {rounded_dollars(found.total)}"
    if found.per_accepted is None:
        return text
    each = Micros(round(found.per_accepted, -3))
    accepted = f"at {found.accepted_percent:f} % accepted"
    return f"{text}; {accepted}, {dollars(each)} for each accepted image"


def why_text(key: str, found: JobExplanation) -> str:
    """What a run would do with one job, and why."""
    head, *rest = _why_lines(found)
    return "\n".join([f"{key}: {head}", *(f"  {line}" for line in rest)])


def _why_lines(found: JobExplanation) -> list[str]:
    image = f"the image of {found.done_at}"
    match found.group:
        case Group.REFUSED | Group.AT_FAULT:
            return [f"not sent, {found.refused}"]
        case Group.KEPT:
            return [f"{image} is kept; its row has a fault now, {found.refused}"]
        case Group.UNCHANGED:
            return [f"unchanged since {image}; a run leaves it alone"]
        case Group.MOVED:
            return [f"unchanged since {image}; a run moves it to its new place"]
        case Group.STALE:
            return [f"unchanged, but {image} is to be regenerated (refresh)"]
        case Group.CHANGED:
            return [f"changed since {image}", *_changes(found)]
        case Group.FAILED | Group.BLOCKED | Group.UNCERTAIN:
            flag = "" if found.group is Group.FAILED else f" --{found.group.value}"
            return [f"{found.group.value}, {found.reason}; left alone until `retry{flag}`"]
        case Group.REVISED:
            return [f"{found.state} before, {found.reason}; changed since, requested again"]
        case Group.RETRIED:
            return [f"failed at no cost, {found.reason}; tried again"]
        case Group.PAID:
            return ["paid, to be downloaded only"]
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


def _changes(found: JobExplanation) -> list[str]:
    if found.made is None:
        return ["the ledger does not record what that image was made of"]
    return differences(found.made, found.planned)


def _in_flight_text(found: JobExplanation) -> str:
    attempt = found.attempt
    sent = f"sent {attempt.sent_at}, " if attempt is not None else ""
    cost = f" {dollars(attempt.price)}" if attempt is not None else ""
    again = "asked again within max_waste"
    then = again if found.group is Group.IN_FLIGHT else "over max_waste, so a run holds it for you"
    return f"{sent}in flight when the last run was killed; possibly charged{cost}; {then}"


def unfetched_text(addresses: int) -> str:
    """What is not known without the network."""
    what = "address of a reference image is" if addresses == 1 else "addresses of images are"
    return f"{what} not fetched yet"


def status_text(status: BatchStatus) -> str:
    """One batch on a screen."""
    total = sum(status.jobs.values())
    lines = [f"{status.batch}: {status.jobs[JobState.DONE]:,} of {total:,} jobs done"]
    lines += _state_lines(status)
    if status.retired:
        lines.append(f"  {status.retired:>9,}  retired (no longer in the manifest)")
    lines.append(f"  {status.images_saved:>9,}  images on disk")
    lines.append("  " + money_line(status))
    lines += reason_lines(status.reasons)
    lines += waiting_lines(status)
    run = status.last_run
    if run is not None and run.ended_at is None:
        lines.append(f"  run {run.id} began {run.started_at} and has not ended, or was killed")
    elif run is not None and run.stopped:
        lines.append(f"  run {run.id} stopped: {run.stopped}")
    return "\n".join(lines)


def _state_lines(status: BatchStatus) -> list[str]:
    """A line for each state but done, and one for what uncertain jobs cost."""
    lines = [
        f"  {count:>9,}  {state}"
        for state, count in status.shown_jobs.items()
        if count and state != JobState.DONE.value
    ]
    return lines + ([f"  {held_text(status.batch, status.held)}"] if status.held.jobs else [])


def held_text(name: str, held: UncertainSums) -> str:
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


def money_line(status: BatchStatus) -> str:
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


def waiting_lines(status: BatchStatus) -> list[str]:
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


def doubt_text(doubt: UncertainJob) -> str:
    """An uncertain job, in two lines."""
    name = f"request {doubt.request_id}" if doubt.request_id else f"our id {doubt.attempt}"
    closed = f", acknowledged {doubt.acknowledged_at}" if doubt.acknowledged_at else ""
    money = doubt_money(doubt)
    return f"{doubt.key}: {money}, sent {doubt.sent_at}, {name}{closed}\n    {doubt.reason}"


def doubt_money(doubt: UncertainJob) -> str:
    """What the requests of an uncertain job cost."""
    charged, possible = f"charged {dollars(doubt.charged)}", f"possible {dollars(doubt.maybe)}"
    if doubt.charged and doubt.maybe:
        return f"{charged}, {possible}"
    return charged if doubt.charged else possible


def summary_text(status: BatchStatus, *, images: str, made: int, seconds: float) -> str:
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
    lines = [head, f"  images in {images}"]
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


def replaced_text(name: str, count: int, run: int) -> str:
    """How to bring back what a run replaced."""
    return (
        f"{count:,} replaced; the previous versions are kept: batchgen rollback {name} --run {run}"
    )


def next_step(status: BatchStatus, db_option: str, *, has_log: bool) -> str:
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
