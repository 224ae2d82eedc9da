"""What an executor does between the intent and the first byte, which may not leave."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from batchgen.cluster.backed_executor import BackedExecutor
from batchgen.cluster.intents import spool_objects
from batchgen.cluster.lease import acquire
from batchgen.cluster.lease_record import WHOLE_LEDGER
from batchgen.engine.executor import ExchangeOrder, NotSentError, Wait
from batchgen.job import AttemptId
from batchgen.money import PriceTerms
from batchgen.outcomes.exchange import Reach
from batchgen.storage.local import LocalStore
from batchgen.storage.store import ObjectInfo


@dataclass
class Sender:
    """An HTTP client at the moment at which the connection is open."""

    sent: int = 0

    async def exchange(self, order: ExchangeOrder) -> None:
        await order.wait()
        self.sent += 1


@dataclass
class Throttle:
    """What stops dispatch."""

    reasons: list[str] = field(default_factory=list)

    def stop(self, reason: str) -> None:
        self.reasons.append(reason)


def order_of(wait: Wait) -> ExchangeOrder:
    job = SimpleNamespace(key="k", fingerprint="f", model="m", options={}, images=(), price=37_700)
    return ExchangeOrder(
        attempt=AttemptId("0a"),
        job=cast(Any, job),
        request=cast(Any, None),
        terms=PriceTerms(),
        wait=wait,
        part=cast(Any, None),
    )


@pytest.mark.parametrize("lost", ["before", "while it waits"])
def test_lost_lease_sends_nothing(lost: str, tmp_path: Path) -> None:
    store, sender, throttle = LocalStore(tmp_path), Sender(), Throttle()
    lease = acquire(store, WHOLE_LEDGER)
    profile = SimpleNamespace(name="local")
    context = cast(Any, SimpleNamespace(profile=profile, throttle=throttle))
    executor = BackedExecutor(context, cast(Any, sender), "b", store, lease)

    async def wait(ahead_s: float = 0.0) -> float:
        lease.release()
        return 0.0

    order = order_of(wait)
    if lost == "before":
        lease.release()
    with pytest.raises(NotSentError if lost == "before" else OSError, match="was released"):
        anyio.run(executor.exchange, order)
    assert sender.sent == 0
    assert throttle.reasons == ["the lease of the ledger was released"]
    assert len(list(spool_objects(store))) == (0 if lost == "before" else 1)


class SlowStore(LocalStore):
    """A bucket that takes its time for an intent."""

    def put(self, name: str, data: bytes, **how: Any) -> ObjectInfo:
        if name.endswith(".intent"):
            time.sleep(0.5)
        return super().put(name, data, **how)


def test_order_cancelled_at_its_intent_was_not_sent(tmp_path: Path) -> None:
    store, sender = SlowStore(tmp_path), Sender()
    context = cast(Any, SimpleNamespace(profile=SimpleNamespace(name="local"), throttle=Throttle()))
    executor = BackedExecutor(context, cast(Any, sender), "b", store, acquire(store, WHOLE_LEDGER))

    async def wait(ahead_s: float = 0.0) -> float:
        return 0.0

    order = order_of(wait)
    order.departure.reach = Reach.SENT  # as the worker sets it

    async def cancel() -> None:
        with anyio.move_on_after(0.1):
            await executor.exchange(order)

    anyio.run(cancel)
    assert (sender.sent, order.departure.reach) == (0, Reach.NOTHING)
    assert len(list(spool_objects(store))) == 1, "deleted with the copy that has its end"
