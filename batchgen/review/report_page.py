"""The report of a run as one HTML file for a mail: no scripts, nothing from elsewhere.

Mail programs drop scripts and flexible layouts, and some drop styles in the head. So the page is
made of tables with styles of their own; the head only has what dark mode and phones need. The text
is ASCII, and thumbnails are JPEG in lines that mail servers do not cut (RFC 5322, 2.1.1).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from batchgen.errors import ExitCode
from batchgen.images.formats import BadImage, ImageFormat
from batchgen.ledger.budgets import PERIOD_TEXT, Budget
from batchgen.ledger.made_images import MadeImage
from batchgen.ledger.review import ImageFile
from batchgen.ledger.run_list import RunRow
from batchgen.ledger.run_report import RunReport
from batchgen.ledger.uncertain import UncertainSums
from batchgen.money import rounded_dollars
from batchgen.report.costs import known_dollars, unpriced_text
from batchgen.report.run import (
    Morning,
    headline,
    news_text,
    short,
    suspect_title,
    when_text,
)
from batchgen.report.run_list import RUN_COLUMNS, run_cells
from batchgen.report.status import held_text, minute, uncertain_money, waiting_lines
from batchgen.review.image_files import ImageFiles, NoFileError
from batchgen.system.shell_command import batch_command
from batchgen.text import counted, duration
from batchgen.version import __version__

MOST_IMAGES: Final = 40
MOST_IMAGE_BYTES: Final = 2_000_000
"""Of all thumbnails together, as text."""
_SIDE: Final = 280
_LINE_CHARS: Final = 900
_GROUPS_SHOWN: Final = 10
_ROWS_SHOWN: Final = 20
_REASON_CHARS: Final = 300
_TEMPLATES: Final = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSources:
    """What a page shows beyond the report itself, and where its images are."""

    images: Sequence[MadeImage]
    budgets: Sequence[Budget]
    """Of the day and the month."""
    files: ImageFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    """An image as the template shows it."""

    url: str
    """A data URL; empty where there is nothing to show."""
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An image of the run, and the one that it replaced."""

    key: str
    source: str
    after: Thumb
    before: Thumb | None
    warnings: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Jobs that wait for a person for the same reason."""

    title: str
    rows: Sequence[tuple[str, str]]
    """Source line and key of each job."""
    more: int


def report_page(morning: Morning, sources: ReportSources) -> str:
    """Return the report of a run as HTML."""
    found = morning.report
    changes = list(_changes(sources))
    replaced = [one for one in changes if one.before is not None]
    new = [one for one in changes if one.before is None]
    held, _, remedy = held_text(found.status.batch, UncertainSums.of(found.uncertain)).partition(
        "; "
    )
    command, _, why = morning.next_step.partition("   # ")
    return _page(
        "report.html",
        title=headline(found),
        batch=found.status.batch,
        run=found.run.id,
        review_command=batch_command("review", found.status.batch, "--run", str(found.run.id)),
        report_command=batch_command("report", found.status.batch, "--run", str(found.run.id)),
        when=when_text(found.run),
        tone=_tone(found),
        summary=_summary(found),
        counts=_counts(found),
        money=list(_money(found, sources.budgets)),
        money_note=unpriced_text(found.run.unpriced) if found.run.unpriced else "",
        command=command,
        why=why,
        stopped=found.run.stopped or "",
        news=news_text(found) if found.news.run is not None else "",
        notes=[line.strip() for line in waiting_lines(found.status)],
        problems=_problems(morning),
        more_problems=_more_problems(morning),
        uncertain_title=held,
        uncertain_remedy=remedy,
        uncertain=[
            (
                one.key,
                uncertain_money(one),
                minute(one.sent_at),
                one.request_id or one.attempt,
                short(one.reason, _REASON_CHARS),
            )
            for one in found.uncertain[:_ROWS_SHOWN]
        ],
        more_uncertain=max(0, len(found.uncertain) - _ROWS_SHOWN),
        replaced=replaced,
        more_replaced=max(0, found.changed - len(replaced)),
        new=new,
        more_new=max(0, found.new - len(new)),
        slowest=[(one.key, duration(one.seconds)) for one in found.slowest],
    )


def runs_page(batch: str, rows: Sequence[RunRow]) -> str:
    """Return the list of a batch's runs as HTML."""
    return _page(
        "report_runs.html",
        title=f"{batch}: {counted(len(rows), 'run')}",
        batch=batch,
        columns=RUN_COLUMNS,
        rows=[(run_cells(row), row.stopped or "") for row in rows],
    )


def _page(template: str, **values: object) -> str:
    pages = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = pages.get_template(template).render(version=__version__, **values)
    return text.encode("ascii", "xmlcharrefreplace").decode()


def _tone(found: RunReport) -> str:
    """Return ``bad`` for a stopped run, ``warn`` if jobs wait for a person, else ``good``."""
    run = found.run
    if (
        run.stopped
        or run.ended_at is None
        or run.exit_code not in (ExitCode.DONE, ExitCode.UNFINISHED)
    ):
        return "bad"
    return "warn" if found.status.troubled or found.status.unfinished else "good"


