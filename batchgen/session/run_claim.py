"""The record of the process that owns a run."""

from __future__ import annotations

from dataclasses import replace

from batchgen.ledger.owners import Claim
from batchgen.session.batch_lock import held_lock
from batchgen.session.prepare import RunSpec
from batchgen.spool.spool import Spool
from batchgen.system.process_owner import SILENT_S
from batchgen.system.process_table import this_process


def claim_of(spec: RunSpec, spool: Spool) -> Claim:
    """Return the claim of this process, which holds the lock; the spool is prepared."""
    owner = this_process(held_lock(spec.prepared.ledger, spec.name))
    silent_s = max(SILENT_S, round(2 * spec.limits.deadline_s))
    return Claim(
        here=replace(owner, me=replace(owner.me, silent_s=silent_s)),
        spool=spool.identity,
        take_over=spec.overrides.take_over,
    )
