"""Collect responses that actors stored in a bucket and whose reports were lost.

A run looks at its start, before it settles what an earlier run left in flight, and at its end. That
needs no cluster, so that a run on one machine can follow one on a cluster.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import anyio

from batchgen.cluster.intents import SpoolObject, spool_objects
from batchgen.cluster.messages import STAGING_PREFIX
from batchgen.engine.attempt import expiry, stored_reference
from batchgen.engine.context import RunContext
from batchgen.engine.recovery import habits_of, read_spooled, spooled_exchange
from batchgen.engine.stop_reasons import STORAGE
from batchgen.job import AttemptId, Billed, Outcome
from batchgen.ledger.attempts import open_attempts
from batchgen.ledger.late_responses import (
    LateAttempt,
    late_attempts,
    needed_responses,
    record_late_refusal,
    record_late_response,
    spent_attempts,
)
from batchgen.outcomes.classify import classify
from batchgen.providers.adapters.tasks import followed
from batchgen.spool.portable import receive_response
from batchgen.storage.store import Store
from batchgen.system.threads import in_decode_thread, in_disk_thread, in_store_thread
from batchgen.text import counted

_LOOK_S: Final = 2.0
_PER_REQUEST: Final = 500


@dataclass(frozen=True, slots=True)
class _Place:
    """The objects of an attempt in one store."""

    store: Store
    intent: str | None = None
    response: str | None = None


class LateResponses:
    """Collects the responses of one batch from the buckets of its output directories."""

    def __init__(
        self,
        context: RunContext,
        stores: Sequence[Store],
        *,
        grace_s: float,
        own: Store | None = None,
        keeps_objects: bool = False,
    ) -> None:
        """``own`` is a store in which only processes that are dead have put intents.

        With ``keeps_objects``, intents and responses stay for the backup of the ledger.
        """
        self._context = context
        self._stores = stores
        self._grace_s = grace_s
        self._own = own
        self._keeps_objects = keeps_objects
        self._at_end = dict[AttemptId, _Place]()
        """What was in the buckets at the end of the run."""

    async def before_recovery(self) -> bool:
        """Bring the responses that this run needs; wait a while for those that may be coming.

        Stops dispatch and returns False if a bucket cannot be read: attempts would be settled
        without them.
        """
        try:
            await self._before_recovery()
        except OSError as exc:
            self._context.throttle.stop(f"{STORAGE}: {exc}")
            return False
        return True

    async def _before_recovery(self) -> None:
        context, end = self._context, time.monotonic() + self._grace_s
        while True:
            places = await in_store_thread(self._list)
            if not places:
                return
            await self._bring(places)
            opened = await context.ledger.run(open_attempts, context.batch)
            waiting = [
                one.id for one in opened if (place := places.get(one.id)) and self._may_come(place)
            ]
            left_s = end - time.monotonic()
            if not waiting or left_s <= 0:
                break
            context.notice(
                "late responses",
                f"{counted(len(waiting), 'request')} of an earlier run may still be answered;"
                f" waiting up to {self._grace_s:.0f} s for responses",
            )
            await anyio.sleep(min(left_s, _LOOK_S))
        await self._settle(places)

    async def at_end(self) -> int:
        """Settle attempts of this batch whose responses came late, and return how many."""
        try:
            self._at_end = places = await in_store_thread(self._list)
            if not places:
                return 0
            await self._bring(places)
            return await self._settle(places)
        except OSError as exc:
            self._warn(exc)
            return 0

    async def remove_spent(self) -> None:
        """Delete what nothing needs after the images of late responses are saved."""
        try:
            if self._at_end:
                await self._remove_spent(self._at_end)
        except OSError as exc:
            self._warn(exc)

    def _warn(self, error: OSError) -> None:
        self._context.notice("late responses", f"warning: late responses: {error}")

    def _may_come(self, place: _Place) -> bool:
        """Return whether the sender of a request may still put its response."""
        return place.intent is not None and place.response is None and place.store is not self._own

    def _list(self) -> dict[AttemptId, _Place]:
        found = dict[AttemptId, _Place]()
        for store in self._stores:
            for one in spool_objects(store):
                found[one.attempt] = _with(found.get(one.attempt), store, one)
        return found

    async def _bring(self, places: dict[AttemptId, _Place]) -> None:
        """Write the responses that the run needs into the spool of this machine."""
        context = self._context
        stored = [attempt for attempt, place in places.items() if place.response]
        for attempt in await context.ledger.run(needed_responses, context.batch, stored):
            place = places[attempt]
            if await in_disk_thread(context.spool.find, attempt) is None:
                assert place.response is not None
                with suppress(FileNotFoundError):  # removed meanwhile
                    data = await in_store_thread(place.store.read, place.response)
                    await in_disk_thread(receive_response, context.spool, attempt, data)

    async def _settle(self, places: dict[AttemptId, _Place]) -> int:
        context, count = self._context, 0
        stored = [attempt for attempt, place in places.items() if place.response]
        for late in await context.ledger.run(late_attempts, context.batch, stored):
            count += await self._settle_one(late)
        return count

    async def _settle_one(self, late: LateAttempt) -> bool:
        """Record a late response; return whether its job moved."""
        context = self._context
        exchange = await in_disk_thread(spooled_exchange, context.spool, late.id)
        text = await in_decode_thread(read_spooled, context.spool, late.id, exchange)
        response = None if text.response is None else followed(text.response, context.base_url)
        found = classify(exchange, response, habits_of(context.profile), prompt=late.prompt)
        if found.outcome is Outcome.OK and response is not None:
            images = [(stored_reference(context, ref), expiry(ref.url)) for ref in response.images]
            usage = response.usage
            state = await context.ledger.run(
                record_late_response,
                late.id,
                found,
                images,
                response=context.spool.name(late.id),
                cost=context.profile.cost_of(late.model, usage) if usage else None,
            )
        elif found.billed is Billed.NO:
            state = await context.ledger.run(record_late_refusal, late.id, found)
        else:
            return False
        return state is not None

    async def _remove_spent(self, places: dict[AttemptId, _Place]) -> None:
        """Delete intents, responses and staged images of attempts that no longer need them."""
        context = self._context
        spent = set(await context.ledger.run(spent_attempts, context.batch, list(places)))
        needed = {place.intent for attempt, place in places.items() if attempt not in spent}
        for store in self._stores:
            removed = {
                name
                for attempt in spent
                if (place := places[attempt]).store is store
                for name in (place.intent, place.response)
                if name is not None and name not in needed and not self._keeps_objects
            }
            names = [*removed, *await in_store_thread(_staged, store, spent)]
            for start in range(0, len(names), _PER_REQUEST):
                await in_store_thread(store.delete_all, names[start : start + _PER_REQUEST])


def _with(place: _Place | None, store: Store, one: SpoolObject) -> _Place:
    known = place or _Place(store)
    if one.is_response:
        return _Place(store, known.intent, one.name)
    return _Place(store, one.name, known.response)


def _staged(store: Store, attempts: set[AttemptId]) -> list[str]:
    return [
        one.name
        for one in store.list(STAGING_PREFIX)
        if one.name.removeprefix(STAGING_PREFIX).partition("-")[0] in attempts
    ]
