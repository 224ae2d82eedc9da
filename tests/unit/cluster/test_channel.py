"""Orders and reports of one actor, with the actor's end in the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest

from batchgen.cluster.channel import Channel, OrderLostError
from batchgen.cluster.intents import MAX_TOGETHER
from batchgen.cluster.messages import (
    ActorSettings,
    AnyReport,
    DepartOrder,
    Failed,
    ImageReport,
    NotFetched,
    Orders,
    PutOrder,
    PutReport,
    SendOrder,
    SendReport,
)
from batchgen.job import AttemptId, Verify

SETTINGS = ActorSettings(
    root="s3://bucket",
    storage=(None, None),
    key_variable=None,
    open_key=None,
    network=cast(Any, None),
    epoch=3,
)


class Lost(Exception):
    """The actor is gone."""


class Nodes:
    """What `RayNodes` is to a channel."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[Orders] = asyncio.Queue()
        self.reports: asyncio.Queue[list[tuple[int, AnyReport]] | Exception] = asyncio.Queue()
        self.refuses: Exception | None = None
        self.replies: list[tuple[int, AnyReport]] = []
        """Reports in the reply to each call that gives orders."""

    def call(self, handle: object, method: str, *args: Any) -> Awaitable[Any]:
        work: Coroutine[Any, Any, Any] = getattr(self, f"_{method}")(*args)
        return asyncio.ensure_future(work)

    def is_lost(self, error: BaseException) -> bool:
        return isinstance(error, Lost)

    async def _take(self, orders: Orders) -> list[tuple[int, AnyReport]]:
        self.taken.put_nowait(orders)
        if self.refuses is not None:
            raise self.refuses
        return self.replies

    async def _reports(self) -> list[tuple[int, AnyReport]]:
        found = await self.reports.get()
        if isinstance(found, Exception):
            raise found
        return found


def order(number: int) -> SendOrder:
    return SendOrder(
        attempt=AttemptId(f"{number:02x}"),
        intent=b"{}",
        method="POST",
        url="http://127.0.0.1/",
        headers={},
        content_type="application/json",
        pieces=(b"{}",),
        route="images",
        base_url="http://127.0.0.1/v1",
        verify=Verify.STRUCTURE,
    )


