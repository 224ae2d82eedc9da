"""Carry out the orders of a run in this process, for a ledger that is backed up in a bucket.

Each request has its intent in the bucket before it leaves, and its whole response before it is
read. So another machine can continue after the loss of this one; see `ledger_backup`.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import replace

import anyio

from batchgen.cluster.dispatch import intent_of, require_lease
from batchgen.cluster.intents import intent_name, put_once, response_name
from batchgen.cluster.lease import Lease
from batchgen.engine.context import RunContext
from batchgen.engine.delivery_results import Fetched
from batchgen.engine.executor import ExchangeOrder, FetchOrder, NotSentError
from batchgen.engine.local_executor import LocalExecutor
from batchgen.engine.stop_reasons import STORAGE
from batchgen.outcomes.exchange import Exchange, Reach
from batchgen.spool.portable import portable_response
from batchgen.storage.store import Store
from batchgen.system.failpoints import Point, hit
from batchgen.system.threads import in_disk_thread, in_store_thread


class BackedExecutor:
    """Sends requests and saves images in this process; the bucket has what it needs to know."""

    def __init__(
        self, context: RunContext, local: LocalExecutor, batch: str, store: Store, lease: Lease
    ) -> None:
        self._context = context
        self._local = local
        self._batch = batch
        self._store = store
        self._lease = lease

    async def exchange(self, order: ExchangeOrder) -> Exchange:
        """Put the intent, send the request once, and put its response; see `Executor.exchange`."""
        order.departure.reach = Reach.NOTHING
        await self._put_intent(order)
        order.departure.reach = Reach.SENT

        async def wait(ahead_s: float = 0.0) -> float:
            left_s = await order.wait(ahead_s)
            try:
                require_lease(self._context, self._lease)  # a connection may have taken long
            except NotSentError as exc:
                raise OSError(errno.ECANCELED, str(exc)) from exc  # what stops a body unsent
            return left_s

        try:
            exchange = await self._local.exchange(replace(order, wait=wait))
        except NotSentError:
            await self._forget_intent(order)
            raise
        if exchange.reach is Reach.NOTHING:
            await self._forget_intent(order)
        if exchange.reach is Reach.COMPLETE:
            # A cancellation would leave the response to this machine alone.
            with anyio.CancelScope(shield=True):
                await self._put_response(order)
        return exchange

    async def fetch(self, order: FetchOrder) -> Fetched:
        """Bring an image to its output path; see `Executor.fetch`."""
        return await self._local.fetch(order)

    async def _put_intent(self, order: ExchangeOrder) -> None:
        """Put the intent of an order. Raises NotSentError, and stops dispatch then."""
        epoch = self._lease.epoch
        intent = intent_of(self._context, order, batch=self._batch, epoch=epoch)
        name = intent_name(epoch, order.attempt)
        require_lease(self._context, self._lease)
        try:
            taken = await in_store_thread(put_once, self._store, name, intent.as_json())
        except OSError as exc:
            self._context.throttle.stop(f"{STORAGE}: {exc}")
            raise NotSentError(f"no intent: {exc}") from exc
        if taken is not None:
            raise NotSentError(taken)
        try:
            require_lease(self._context, self._lease)  # the put may have taken longer than it lasts
        except NotSentError:
            await self._forget_intent(order)
            raise
        hit(Point.INTENT_PUT)

    async def _forget_intent(self, order: ExchangeOrder) -> None:
        """Delete the intent of a request that did not leave, if the lease is lost.

        Another machine would record it as possibly charged. With the lease, the backup deletes it.
        """
        if not self._lease.is_held:
            with suppress(OSError):
                name = intent_name(self._lease.epoch, order.attempt)
                await in_store_thread(self._store.delete, name)

    async def _put_response(self, order: ExchangeOrder) -> None:
        """Put a whole response. If that fails, dispatch stops: the spool has the response."""
        name = response_name(self._lease.epoch, order.attempt)
        try:
            data = order.part.content()
            if data is None:
                data = await in_disk_thread(self._spooled, order)
            if data is not None:
                await in_store_thread(put_once, self._store, name, data)
        except OSError as exc:
            self._context.throttle.stop(f"{STORAGE}: {exc}")
        hit(Point.RESPONSE_PUT)

    def _spooled(self, order: ExchangeOrder) -> bytes | None:
        found = self._context.spool.find(order.attempt)
        return None if found is None else portable_response(found)
