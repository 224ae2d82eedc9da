"""Format the report of a run as text, Markdown or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from batchgen.ledger.run_report import FailedReason, RunMoney, RunReport
from batchgen.ledger.uncertain import UncertainJob, UncertainSums
from batchgen.money import decimal_string, rounded_dollars
from batchgen.outcomes.blocked_words import Suspect
from batchgen.report.costs import known_dollars, unpriced_text
from batchgen.report.status import (
    held_text,
    minute,
    uncertain_money,
    unpublished_lines,
    waiting_lines,
)
from batchgen.system.shell_command import batch_command
from batchgen.text import counted, duration

_REASONS_SHOWN: Final = 5
_ROWS_SHOWN: Final = 3
_TEXT_CHARS: Final = 100
_STOPPED_CHARS: Final = 500
"""Longer than for examples, because the reason for a stop ends with what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Morning:
    """The report of a run with conclusions for its reader."""

    report: RunReport
    suspects: Sequence[Suspect]
    next_step: str


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    lines: Sequence[str]


def report_text(morning: Morning) -> str:
    """Return the report as text for a terminal or a mail."""
    lines = [headline(morning.report)]
    for section in _sections(morning):
        lines.append(f"  {section.title}")
        lines += [f"    {line}" for line in section.lines]
    return "\n".join([*lines, f"next: {morning.next_step}"])


def report_markdown(morning: Morning) -> str:
    """Return the report as Markdown for a chat or an issue."""
    parts = [f"## {_escaped(headline(morning.report))}"]
    for section in _sections(morning):
        parts.append(f"**{_escaped(section.title)}**")
        if section.lines:
            parts.append("\n".join(f"- {_escaped(line)}" for line in section.lines))
    parts.append(f"next: `{morning.next_step}`")
    return "\n\n".join(parts)


def report_record(morning: Morning) -> dict[str, object]:
    """Return the report as JSON-compatible values, with money as decimal strings in dollars."""
    found = morning.report
    return {
        **found.status.as_json(),
        "run": _run_record(found.run),
        "before": _run_record(found.before) if found.before else None,
        "made": {"new": found.new, "changed": found.changed},
        "news": {
            "since_run": found.news.run,
            "since": found.news.since,
            "failed": found.news.failed,
            "blocked": found.news.blocked,
            "uncertain": found.news.uncertain,
            "listed_only": found.only_news,
        },
        "failed": [
            {
                "code": reason.code,
                "jobs": reason.jobs,
                "example": reason.example,
                "rows": [{"key": row.key, "source": row.source} for row in reason.rows],
            }
            for reason in found.failed
        ],
        "blocked": [
            {
                "column": suspect.column,
                "word": suspect.word,
                "rows": [{"key": one.key, "source": one.source} for one in suspect.prompts],
            }
            for suspect in morning.suspects
        ],
        "uncertain": [job.as_json() for job in found.uncertain],
        "slowest": [{"key": slow.key, "seconds": slow.seconds} for slow in found.slowest],
        "next": morning.next_step,
    }


def _run_record(run: RunMoney) -> dict[str, object]:
    return {
        "id": run.id,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "estimated": decimal_string(run.estimate),
        "max_cost": None if run.max_cost is None else decimal_string(run.max_cost),
        "charged": decimal_string(run.charged),
        "maybe": decimal_string(run.maybe),
        "unpriced": run.unpriced,
        "stopped": run.stopped,
        "exit_code": run.exit_code,
    }


def headline(found: RunReport) -> str:
    """Return the batch, the run, and what became of its jobs, in one line."""
    jobs, run = found.status.shown_jobs, found.run
    head = f"{found.status.batch}, run {run.id}: {found.new:,} made, {found.changed:,} replaced"
    for state in ("failed", "blocked", "uncertain", "acknowledged"):
        if jobs[state]:
            head += f", {jobs[state]:,} {state}"
    if found.status.unfinished:
        head += f", {found.status.unfinished:,} left to do"
    return head


