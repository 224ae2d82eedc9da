"""The channels of a manifest's `on_finish`, and the notices that they get."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from batchgen.errors import BatchgenError, ExitCode, SettingsError, UnknownBatchError
from batchgen.ledger.batches import batch_id
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.notices import keep_notice
from batchgen.manifest.model import Notifier
from batchgen.session.notify import Apprise, Command, Notice, Webhook, has_apprise, notify
from batchgen.session.prepare import Prepared

if TYPE_CHECKING:
    from batchgen.ledger.run_report import RunReport
    from batchgen.session.notifications import Ending

Channel = Command | Webhook | Apprise


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedReport:
    """The report of a finished run, in the forms that notifications send."""

    report: RunReport
    text: str
    record: dict[str, object]
    """The report as JSON values."""


ReportReader: TypeAlias = Callable[[Path, str], FinishedReport]
"""Reads the report of a batch's newest run from a ledger. Raises BatchgenError."""


def channels_of(prepared: Prepared) -> list[tuple[str, Notifier, Channel]]:
    """Return the channels of a manifest, each with its place there.

    Raises SettingsError for a variable that is not set, and for a missing extra.
    """
    found = []
    for number, spec in enumerate(prepared.loaded.manifest.on_finish or ()):
        place = f"on_finish[{number}]"
        found.append((place, spec, _channel(prepared, spec, place)))
    return found


def _channel(prepared: Prepared, spec: Notifier, place: str) -> Channel:
    expand = prepared.environment.expand
    if spec.command is not None:
        return Command(arguments=spec.command, directory=prepared.loaded.base)
    if spec.webhook is not None:
        return Webhook(url=expand(spec.webhook, f"{place}.webhook"))
    if not has_apprise():
        raise SettingsError(
            f"{place}.apprise: the package apprise is not installed; it comes with batchgen[notify]"
        )
    return Apprise(url=expand(spec.apprise or "", f"{place}.apprise"))


def notify_all(
    prepared: Prepared, ending: Ending, notice: Callable[[str], None], read_report: ReportReader
) -> None:
    """Notify every channel that is due.

    What a notice lists is not new in the next one, unless a channel could not be reached.
    """
    channels = channels_of(prepared)
    if not channels:
        return
    now = timestamp(utc_now())
    message, is_news = _message(prepared, ending, read_report)
    problems = []
    for place, spec, channel in channels:
        is_due = spec.only_if == "always" or (ending.code != ExitCode.DONE and is_news)
        if is_due and (problem := notify(channel, message, prepared.profile.network)):
            problems.append(problem)
            notice(f"{prepared.loaded.name}: {place}: not notified: {problem}")
    if not problems:
        _record_notice(prepared, now)


def _record_notice(prepared: Prepared, now: str) -> None:
    """Record the time of the notice; if the ledger can't be written, the next one repeats it."""
    if not prepared.ledger.exists():
        return
    with (
        suppress(BatchgenError, sqlite3.Error),
        closing(open_for_writing(prepared.ledger)) as conn,
    ):
        batch = batch_id(conn, prepared.loaded.name)
        if batch is not None:
            keep_notice(conn, batch, now)


def _message(prepared: Prepared, ending: Ending, read_report: ReportReader) -> tuple[Notice, bool]:
    """Return the notice, and whether it says anything that no earlier one did.

    Jobs that waited before are not news. Errors and stops are, each time.
    """
    name = prepared.loaded.name
    record: dict[str, object] = {"batch": name}
    text = ending.error or f"exit code {ending.code.value}"
    is_news = True
    try:
        found = read_report(prepared.ledger, name)
    except BatchgenError as exc:  # the batch was never run, or the ledger itself is broken
        if ending.error is None and not isinstance(exc, UnknownBatchError):
            text = str(exc)
    else:
        report = found.report
        waits_only = ending.code == ExitCode.UNFINISHED and ending.error is None
        is_known = report.status.troubled and not report.status.unfinished
        is_news = bool(report.news.total) or not (waits_only and is_known)
        record = found.record
        text = f"{ending.error}\n{found.text}" if ending.error else found.text
    record |= {"exit_code": ending.code.value, "error": ending.error}
    message = Notice(
        title=f"batchgen {name}: {'all done' if not ending.code else f'exit code {ending.code}'}",
        text=text,
        body=json.dumps(record, ensure_ascii=False).encode(),
    )
    return message, is_news
