"""One paid request and one download, cut at every byte of what is sent and of what comes back."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from batchgen.http.client import ApiClient
from batchgen.http.deadlines import Deadlines
from batchgen.http.download import Downloader
from batchgen.http.network import Access, Network
from batchgen.http.request import ApiRequest, BytesBody
from batchgen.images.formats import BadImage
from batchgen.images.inspect import inspect
from batchgen.job import AttemptId, Billed, Outcome
from batchgen.outcomes.classify import Classification, Exchange, Reach, classify
from batchgen.outcomes.download_policy import FetchAgain, FetchResult, after_fetch
from batchgen.providers.adapters.images import read_response
from batchgen.spool.spool import Spool
from batchgen.system.atomic_files import PartFile
from tests.faults.proxy import CLEAR, Proxy, Weather, proxy
from tests.support import rig, wire
from tests.support.responses import image

BODY = b'{"model":"gpt-image-2","prompt":"a mug","n":1,"size":"1024x640"}'


@pytest.fixture
def between(served: rig.Endpoint) -> Iterator[Proxy]:
    """A proxy in front of the endpoint."""
    with proxy(urlsplit(served.base_url).port or 0) as made:
        yield made


class Buyer:
    """Asks for one image after another, each by an attempt of its own."""

    def __init__(self, api: ApiClient, spool: Spool, between: Proxy) -> None:
        self._api = api
        self._spool = spool
        self._between = between
        self.bought: dict[str, tuple[Weather, Classification]] = {}

    async def buy(self, weather: Weather, body: bytes = BODY) -> Exchange:
        """One request in such weather; how it went is kept by its attempt."""
        attempt = AttemptId(f"{len(self.bought):032x}")
        self._between.forecast = lambda _: weather
        request = ApiRequest(
            method="POST",
            url=f"{self._between.url}/v1/images/generations",
            body=BytesBody(body),
            headers={"Idempotency-Key": attempt},
        )
        exchange = await self._api.exchange(request, self._spool.part(attempt))
        whole = exchange.reach is Reach.COMPLETE
        found = self._spool.find(attempt) if whole else self._spool.find_cut(attempt)
        response = read_response(found.body(), found.headers) if found else None
        self.bought[attempt] = weather, classify(exchange, response)
        return exchange

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes of the requests, in order."""
        return [classification.outcome for _, classification in self.bought.values()]


@asynccontextmanager
async def buyer(directory: Path, verify: ssl.SSLContext, between: Proxy) -> AsyncIterator[Buyer]:
    spool = Spool(directory / "spool")
    spool.prepare()
    # The weather is that of a connection, so each request needs its own.
    async with ApiClient(
        key="sk-local",
        network=Network(verify, keep_alive=False),
        deadlines=Deadlines(),
        deadline_s=20,
    ) as api:
        yield Buyer(api, spool, between)


def check_bill(buyer: Buyer, served: rig.Endpoint, before: int) -> set[str]:
    """No charge that was said to be free, and none that was said to be sure and is not there."""
    served.wait_until_idle()
    charged = set(rig.charges(served.bill()[before:]))
    for attempt, (weather, classification) in buyer.bought.items():
        if attempt in charged:
            assert classification.billed is not Billed.NO, (
                f"charged, but free: {weather} {classification}"
            )
        else:
            assert classification.billed is not Billed.YES, (
                f"free, but charged: {weather} {classification}"
            )
    return charged


async def cut_requests(
    buyer: Buyer, between: Proxy, body: bytes, offsets: Sequence[int] | None = None
) -> int:
    """Cut the request at offsets, by default at each; gives its length."""
    await buyer.buy(CLEAR, body)
    length = between.passed[-1].request_bytes
    for offset in offsets or range(length + 1):
        await buyer.buy(Weather(request_bytes=offset, reset=offset % 2 == 1), body)
    return length