def _sections(morning: Morning) -> list[_Section]:
    found = morning.report
    sections = [
        _Section(when_text(found.run), ()),
        _Section(_money(found.run, found.before), ()),
    ]
    if found.only_news or found.news.run is not None:
        sections.append(_Section(news_text(found), ()))
    if found.run.stopped:
        sections.append(_Section(f"stopped: {short(found.run.stopped, _STOPPED_CHARS)}", ()))
    sections += [_Section(line.strip(), ()) for line in waiting_lines(found.status)]
    waiting = unpublished_lines(found.status.batch, found.status.unpublished)
    sections += [_Section(" ".join(line.split()), ()) for line in waiting]
    for reason in found.failed[:_REASONS_SHOWN]:
        title = f"{reason.jobs:,} failed, {reason.code}: {short(reason.example)}"
        sections.append(_Section(title, _failed_lines(reason)))
    if len(found.failed) > _REASONS_SHOWN:
        more = counted(len(found.failed) - _REASONS_SHOWN, "more reason")
        sections.append(_Section(f"and {more}", ()))
    sections += [_suspect(suspect) for suspect in morning.suspects[:_REASONS_SHOWN]]
    if len(morning.suspects) > _REASONS_SHOWN:
        rest = sum(len(suspect.prompts) for suspect in morning.suspects[_REASONS_SHOWN:])
        sections.append(_Section(f"{rest:,} more blocked", ()))
    if found.uncertain:
        sections.append(
            _Section(
                held_text(found.status.batch, UncertainSums.of(found.uncertain)),
                _uncertain_lines(found.uncertain),
            )
        )
    if found.slowest:
        slow = ", ".join(f"{one.key} {duration(one.seconds)}" for one in found.slowest)
        sections.append(_Section(f"slowest: {slow}", ()))
    return sections


def when_text(run: RunMoney) -> str:
    """Return when a run started, how long it took, and its exit code."""
    began = f"started {minute(run.started_at)}"
    if run.ended_at is None:
        return f"{began}, has not ended or was killed"
    seconds = (_moment(run.ended_at) - _moment(run.started_at)).total_seconds()
    return f"{began}, took {duration(seconds)}, exit code {run.exit_code}"


def _money(run: RunMoney, before: RunMoney | None) -> str:
    unpriced = run.unpriced
    charged = known_dollars(run.charged, unpriced=unpriced)
    text = f"charged {charged}, possible {rounded_dollars(run.maybe)}"
    text += f"; estimated {known_dollars(run.estimate, unpriced=unpriced)}"
    if run.max_cost is not None:
        text += f", budget {rounded_dollars(run.max_cost)}"
    if before is not None:
        text += f"; the previous run charged {rounded_dollars(before.charged)}"
        text += f", possible {rounded_dollars(before.maybe)}" if before.maybe else ""
    return f"{text}; {unpriced_text(unpriced)}" if unpriced else text


def news_text(found: RunReport) -> str:
    """Return how many jobs newly need a decision, and since which run."""
    news = found.news
    since = f"run {news.run}" if news.run is not None else "the start"
    at = f" ({minute(news.since)})" if news.since else ""
    counts = {"failed": news.failed, "blocked": news.blocked, "uncertain": news.uncertain}
    new = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    text = f"new since {since}{at}: {new or 'nothing needs you'}"
    report = batch_command("report", found.status.batch)
    full = f"; the full list: {report}" if found.only_news else ""
    return text + full


def _failed_lines(reason: FailedReason) -> list[str]:
    shown = reason.rows[:_ROWS_SHOWN]
    return [f"{row.source} ({row.key})" for row in shown] + _more(reason.jobs - len(shown))


def suspect_title(suspect: Suspect) -> str:
    """Return how many prompts were blocked, and the column and word that they share."""
    count = f"{len(suspect.prompts):,} blocked"
    if suspect.word is None:
        return f"{count}; all of their words also occur in prompts that produced images"
    if suspect.column is None:
        return f"{count}, all with the word {suspect.word!r}"
    return f"{count}, column {suspect.column}, all with the word {suspect.word!r}"


def _suspect(suspect: Suspect) -> _Section:
    shown = suspect.prompts[:_ROWS_SHOWN]
    lines = [f"{one.source} ({one.key})" for one in shown]
    return _Section(suspect_title(suspect), lines + _more(len(suspect.prompts) - len(shown)))


def _uncertain_lines(jobs: Sequence[UncertainJob]) -> list[str]:
    shown = jobs[:_ROWS_SHOWN]
    lines = [
        f"{one.key}: {uncertain_money(one)}, {minute(one.sent_at)},"
        f" {one.request_id or one.attempt}, {short(one.reason)}"
        for one in shown
    ]
    return lines + _more(len(jobs) - len(shown))


def _more(rows: int) -> list[str]:
    return [f"and {rows:,} more"] if rows > 0 else []


def short(text: str, most: int = _TEXT_CHARS) -> str:
    """Return a text, cut to at most ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _escaped(text: str) -> str:
    """Escape Markdown, so that a provider's or table's text creates no link or heading."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#" else char for char in text)


def _moment(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp)