def _summary(found: RunReport) -> str:
    """Return the result of the run in a few words, the worst first."""
    jobs, status = found.status.shown_jobs, found.status
    parts = [
        f"{jobs[state]:,} {state}" for state in ("failed", "blocked", "uncertain") if jobs[state]
    ]
    if status.unfinished:
        parts.append(f"{status.unfinished:,} left to do")
    if found.run.stopped:
        parts.insert(0, "Stopped")
    elif found.run.ended_at is None:
        parts.insert(0, "Not ended, or killed")
    return ", ".join(parts) or "All jobs are done"


def _counts(found: RunReport) -> list[tuple[str, str, str]]:
    """Return the figures of the first row: number, label, tone."""
    jobs = found.status.shown_jobs
    waiting = found.status.troubled
    return [
        (f"{found.changed:,}", "replaced", ""),
        (f"{found.new:,}", "new", ""),
        (f"{waiting:,}", "need you", "bad" if waiting else ""),
        (f"{jobs['done']:,}", f"of {sum(jobs.values()):,} done", ""),
    ]


def _money(found: RunReport, budgets: Sequence[Budget]) -> Iterator[tuple[str, str, str]]:
    """Yield the rows of the money table: what, amount, comment."""
    run, before = found.run, found.before
    unpriced = run.unpriced
    yield "charged", known_dollars(run.charged, unpriced=unpriced), ""
    yield "possible", rounded_dollars(run.maybe), "may be charged in addition" if run.maybe else ""
    yield "estimated", known_dollars(run.estimate, unpriced=unpriced), ""
    if run.max_cost is not None:
        left = max(0, run.max_cost - run.charged - run.maybe)
        yield "budget of the run", rounded_dollars(run.max_cost), f"{rounded_dollars(left)} left"
    for one in budgets:
        name = f"budget for {PERIOD_TEXT[one.period]}"
        yield name, rounded_dollars(one.max_cost), f"{rounded_dollars(one.left)} left"
    if before is not None:
        possible = f"possible {rounded_dollars(before.maybe)}" if before.maybe else ""
        yield f"run {before.id} charged", rounded_dollars(before.charged), possible


def _problems(morning: Morning) -> list[Problem]:
    found = morning.report
    failed = [
        Problem(
            title=f"{one.jobs:,} failed, {one.code}: {short(one.example, _REASON_CHARS)}",
            rows=[(row.source, row.key) for row in one.rows[:_ROWS_SHOWN]],
            more=one.jobs - min(_ROWS_SHOWN, len(one.rows)),
        )
        for one in found.failed[:_GROUPS_SHOWN]
    ]
    blocked = [
        Problem(
            title=suspect_title(one),
            rows=[(row.source, row.key) for row in one.prompts[:_ROWS_SHOWN]],
            more=max(0, len(one.prompts) - _ROWS_SHOWN),
        )
        for one in morning.suspects[:_GROUPS_SHOWN]
    ]
    return failed + blocked


def _more_problems(morning: Morning) -> str:
    """Return how many jobs are in the reasons that are left out; empty if none is."""
    failed = sum(one.jobs for one in morning.report.failed[_GROUPS_SHOWN:])
    blocked = sum(len(one.prompts) for one in morning.suspects[_GROUPS_SHOWN:])
    counts = ((failed, "failed"), (blocked, "blocked"))
    return ", ".join(f"{count:,} more {state}" for count, state in counts if count)


def _changes(sources: ReportSources) -> Iterator[Change]:
    """Yield images with their thumbnails until these reach the limit."""
    room = MOST_IMAGE_BYTES
    for image in sources.images[:MOST_IMAGES]:
        after = _thumb(image.file, sources)
        before = _before(image, sources)
        room -= len(after.url) + (0 if before is None else len(before.url))
        if room < 0:
            return
        yield Change(
            key=image.key,
            source=image.source,
            after=after,
            before=before,
            warnings=image.warnings,
        )


def _before(image: MadeImage, sources: ReportSources) -> Thumb | None:
    if image.before is not None:
        return _thumb(image.before, sources)
    return None if image.is_new else Thumb(url="", trouble="the previous image was removed")


def _thumb(row: ImageFile, sources: ReportSources) -> Thumb:
    if row.format == ImageFormat.MP4.value:
        return Thumb(url="", trouble=f"a video: {row.path}")
    try:
        content = sources.files.thumbnail(row, _SIDE, "jpg")
    except NoFileError as exc:
        return Thumb(url="", trouble=str(exc))
    except BadImage:
        return Thumb(url="", trouble=f"the file cannot be decoded: {row.path}")
    except OSError as exc:
        return Thumb(url="", trouble=f"the file cannot be read: {row.path}: {exc.strerror or exc}")
    text = base64.b64encode(content).decode()
    lines = [text[at : at + _LINE_CHARS] for at in range(0, len(text), _LINE_CHARS)]
    return Thumb(url="data:image/jpeg;base64," + "\n".join(lines), trouble="")
