"""Format the status of a batch, which may be running, as text for a terminal."""

from __future__ import annotations

from datetime import datetime

from batchgen.job import JobState
from batchgen.money import ZERO, rounded_dollars
from batchgen.report.status import (
    minute,
    money_line,
    reason_lines,
    state_lines,
    unpublished_lines,
    waiting_lines,
)
from batchgen.session.live_status import LiveStatus
from batchgen.system.shell_command import batch_command
from batchgen.text import counted, duration


def status_text(live: LiveStatus) -> str:
    """Return the status of one batch."""
    status, run = live.status, live.status.last_run
    total = sum(status.jobs.values())
    lines = [f"{status.batch}: {status.jobs[JobState.DONE]:,} of {counted(total, 'job')} done"]
    lines += _running_lines(live)
    lines += state_lines(status)
    if status.retired:
        lines.append(f"  {status.retired:>9,}  retired (no longer in the manifest)")
    images = "image" if status.images_saved == 1 else "images"
    lines.append(f"  {status.images_saved:>9,}  {images} on disk")
    lines += unpublished_lines(status.batch, status.unpublished)
    in_flight = run.reserved if run is not None and live.pace is not None else ZERO
    lines.append("  " + money_line(status, in_flight=in_flight))
    if run is not None and live.pace is not None and run.max_cost is not None:
        left = max(0, run.max_cost - run.charged - run.maybe - run.reserved)
        lines.append(
            f"  budget for this run: {rounded_dollars(left)} left of"
            f" {rounded_dollars(run.max_cost)}"
        )
    lines += reason_lines(status.reasons)
    lines += waiting_lines(status)
    if (killed := live.killed_run) is not None:
        at = minute(killed.heartbeat_at or killed.started_at)
        resume = batch_command("resume", status.batch)
        lines.append(f"  run {killed.id} was killed at about {at}; {resume} continues it")
    elif run is not None and run.stopped:
        lines.append(f"  run {run.id} stopped: {run.stopped}")
    return "\n".join(lines)


def _running_lines(live: LiveStatus) -> list[str]:
    """Return who works on the batch, how fast, and what slows it down; none for a free batch."""
    owner, pace = live.owner, live.pace
    if owner is None:
        return []
    now = live.now.astimezone()
    if pace is None:
        return [f"  in use by {owner.text(now)}"]
    head = f"  running: {owner.text(now)}"
    if pace.last_image_at is not None:
        head += f"; last image {_ago(pace.last_image_at, live.now)}"
    parts = [f"{pace.per_minute:,.0f} images per minute"]
    if live.left_s is not None:
        parts.append(f"about {duration(live.left_s, whole=True)} left")
    parts.append(f"{live.status.in_flight:,} in flight")
    if pace.learned_per_minute is not None:
        parts.append(f"slowed to {pace.learned_per_minute:,.0f} per minute by 429")
    if pace.throttled:
        parts.append(f"slowed by {counted(pace.throttled, 'response')} of 429 in the last minute")
    return [head, f"  {', '.join(parts)}"]


def _ago(moment: datetime, now: datetime) -> str:
    seconds = max(0.0, (now - moment).total_seconds())
    return f"{duration(seconds)} ago"