def with_channel(test: Callable[[Nodes, Channel], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        nodes = Nodes()
        channel = Channel(cast(Any, nodes), None, SETTINGS)
        channel.open(lambda reason: None)
        await test(nodes, channel)
        channel.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_orders_of_one_moment_share_calls_and_intents() -> None:
    async def test(nodes: Nodes, channel: Channel) -> None:
        count = MAX_TOGETHER + 2
        given = [asyncio.create_task(channel.give(order(number))) for number in range(count)]
        first, second = await nodes.taken.get(), await nodes.taken.get()
        assert [len(first.numbered), len(second.numbered)] == [MAX_TOGETHER, 2]
        assert second.intents == "spool/3/07-08.intent"
        reports = [(number, SendReport(size=number)) for number in reversed(range(count))]
        nodes.reports.put_nowait(cast(Any, reports))
        done = await asyncio.gather(*given)
        assert [cast(SendReport, report).size for report, _ in done] == list(range(count))
        assert len({id(given.intents) for _, given in done}) == 2

    with_channel(test)


def test_order_that_waited_when_its_actor_was_lost_never_leaves() -> None:
    async def test(nodes: Nodes, channel: Channel) -> None:
        given = asyncio.create_task(channel.give(order(1), at_once=True))
        await nodes.taken.get()
        waiting = asyncio.create_task(channel.give(order(2)))
        await asyncio.sleep(0)
        nodes.reports.put_nowait(Lost("gone"))
        lost = [
            error
            for error in await asyncio.gather(given, waiting, return_exceptions=True)
            if isinstance(error, OrderLostError)
        ]
        assert [error.is_given for error in lost] == [True, False]
        assert lost[0].intents is not None
        assert lost[0].intents.name == "spool/3/01.intent"
        channel._flush()
        assert nodes.taken.empty()
        with pytest.raises(OrderLostError) as later:
            await channel.give(order(3))
        assert not later.value.is_given

    with_channel(test)


@pytest.mark.parametrize("refused", [Lost("gone"), TypeError("a bug")])
def test_refused_call_leaves_all_orders_unknown(refused: Exception) -> None:
    """Reports of earlier orders may have been in its reply; no caller waits for them."""

    async def test(nodes: Nodes, channel: Channel) -> None:
        earlier = asyncio.ensure_future(channel.give(order(1), at_once=True))
        await nodes.taken.get()
        nodes.refuses = refused
        with pytest.raises(OrderLostError) as lost:
            await channel.give(order(2))
        assert lost.value.is_given
        assert (lost.value.bug is None) == isinstance(refused, Lost)
        assert channel.lost is not None
        with pytest.raises(OrderLostError):
            await earlier

    with_channel(test)


def test_bug_of_an_actor_leaves_its_order_unknown() -> None:
    async def test(nodes: Nodes, channel: Channel) -> None:
        nodes.reports.put_nowait([(0, Failed("KeyError('0a')"))])
        with pytest.raises(OrderLostError, match="KeyError") as lost:
            await channel.give(DepartOrder(AttemptId("0a"), 1.0), at_once=True)
        assert lost.value.bug is not None
        assert channel.lost is None

    with_channel(test)


@pytest.mark.parametrize("is_lost", [False, True])
def test_image_fetched_without_an_order_is_reported_later(is_lost: bool) -> None:
    async def test(nodes: Nodes, channel: Channel) -> None:
        nodes.reports.put_nowait([(0, SendReport(fetching=((0, None), (1, "http://a/b"))))])
        _, given = await channel.give(order(1))
        first, second = given.images[0], given.images[1]
        assert second.url == "http://a/b"
        assert not first.done.done()
        failed = NotFetched("unreadable")
        nodes.reports.put_nowait(Lost("gone") if is_lost else [(0, ImageReport(1, failed))])
        assert isinstance(await second.done, NotFetched)
        assert first.done.done() == is_lost

    with_channel(test)


def test_report_of_an_image_may_overtake_that_of_its_request() -> None:
    async def test(nodes: Nodes, channel: Channel) -> None:
        failed = NotFetched("unreadable")
        nodes.reports.put_nowait([(0, ImageReport(0, failed))])
        nodes.reports.put_nowait([(0, SendReport(fetching=((0, None),)))])
        _, given = await channel.give(order(1))
        assert await given.images[0].done == failed

    with_channel(test)


def test_reports_come_in_the_reply_to_orders() -> None:
    async def test(nodes: Nodes, channel: Channel) -> None:
        first = asyncio.create_task(channel.give(order(1)))
        await nodes.taken.get()
        nodes.replies = [(0, SendReport(size=5)), (1, SendReport(size=6))]
        reports = await asyncio.gather(first, channel.give(order(2)))
        assert [cast(SendReport, report).size for report, _ in reports] == [5, 6]

    with_channel(test)


def test_put_travels_with_the_next_request() -> None:
    async def test(nodes: Nodes, channel: Channel) -> None:
        put = PutOrder(AttemptId("0a"), 0, "mug.png", create=True)
        given = [asyncio.create_task(channel.give(order(1)))]
        assert len((await nodes.taken.get()).numbered) == 1
        given += [asyncio.create_task(channel.give(one)) for one in (put, order(2))]
        assert [one for _, one in (await nodes.taken.get()).numbered] == [order(2), put]
        nodes.reports.put_nowait([(0, SendReport()), (1, PutReport()), (2, SendReport())])
        await asyncio.gather(*given)

    with_channel(test)


def test_time_of_the_actor_is_that_of_the_fastest_reply() -> None:
    async def test(nodes: Nodes, channel: Channel) -> None:
        channel.clock.note(10.0, 110.5, 11.0)
        channel.clock.note(20.0, 120.1, 20.2)
        assert channel.clock.theirs(30.0) == pytest.approx(130.0)
        channel.clock.note_late(0.1)
        assert channel.clock.ahead_s > 0.1

    with_channel(test)
