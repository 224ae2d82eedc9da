"""What the progress guard leaves in the ledger for the next run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from batchgen.engine.guard_rules import GuardLimits
from batchgen.engine.progress_guard import ProgressGuard
from batchgen.engine.throttle.core import ThrottleCore
from batchgen.engine.throttle.limits import DispatchLimits, DispatchStopped
from batchgen.engine.throttle.throttle import Throttle
from batchgen.job import JobId, RunId
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.guard import proven_kinds
from batchgen.ledger.jobs import pending_jobs
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.writer import LedgerWriter
from batchgen.providers.registry import PROFILES
from tests.support.builders import enroll, planned

NO_WAIT = GuardLimits(canary=2, patience_s=0)


@pytest.mark.anyio
@pytest.mark.parametrize("is_saved", [True, False])
async def test_canary_saved_after_the_stop_counts(is_saved: bool, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(open_for_writing(path)) as conn:
        ledger = Ledger(conn)
        batch = enroll(ledger, [planned(number) for number in range(3)])
        one, two, three = pending_jobs(ledger, batch, after=JobId(0), limit=3)
    throttle = Throttle(ThrottleCore(DispatchLimits()))
    guard = ProgressGuard(NO_WAIT, throttle, PROFILES["local"], proven=set())
    async with LedgerWriter(path) as writer:
        for job in (one, two):
            await guard.admit(job)
            guard.failing(job, "HTTP 503")
        with pytest.raises(DispatchStopped, match="returned no image"):
            await guard.admit(three)
        if is_saved:
            await guard.saved(one, writer)
        await guard.settle(RunId(1), writer)
        found = await writer.run(proven_kinds, "local")
    assert bool(found) is is_saved
