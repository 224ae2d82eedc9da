"""What a run records of the process that owns it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from batchgen.ledger.owners import Claim
from batchgen.manifest.model import Limits
from batchgen.session.batch_lock import held_lock
from batchgen.session.prepare import Overrides, Prepared
from batchgen.spool.spool import Spool
from batchgen.system.process_owner import SILENT_S
from batchgen.system.process_table import this_process

DEFAULT_DEADLINE_S: Final = 300.0


def deadline_s(limits: Limits) -> float:
    """Return how long one request may take, in seconds."""
    return float(limits.deadline or DEFAULT_DEADLINE_S)


def claim_of(prepared: Prepared, overrides: Overrides, spool: Spool) -> Claim:
    """Return the claim of this process, which holds the lock; the spool is prepared."""
    owner = this_process(held_lock(prepared.ledger, prepared.loaded.name))
    silent_s = max(SILENT_S, round(2 * deadline_s(prepared.loaded.manifest.limits)))
    return Claim(
        here=replace(owner, me=replace(owner.me, silent_s=silent_s)),
        spool=spool.identity,
        take_over=overrides.take_over,
    )
