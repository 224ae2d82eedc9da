"""What a run has besides its own process: the actors of a cluster, and responses in buckets."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import anyio

from batchgen.engine.pool import Remote
from batchgen.job import BatchId
from batchgen.ledger.late_responses import late_attempts
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.path_owners import roots_of
from batchgen.ledger.uncertain import uncertain_sums
from batchgen.session.prepare import Prepared
from batchgen.urls import is_bucket

if TYPE_CHECKING:
    from batchgen.cluster.executor import ClusterParts
    from batchgen.cluster.messages import RunSettings
    from batchgen.engine.context import RunContext
    from batchgen.engine.executor import Executor
    from batchgen.engine.image_source import ImageSource
    from batchgen.engine.local_executor import LocalExecutor

_GRACE_S: Final = 30.0


def responses_wait(conn: sqlite3.Connection, prepared: Prepared, batch: BatchId) -> bool:
    """Return whether a response came late for a job that is held as uncertain.

    Looks into buckets only for such jobs. A bucket that cannot be read counts as empty here: a
    run that has more to do reports it.
    """
    roots = [root for root in roots_of(conn, batch) if is_bucket(root)]
    if not roots or not uncertain_sums(conn, batch).jobs:
        return False
    from batchgen.cluster.intents import spool_objects

    stores = prepared.stores()
    with suppress(OSError):
        found = [
            one.attempt
            for root in roots
            for one in spool_objects(stores.of(root))
            if one.is_response
        ]
        return bool(late_attempts(Ledger(conn), batch, found))
    return False


def remote_of(
    context: RunContext,
    buckets: Sequence[str],
    cluster: ClusterParts | None,
    run: Callable[[], RunSettings],
) -> Remote | None:
    """Return the remote parts of a run; None if its batch is in directories of this machine."""
    if context.stores is None or not buckets:
        return None
    from batchgen.cluster.late_responses import LateResponses

    stores = [context.stores.of(root) for root in buckets]
    grace_s = _GRACE_S if cluster is None else cluster.grace_s
    late = LateResponses(context, stores, grace_s=grace_s)
    if cluster is None:
        return Remote(late=late)

    @asynccontextmanager
    async def executor(local: LocalExecutor, source: ImageSource) -> AsyncIterator[Executor]:
        from batchgen.cluster.executor import ClusterExecutor

        loop = asyncio.get_running_loop()
        stop = context.throttle.stop
        cluster.lease.on_lost(lambda reason: _call(loop, stop, reason))
        one = ClusterExecutor(context, cluster, local, source)
        await one.open(run())
        try:
            yield one
        finally:
            with anyio.CancelScope(shield=True):
                await one.close()

    return Remote(late=late, executor=executor)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[str], None], reason: str) -> None:
    """Call a function in the loop of the run, from any thread, unless the run has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, reason)
