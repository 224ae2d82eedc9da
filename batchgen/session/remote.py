"""What a run has besides its own process: the actors of a cluster, and responses in buckets."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from batchgen.engine.pool import Remote
from batchgen.job import BatchId
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.path_owners import roots_of
from batchgen.ledger.uncertain import uncertain_sums
from batchgen.session.prepare import Prepared
from batchgen.urls import is_bucket

if TYPE_CHECKING:
    from batchgen.cluster.lease import Lease
    from batchgen.cluster.ledger_backup import LedgerBackup
    from batchgen.cluster.messages import RunSettings
    from batchgen.cluster.obstacles import ActorObstacles
    from batchgen.cluster.parts import ClusterParts
    from batchgen.engine.context import RunContext
    from batchgen.engine.executor import Executor
    from batchgen.engine.image_source import ImageSource
    from batchgen.engine.local_executor import LocalExecutor


def responses_wait(
    conn: sqlite3.Connection,
    prepared: Prepared,
    batch: BatchId,
    backup: LedgerBackup | None = None,
) -> bool:
    """Return whether a response came late for a job that is held as uncertain.

    Looks into buckets only for such jobs. A bucket that cannot be read counts as empty here: a
    run that has more to do reports it.
    """
    roots = [root for root in roots_of(conn, batch) if is_bucket(root)]
    if not (roots or backup) or not uncertain_sums(conn, batch).jobs:
        return False
    from batchgen.cluster.intents import spool_objects
    from batchgen.ledger.late_responses import late_attempts

    opened = prepared.stores()
    stores = [opened.of(root) for root in roots]
    if backup is not None:
        stores.append(backup.store)
    with suppress(OSError):
        found = [one.attempt for store in stores for one in spool_objects(store) if one.is_response]
        return bool(late_attempts(Ledger(conn), batch, found))
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteParts:
    """What a run uses outside of this machine, from before its plan."""

    batch: str = ""
    """Its name."""
    grace_s: float = 30.0
    """How long to wait for responses that the senders of an earlier run may still put."""
    cluster: ClusterParts | None = None
    backup: LedgerBackup | None = None
    """The backup of the ledger, if that is in a bucket."""


def remote_of(
    context: RunContext,
    buckets: Sequence[str],
    parts: RemoteParts,
    run: Callable[[], RunSettings],
) -> Remote | None:
    """Return the remote parts of a run; None if everything is in directories of this machine."""
    stores = [] if context.stores is None else [context.stores.of(root) for root in buckets]
    cluster, backup = parts.cluster, parts.backup
    if backup is not None:
        stores.append(backup.store)
    if not stores:
        return None
    from batchgen.cluster.late_responses import LateResponses

    late = LateResponses(
        context,
        stores,
        grace_s=parts.grace_s,
        own=None if backup is None or backup.is_restored else backup.store,
        keeps_objects=backup is not None,
    )
    if cluster is not None:
        from batchgen.cluster.obstacles import ActorObstacles

        assert context.stores is not None
        obstacles = ActorObstacles(
            context.base,
            context.stores,
            overwrite=context.overwrite,
            root=cluster.started.settings.root,
            route_of=context.profile.route_of,
        )
        executor = _on_cluster(context, cluster, run, obstacles)
        return Remote(late=late, executor=executor, obstacles=obstacles)
    if backup is not None:
        return Remote(late=late, executor=_backed(context, parts.batch, backup))
    return Remote(late=late)


_MakeExecutor = Callable[["LocalExecutor", "ImageSource"], AbstractAsyncContextManager["Executor"]]


def _backed(context: RunContext, batch: str, backup: LedgerBackup) -> _MakeExecutor:
    @asynccontextmanager
    async def executor(local: LocalExecutor, source: ImageSource) -> AsyncIterator[Executor]:
        from batchgen.cluster.backed_executor import BackedExecutor

        _stop_without(context, backup.lease)
        yield BackedExecutor(context, local, batch, backup.store, backup.lease)

    return executor


def _stop_without(context: RunContext, lease: Lease) -> None:
    """Stop dispatch when the lease is lost."""
    loop, stop = asyncio.get_running_loop(), context.throttle.stop
    lease.on_lost(lambda reason: _call(loop, stop, reason))


def _on_cluster(
    context: RunContext,
    cluster: ClusterParts,
    run: Callable[[], RunSettings],
    obstacles: ActorObstacles,
) -> _MakeExecutor:
    @asynccontextmanager
    async def executor(local: LocalExecutor, source: ImageSource) -> AsyncIterator[Executor]:
        from batchgen.cluster.executor import ClusterExecutor

        _stop_without(context, cluster.lease)
        one = ClusterExecutor(context, cluster, local, source, obstacles)
        await one.open(run())
        try:
            yield one
        finally:
            with anyio.CancelScope(shield=True):
                await one.close()

    return executor


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[str], None], reason: str) -> None:
    """Call a function in the loop of the run, from any thread, unless the run has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, reason)
