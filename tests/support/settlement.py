"""Settle attempts of a ledger."""

from __future__ import annotations

from datetime import timedelta

from batchgen.job import BatchId
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.reconciliation import sent_attempts
from batchgen.reconciliation.settlement import Reconciliation, Sent

SETTLE = timedelta(minutes=60)
NOTHING = Reconciliation(
    billed=(), unbilled=(), corrected=(), unproven=(), missing=(), foreign=(), drift=()
)


def sent(ledger: Ledger, batch: BatchId) -> list[Sent]:
    return sent_attempts(ledger.conn, batch, "local", settle=SETTLE)
