"""What an executor does when its lease is lost between the intent and the first byte."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from batchgen.cluster.backed_executor import BackedExecutor
from batchgen.cluster.intents import spool_objects
from batchgen.cluster.lease import WHOLE_LEDGER, acquire
from batchgen.engine.executor import ExchangeOrder, NotSentError
from batchgen.job import AttemptId
from batchgen.money import PriceTerms
from batchgen.storage.local import LocalStore


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

    job = SimpleNamespace(key="k", fingerprint="f", model="m", options={}, images=(), price=37_700)
    order = ExchangeOrder(
        attempt=AttemptId("0a"),
        job=cast(Any, job),
        request=cast(Any, None),
        terms=PriceTerms(),
        wait=wait,
        part=cast(Any, None),
    )
    if lost == "before":
        lease.release()
    with pytest.raises(NotSentError if lost == "before" else OSError, match="was released"):
        anyio.run(executor.exchange, order)
    assert sender.sent == 0
    assert throttle.reasons == ["the lease of the ledger was released"]
    assert len(list(spool_objects(store))) == (0 if lost == "before" else 1)
