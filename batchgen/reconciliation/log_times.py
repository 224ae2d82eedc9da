"""When the row of an attempt may be in a billing log. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from batchgen.job import Billed, Outcome
from batchgen.reconciliation.charges import UsageLog
from batchgen.reconciliation.settlement import Sent, Why

CLOCK_SKEW: Final = timedelta(minutes=2)
"""How far the provider's clock may lag ours."""
PROOF_DELAY: Final = timedelta(minutes=15)
"""How long after a request's end a charge proves something, in a log with request ids: a gateway
continues after its client hung up. A later one, within the settle window, is possible only."""

LATE: Final = timedelta(hours=1)
"""How long after its request a known charge is looked for at least, however short the settle window
is: an earlier reconciliation may have found it there."""


@dataclass(frozen=True, slots=True)
class LogTimes:
    """The windows of time in which attempts and rows of one log belong together."""

    log: UsageLog
    settle: timedelta
    """How long after an attempt's end its charge may come."""
    has_ids: bool
    """Whether rows of the log carry request ids."""

    def end(self, sent: Sent) -> datetime:
        """Return when an attempt ended; the end of the log for one in flight."""
        return self.log.until if sent.ended_at is None else sent.ended_at

    def proof_end(self, sent: Sent) -> datetime:
        """Return until when a row proves that the attempt is charged."""
        return self.end(sent) + PROOF_DELAY

    def sending(self, sent: Sent) -> tuple[datetime, datetime]:
        """Return when the provider may have received the attempt, by its own clock."""
        return sent.started_at - CLOCK_SKEW, self.end(sent) + CLOCK_SKEW

    def counted(self, sent: Sent) -> tuple[datetime, datetime]:
        """Return when a row may be in the log that numbers alone assign to the attempt."""
        begin, end = self.settling(sent)
        if sent.billed is Billed.MAYBE and self.has_ids:
            end = min(end, self.proof_end(sent))
        return begin, end

    def settling(self, sent: Sent) -> tuple[datetime, datetime]:
        """Return when the attempt's charge may be in the log."""
        return sent.started_at - CLOCK_SKEW, self.end(sent) + self.settle

    def late(self, sent: Sent) -> tuple[datetime, datetime]:
        """Return when the row of a known charge may be in the log."""
        return sent.started_at - CLOCK_SKEW, self.end(sent) + max(self.settle, LATE)

    def beyond(self, sent: Sent) -> Why | None:
        """Return why the log can't be expected to have all of this attempt's time."""
        begin, end = self.settling(sent)
        if sent.outcome is Outcome.SENDING:
            return Why.CUT_OFF
        if end > self.log.until:
            return Why.YOUNG
        return Why.BEFORE if begin < self.log.since else None


def merged(
    spans: Iterable[tuple[datetime, datetime]],
) -> Sequence[tuple[datetime, datetime]]:
    """Return spans of time in order, those that touch joined."""
    found: list[tuple[datetime, datetime]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found
