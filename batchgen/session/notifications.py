"""What a manifest wants told when a run begins and ends: `ping` and `on_finish`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from batchgen.errors import BatchgenError, ExitCode, SettingsError, UnknownBatchError
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.news import keep_notice
from batchgen.ledger.queries import batch_id
from batchgen.manifest.model import Notifier
from batchgen.session.notify import Apprise, Command, Notice, Webhook, has_apprise, notify, ping
from batchgen.session.prepare import Prepared

Channel = Command | Webhook | Apprise


@dataclass(slots=True)
class Ending:
    """How a run ended, as far as it is known."""

    code: ExitCode = ExitCode.BUG
    error: str | None = None


def channels_of(prepared: Prepared) -> list[tuple[str, Notifier, Channel]]:
    """Who is told, each with its place in the manifest.

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


@contextmanager
def telling(prepared: Prepared, tell: Callable[[str], None]) -> Iterator[Ending]:
    """Tell of a run that begins and ends inside; who can't be told is named by ``tell``."""
    name, url = prepared.loaded.name, prepared.loaded.manifest.ping
    address = prepared.environment.expand(url, "ping") if url else None

    def asked(suffix: str) -> None:
        if address is not None and (problem := ping(address, suffix)):
            tell(f"{name}: ping: {problem}")

    ending = Ending()
    asked("/start")
    try:
        yield ending
    except BatchgenError as exc:
        ending.code, ending.error = exc.exit_code, str(exc)
        raise
    finally:
        asked("/fail" if ending.code else "")
        _tell_all(prepared, ending, tell)


def _tell_all(prepared: Prepared, ending: Ending, tell: Callable[[str], None]) -> None:
    """Notify every channel that is due; what a notice named is not new in the next one.

    Where a channel can't be reached, it stays new.
    """
    channels = channels_of(prepared)
    if not channels:
        return
    now = timestamp(utc_now())
    notice, is_news = _notice(prepared, ending)
    problems = []
    for place, spec, channel in channels:
        is_due = spec.only_if == "always" or (ending.code != ExitCode.DONE and is_news)
        if is_due and (problem := notify(channel, notice)):
            problems.append(problem)
            tell(f"{prepared.loaded.name}: {place}: not notified: {problem}")
    if not problems:
        _keep(prepared, now)


def _keep(prepared: Prepared, now: str) -> None:
    """Record what was named, where there is a batch; a ledger that can't be written names again."""
    if not prepared.ledger.exists():
        return
    with (
        suppress(BatchgenError, sqlite3.Error),
        closing(open_for_writing(prepared.ledger)) as conn,
    ):
        batch = batch_id(conn, prepared.loaded.name)
        if batch is not None:
            keep_notice(conn, batch, now)


def _notice(prepared: Prepared, ending: Ending) -> tuple[Notice, bool]:
    """The notice, and whether it says anything that an earlier one did not.

    What waited before is no news. Errors and stops are, each time.
    """
    # Imported here: most runs notify nobody, and all would start later for it.
    from batchgen.commands.report import morning_of
    from batchgen.report.run import report_record, report_text

    name = prepared.loaded.name
    record: dict[str, object] = {"batch": name}
    text = ending.error or f"exit code {ending.code.value}"
    is_news = True
    try:
        morning = morning_of(prepared.ledger, name, only_news=True)
    except BatchgenError as exc:  # nothing was ever run, or the ledger is what is broken
        if ending.error is None and not isinstance(exc, UnknownBatchError):
            text = str(exc)
    else:
        report = morning.report
        waits_only = ending.code == ExitCode.UNFINISHED and ending.error is None
        is_known = report.status.troubled and not report.status.unfinished
        is_news = bool(report.news.total) or not (waits_only and is_known)
        record = report_record(morning)
        text = f"{ending.error}\n{report_text(morning)}" if ending.error else report_text(morning)
    record |= {"exit_code": ending.code.value, "error": ending.error}
    notice = Notice(
        title=f"batchgen {name}: {'all done' if not ending.code else f'exit code {ending.code}'}",
        text=text,
        body=json.dumps(record, ensure_ascii=False).encode(),
    )
    return notice, is_news
