"""Format the status and summary of a batch as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from batchgen.job import Billed, JobState
from batchgen.ledger.batch_status import BatchStatus, LastRun, ReasonCount
from batchgen.ledger.uncertain import UncertainJob, UncertainSums
from batchgen.ledger.unpublished import UnpublishedCounts
from batchgen.money import ZERO, Micros, rounded_dollars
from batchgen.report.costs import known_dollars, unpriced_text
from batchgen.system.shell_command import batch_command
from batchgen.text import counted, duration

_REASONS_SHOWN = 8
_EXAMPLE_CHARS = 110


def state_lines(status: BatchStatus) -> list[str]:
    """Return a line for each state except done, and one for the cost of uncertain jobs."""
    lines = [
        f"  {count:>9,}  {state}"
        for state, count in status.shown_jobs.items()
        if count and state != JobState.DONE.value
    ]
    return lines + ([f"  {held_text(status.batch, status.held)}"] if status.held.jobs else [])


def held_text(name: str, held: UncertainSums) -> str:
    """Return what uncertain jobs of a batch cost, and how to rebuy or close them."""
    if held.maybe:
        cost = f"charged {rounded_dollars(held.charged)}, possible {rounded_dollars(held.maybe)}"
        what = f"{held.jobs:,} uncertain ({cost})"
    elif held.charged:
        what = f"{held.jobs:,} charged and lost ({rounded_dollars(held.charged)})"
    else:
        what = f"{held.jobs:,} uncertain (price unknown)"
    retry = batch_command("retry", name, "--uncertain")
    again = f"{retry} rebuys them for {rounded_dollars(held.again)}"
    is_open = held.jobs > held.acknowledged
    close = f", {batch_command('acknowledge', name)} closes them" if is_open else ""
    return f"{what}; {again}{close}"


def money_line(status: BatchStatus, *, in_flight: Micros = ZERO) -> str:
    """Return the costs of a batch and the number of its charged attempts, in one line.

    ``in_flight`` is the part of the possible cost that a live run holds for its open requests.
    """
    billed = status.attempts
    maybe = billed[Billed.MAYBE] - (status.in_flight if in_flight else 0)
    possible = rounded_dollars(status.maybe - in_flight)
    estimated = known_dollars(status.estimated, unpriced=status.unpriced)
    charged = known_dollars(status.charged, unpriced=status.unpriced)
    text = f"estimated {estimated}, charged {charged} for {counted(billed[Billed.YES], 'attempt')}"
    if maybe:
        text += f", possible {possible} for {maybe:,} more"
    elif status.maybe - in_flight:
        text += f", possible {possible} more"
    if in_flight:
        text += f", reserved {rounded_dollars(in_flight)} for {status.in_flight:,} in flight"
    return f"{text}; {unpriced_text(status.unpriced)}" if status.unpriced else text


def reason_lines(reasons: Sequence[ReasonCount]) -> list[str]:
    """Return failures by reason: their number and one example."""
    lines = []
    for reason in reasons[:_REASONS_SHOWN]:
        text = reason.example.partition(": ")[2] or reason.example
        if len(text) > _EXAMPLE_CHARS:
            text = text[: _EXAMPLE_CHARS - 1] + "…"
        lines.append(
            f"  {reason.jobs:>9,}  {reason.state.value}, {reason.code}: {text}"
            f" (such as {reason.example_key})"
        )
    if len(reasons) > _REASONS_SHOWN:
        lines.append(f"             and {counted(len(reasons) - _REASONS_SHOWN, 'more reason')}")
    return lines


def waiting_lines(status: BatchStatus) -> list[str]:
    """Return a line about paid images whose download failed so far; none without such images."""
    waiting = status.waiting
    if waiting is None:
        return []
    what = "1 paid image waits" if waiting.images == 1 else f"{waiting.images:,} paid images wait"
    tries = "1 try" if waiting.tries == 1 else f"{waiting.tries:,} tries"
    line = f"  {what} for a download ({tries} so far); each run tries again, for free,"
    if waiting.not_before is not None:
        line += f" not before {minute(waiting.not_before)},"
    return [f"{line} at least until {minute(waiting.until)}"]


def unpublished_lines(name: str, found: UnpublishedCounts) -> list[str]:
    """Return lines about images that are not published; none where all are."""
    lines = []
    if found.undecided:
        wait = "image waits" if found.undecided == 1 else "images wait"
        lines.append(
            f"  {found.undecided:>9,}  new {wait} for your decision:"
            f" {batch_command('review', name)}"
        )
    if found.accepted:
        lines.append(f"  {found.accepted:>9,}  accepted, published by the next run or review")
    if found.rejected:
        lines.append(f"  {found.rejected:>9,}  rejected, not published")
    return lines


def minute(timestamp: str) -> str:
    """Return a timestamp of the ledger to the minute."""
    return f"{datetime.fromisoformat(timestamp):%Y-%m-%d %H:%M} UTC"


def uncertain_text(job: UncertainJob) -> str:
    """Return an uncertain job, in two lines."""
    name = f"request {job.request_id}" if job.request_id else f"attempt {job.attempt}"
    closed = f", acknowledged {job.acknowledged_at}" if job.acknowledged_at else ""
    money = uncertain_money(job)
    return f"{job.key}: {money}, sent {job.sent_at}, {name}{closed}\n    {job.reason}"


def uncertain_money(job: UncertainJob) -> str:
    """Return what the requests of an uncertain job cost."""
    charged = f"charged {rounded_dollars(job.charged)}"
    possible = f"possible {rounded_dollars(job.maybe)}"
    if job.charged and job.maybe:
        return f"{charged}, {possible}"
    return charged if job.charged else possible


def summary_text(
    status: BatchStatus, *, run: LastRun | None, images: str, made: int, seconds: float
) -> str:
    """Return the summary that a run ends with; ``run`` is None if it had nothing to do."""
    total = sum(status.jobs.values())
    done = status.jobs[JobState.DONE]
    idle = made == 0 and done == total
    if idle:
        jobs = "1 job was" if total == 1 else f"{total:,} jobs were"
        head = f"{status.batch}: {jobs} done already; nothing sent, nothing paid"
    elif run is None:
        jobs = f"{done:,} of {counted(total, 'job')} done"
        head = f"{status.batch}: {jobs}; nothing to do, nothing sent, nothing paid"
    else:
        head = (
            f"{status.batch}: {done:,} of {counted(total, 'job')} done,"
            f" {made:,} in this run of {duration(seconds)}"
        )
    lines = [head, f"  images in {images}"]
    if run is not None and not idle:
        lines.append(
            f"  this run: estimated {rounded_dollars(run.estimate)},"
            f" charged {rounded_dollars(run.charged)},"
            f" possible {rounded_dollars(run.maybe + run.reserved)}"
        )
    if status.unpriced:
        lines.append(f"  {unpriced_text(status.unpriced)}")
    lines += state_lines(status)
    lines += reason_lines(status.reasons)
    lines += waiting_lines(status)
    lines += unpublished_lines(status.batch, status.unpublished)
    if run is not None and run.stopped:
        lines.append(f"  stopped: {run.stopped}")
    return "\n".join(lines)


def replaced_text(name: str, count: int, run: int) -> str:
    """Return how to restore the images that a run replaced."""
    return (
        f"{counted(count, 'image')} replaced; previous versions are kept:"
        f" {batch_command('rollback', name, '--run', str(run))}"
    )


def next_step(status: BatchStatus, *, has_log: bool) -> str:
    """Return the command to use next, with a comment that says what it does.

    ``has_log``: batchgen can fetch the provider's billing log.
    """
    command, comment = _next_step(status, has_log=has_log)
    return f"{command}   # {comment}" if comment else command


def _next_step(status: BatchStatus, *, has_log: bool) -> tuple[str, str]:
    name, again = status.batch, rounded_dollars(status.held.again)
    report, retry = batch_command("report", name), batch_command("retry", name, "--uncertain")
    if status.uncertain and has_log and status.unsettled:
        return batch_command("reconcile", name), "checks the provider's billing log"
    if status.unfinished > status.stuck:
        return batch_command("resume", name), ""
    if status.uncertain:
        return retry, f"rebuys them for {again}"
    failed = status.jobs[JobState.FAILED]
    at_fault = status.at_fault
    if failed > at_fault + status.refused:
        return batch_command("retry", name), ""
    needs_new_request = status.refused or status.jobs[JobState.BLOCKED]
    if needs_new_request and status.stuck:
        # An exported manifest would change the failed job only, not those that share its image.
        shared = counted(status.stuck, "more job")
        need = "needs" if status.stuck == 1 else "need"
        return (
            report,
            f"fix these prompts in the manifest and run it; {shared} {need} their images",
        )
    if needs_new_request:
        export = batch_command("export", name, "--failed")
        return export, "writes a manifest of these jobs to fix and run"
    if at_fault:
        return report, "fix these rows; the next run tries them again"
    if status.stuck:
        return retry, f"rebuys them for {again}"
    if status.unpublished.undecided:
        return batch_command("review", name), "publishes the images that you accept"
    return batch_command("status", name), ""