@pytest.mark.anyio
@pytest.mark.fault("N08", "N09")
async def test_request_cut_after_its_last_byte_is_never_free(
    served: rig.Endpoint, between: Proxy, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    before = len(served.bill())
    async with buyer(tmp_path, verify, between) as buys:
        length = await cut_requests(buys, between, BODY)
        charged = check_bill(buys, served, before)
    # All of it fits into the kernel's buffer, so its sender can't know whether it arrived.
    assert buys.outcomes() == [Outcome.OK, *[Outcome.AMBIGUOUS] * (length + 1)]
    # Of the cut requests, the server read and charged the one that was cut after its last byte.
    assert charged == {f"{0:032x}", f"{length + 1:032x}"}


@pytest.mark.anyio
@pytest.mark.fault("N11", "N13")
async def test_response_cut_at_any_byte_is_uncertain(
    served: rig.Endpoint, between: Proxy, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    before = len(served.bill())
    async with buyer(tmp_path, verify, between) as buys:
        await buys.buy(CLEAR)
        length = between.passed[-1].response_bytes
        for offset in range(length):
            exchange = await buys.buy(Weather(response_bytes=offset, reset=offset % 2 == 1))
            assert exchange.reach in (Reach.SENT, Reach.HEADERS)
        await buys.buy(Weather(response_bytes=length))
        charged = check_bill(buys, served, before)
    assert buys.outcomes() == [Outcome.OK, *[Outcome.AMBIGUOUS] * length, Outcome.OK]
    assert len(charged) == length + 2


LARGE = BODY[:-1] + b',"user":"%s"}' % (b"x" * 6_000_000)


@pytest.mark.anyio
@pytest.mark.fault("N08", "N09")
async def test_large_request_cut_early_is_retried_for_free(
    served: rig.Endpoint, between: Proxy, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    before = len(served.bill())
    dice = random.Random(8)
    offsets = [1, 1000, *(dice.randrange(len(LARGE)) for _ in range(30)), len(LARGE)]
    async with buyer(tmp_path, verify, between) as buys:
        await cut_requests(buys, between, LARGE, offsets)
        check_bill(buys, served, before)
    early = [
        classification.outcome
        for weather, classification in buys.bought.values()
        if weather.request_bytes is not None and weather.request_bytes < 1_000_000
    ]
    assert early
    assert set(early) == {Outcome.SAFE}


IMAGE = image("red", size=(8, 6))
HEADS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(IMAGE),
    "until closed": b"HTTP/1.0 200 OK\r\nContent-Type: image/png\r\n\r\n",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
}


def served_as(head: str) -> bytes:
    """The whole response to a download."""
    if head == "chunks":
        middle = len(IMAGE) // 2
        parts = [IMAGE[:middle], IMAGE[middle:], b""]
        return HEADS[head] + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return HEADS[head] + IMAGE


@pytest.mark.anyio
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.fault("N13", "N14", "N15", "N32")
async def test_download_cut_at_any_byte_is_repeated_from_its_start(
    head: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    response = served_as(head)
    async with wire.serve(wire.answering(response)) as server:
        with proxy(server.port) as between:
            async with Downloader(
                network=Network(verify), deadlines=Deadlines(), access=Access(allow_loopback=True)
            ) as client:
                url = f"{between.url}/1.png"
                await fetch(client, url, tmp_path)
                request = between.passed[0].request_bytes
                cuts = [Weather(request_bytes=offset) for offset in range(request + 1)]
                cuts += [
                    Weather(response_bytes=offset, reset=offset % 2 == 1)
                    for offset in range(len(response))
                ]
                for cut in cuts:
                    between.forecast = lambda _, cut=cut: cut  # type: ignore[misc]  # a default
                    assert await image_of(client, url, tmp_path) in (None, IMAGE), cut
                    between.forecast = lambda _: CLEAR
                    assert await image_of(client, url, tmp_path) == IMAGE, cut
        assert not any("range" in request.headers for request in server.requests)


async def image_of(client: Downloader, url: str, directory: Path) -> bytes | None:
    """What a delivery would take for the image; None where it would ask again."""
    result = await fetch(client, url, directory)
    if result is not None:
        began = datetime.now(UTC)
        again = after_fetch(result, tries=1, now=began, until=began + timedelta(hours=24))
        assert isinstance(again, FetchAgain)
        return None
    data = (directory / "1.png").read_bytes()
    try:
        inspect(data)
    except BadImage:
        return None
    return data


async def fetch(client: Downloader, url: str, directory: Path) -> FetchResult | None:
    async with PartFile(directory / "1.png", keep=True) as part:
        result = await client.fetch(url, part)
        if result is None:
            await part.commit()
        return result
