"""`batchgen reconcile`: match uncertain requests with the provider's log. Rebuys nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import anyio

from batchgen.commands.locked_batch import locked_batch
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, SettingsError, StoppedError, UnknownBatchError
from batchgen.ledger.batches import BatchRow
from batchgen.ledger.clock import utc_now
from batchgen.ledger.manifest_paths import manifest_path
from batchgen.ledger.reconciliation import sent_attempts, settle_attempts
from batchgen.manifest.loader import parse_manifest
from batchgen.providers.catalog import Unavailable, fetch_account
from batchgen.providers.usage_log import Span, UsageLogError, read_exported_log, read_usage_log
from batchgen.reconciliation.charges import UsageLog
from batchgen.reconciliation.log_times import CLOCK_SKEW, LATE
from batchgen.reconciliation.matching import reconcile as compare
from batchgen.reconciliation.settlement import Sent
from batchgen.report.reconcile import Reconciled, reconcile_record, reconcile_text
from batchgen.session.local_server import embedded_endpoint
from batchgen.session.prepare import Prepared, settle_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which billing log to read, and how to match it."""

    log: Path | None
    """An exported log; None requests it from the provider."""
    settle_minutes: int
    since: date | None
    token_name: str | None

    @property
    def settle(self) -> timedelta:
        """Return how long after a request's end its charge may be logged."""
        return timedelta(minutes=self.settle_minutes)

    @property
    def read(self) -> timedelta:
        """Return how long after a request's end the log is read: known charges may be late."""
        return max(self.settle, LATE)


def reconcile(name: str, db: Path | None, question: Question, *, as_json: bool) -> ExitCode:
    """Settle what the log proves; exit with 1 if a charge is open, foreign or at another price.

    Raises SettingsError and UnknownBatchError, and StoppedError if the log cannot be read to its
    end; nothing is changed then.
    """
    with locked_batch(name, db) as batch:
        prepared = _prepared(batch.row, batch.ledger)
        attempts = sent_attempts(
            batch.conn,
            batch.row.id,
            prepared.profile.name,
            settle=question.read,
            since=question.since,
        )
        ours = [sent for sent in attempts if sent.ours]
        if not ours:
            raise UnknownBatchError(f"{name}: no request of it that a log could know; run it first")
        log = _read(question.log) if question.log else _ask(prepared, _span(ours, question))
        found = compare(attempts, log, question.settle)
        moved = settle_attempts(batch.conn, found)
    done = Reconciled(
        batch=name,
        source=str(question.log or f"the log of {prepared.profile.name}"),
        log=log,
        attempts=len(ours),
        found=found,
        moved=moved,
    )
    write_line(sys.stdout, json.dumps(reconcile_record(done)) if as_json else reconcile_text(done))
    return ExitCode.DONE if found.agrees else ExitCode.UNFINISHED


def _prepared(batch: BatchRow, ledger: Path) -> Prepared:
    """Return the batch as planned last; its manifest file is not needed."""
    path = manifest_path(ledger, batch.manifest_path)
    loaded = parse_manifest(batch.manifest.encode(), file=path.name, path=path)
    return settle_settings(loaded, ledger)


def _span(ours: Sequence[Sent], question: Question) -> Span:
    """Return the time range in which the log may list charges of these attempts."""
    now = utc_now()
    end = max(sent.ended_at or now for sent in ours) + question.read
    return Span(
        since=min(sent.started_at for sent in ours) - CLOCK_SKEW,
        until=min(now, end),
        refunds_until=now,
        token_name=question.token_name,
    )


def _read(path: Path) -> UsageLog:
    try:
        return read_exported_log(path.read_bytes())
    except OSError as exc:
        raise SettingsError(f"{path}: can't be read: {exc.strerror}") from exc
    except UsageLogError as exc:
        raise SettingsError(f"{path}: {exc}") from exc


def _ask(prepared: Prepared, span: Span) -> UsageLog:
    profile = prepared.profile
    if profile.account_log is None:
        raise SettingsError(
            f"{profile.name} has no log that batchgen can request; export it as CSV, and pass"
            " --log FILE"
        )
    account = prepared.environment.account(profile.account_log)

    async def read(root_url: str) -> UsageLog:
        async def fetch(route: str) -> bytes:
            token, user = account.token.reveal(), account.user
            return await fetch_account(root_url + route, token, user, profile.network)

        return await read_usage_log(fetch, span)

    with _root_url(prepared) as root_url:
        try:
            return anyio.run(read, root_url)
        except Unavailable as exc:
            refused = exc.status in (401, 403)
            why = ": the provider refuses the access token or the account" if refused else ""
            raise StoppedError(f"the log can't be read, nothing was changed: {exc}{why}") from exc
        except UsageLogError as exc:
            # The error may repeat a response of the provider, which may repeat our token.
            said = str(exc).replace(account.token.reveal(), "***")
            raise StoppedError(f"the log can't be read, nothing was changed: {said}") from None


@contextmanager
def _root_url(prepared: Prepared) -> Iterator[str]:
    """Yield the provider's root URL; start the local endpoint for its bill if it is the one."""
    if prepared.profile.root_url is not None:
        yield prepared.profile.root_url
        return
    with embedded_endpoint(prepared.ledger) as base_url:
        yield base_url.removesuffix("/v1")
