"""What an actor refuses to do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from batchgen.cluster.actor import Actor
from batchgen.cluster.messages import (
    ActorSettings,
    AnyReport,
    DepartOrder,
    Order,
    Orders,
    PutOrder,
    PutReport,
    SendReport,
)
from batchgen.job import AttemptId

SETTINGS = ActorSettings(
    root="s3://bucket",
    storage=(None, None),
    key_variable="KEY",
    open_key=None,
    network=cast(Any, None),
    epoch=3,
)
PUT = PutOrder(AttemptId("0a"), 0, "mug.png", create=True)


def report_of(settings: ActorSettings, order: Order, **changes: Any) -> AnyReport:
    """Return what an actor without a bucket or a connection reports."""
    orders = Orders(epoch=3, key_variable="KEY", intents="", numbered=((7, order),))

    async def run() -> list[tuple[int, AnyReport]]:
        actor = Actor(settings, cast(Any, None))
        await actor.take(replace(orders, **changes))
        found = await actor.reports()
        await actor.close()
        return found

    ((number, report),) = asyncio.run(run())
    assert number == 7
    return report


@pytest.mark.parametrize(("name", "value"), [("epoch", 2), ("key_variable", "OTHER_KEY")])
def test_orders_of_another_driver_are_refused(name: str, value: object) -> None:
    departing = report_of(SETTINGS, DepartOrder(AttemptId("0a"), 1.0), **{name: value})
    assert isinstance(departing, SendReport)
    assert str(value) in departing.refused
    put = report_of(SETTINGS, PUT, **{name: value})
    assert isinstance(put, PutReport)
    assert str(value) in put.problem


def test_actor_that_was_stopped_puts_no_image() -> None:
    report = report_of(replace(SETTINGS, silent_s=-1.0), PUT)
    assert report == PutReport("the driver is silent")


def test_actor_reports_in_its_reply_to_the_next_orders() -> None:
    orders = Orders(epoch=2, key_variable="KEY", intents="", numbered=((7, PUT),))

    async def run() -> list[tuple[int, AnyReport]]:
        actor = Actor(SETTINGS, cast(Any, None))
        assert await actor.take(orders) == []
        found: list[tuple[int, AnyReport]] = []
        while not found:
            await asyncio.sleep(0)
            found = await actor.take(replace(orders, numbered=()))
        await actor.close()
        return found

    assert [number for number, _ in asyncio.run(run())] == [7]
