"""Reference images from servers of all kinds: what is kept, asked again, and given up."""

from __future__ import annotations

import asyncio
import sqlite3
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from batchgen.http.network import Network
from batchgen.ledger.reference_urls import NeededUrls
from batchgen.session.reference_cache import WIDTH, Fetched, ReferenceCache
from batchgen.storage.stores import Stores
from tests.support import rig, wire

pytestmark = pytest.mark.anyio

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def photo(tmp_path: Path) -> bytes:
    return rig.image(tmp_path / "photo.jpg")


class Rig:
    """Plans that need URLs, one after the other, and the runs that fetch them."""

    def __init__(self, conn: sqlite3.Connection, directory: Path, verify: ssl.SSLContext) -> None:
        self.conn = conn
        self.directory = directory
        self._verify = verify
        self.urls: NeededUrls

    async def bring(
        self,
        urls: Sequence[str],
        *,
        allow_loopback: bool = True,
        fresh_since: datetime | None = None,
    ) -> Fetched:
        for table in ("needed", "fetched"):
            self.conn.execute(f"DROP TABLE IF EXISTS temp.{table}")
        self.urls = NeededUrls(self.conn, self.directory)
        for url in urls:
            self.urls.find(url)
        cache = ReferenceCache(
            self.directory,
            owner="batch",
            network=Network(self._verify),
            allow_loopback=allow_loopback,
            fresh_since=fresh_since or datetime(2999, 1, 1, tzinfo=UTC),
            stores=Stores(Path(), dict),
        )
        fetched = await cache.bring(self.urls)
        self.urls.keep(self.conn)
        return fetched

    def problem(self, url: str) -> str:
        return self.urls.find(url).problem

    def files(self) -> set[str]:
        return {file.name for file in self.directory.iterdir()} - {".gitignore"}


@pytest.fixture
def cache(conn: sqlite3.Connection, tmp_path: Path, verify: ssl.SSLContext) -> Rig:
    return Rig(conn, tmp_path / "cache", verify)


def name_of(photo: bytes) -> str:
    return f"{sha256(photo).hexdigest()}.jpg"


async def test_urls_of_one_image_share_its_file(cache: Rig, photo: bytes) -> None:
    async with wire.serve(wire.answering(wire.response(photo))) as server:
        urls = [f"{server.url}/{name}" for name in ("a.jpg", "b.png?v=1", "c")]
        assert await cache.bring(urls) == Fetched(fetched=3)
    assert cache.files() == {name_of(photo)}
    assert (cache.directory / name_of(photo)).read_bytes() == photo
    assert {cache.urls.find(url).path for url in urls} == {cache.directory / name_of(photo)}


async def test_a_server_without_tags_is_asked_each_run_and_once_a_run(
    cache: Rig, photo: bytes
) -> None:
    async with wire.serve(wire.answering(wire.response(photo))) as server:
        url = f"{server.url}/a.jpg"
        await cache.bring([url])
        assert await cache.bring([url]) == Fetched(unchanged=1)
        assert len(server.requests) == 2
        assert await cache.bring([url], fresh_since=LONG_AGO) == Fetched(unchanged=1)
        assert len(server.requests) == 2


@pytest.mark.parametrize("damage", [b"", b"\xff\xd8\xff", None], ids=["empty", "cut", "gone"])
async def test_a_damaged_or_lost_copy_is_fetched_whole(
    damage: bytes | None, cache: Rig, photo: bytes
) -> None:
    async with wire.serve(wire.answering(wire.response(photo, ETag='"1"'))) as server:
        url = f"{server.url}/a.jpg"
        await cache.bring([url])
        copy = cache.directory / name_of(photo)
        copy.unlink() if damage is None else copy.write_bytes(damage)
        assert await cache.bring([url], fresh_since=LONG_AGO) == Fetched(fetched=1)
        assert "if-none-match" not in server.requests[1].headers
    assert copy.read_bytes() == photo


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (wire.response(b"no", "404 Not Found"), "HTTP 404"),
        (wire.response(b"", "304 Not Modified"), "HTTP 304"),
        (wire.response(b"<!DOCTYPE html>"), "no reference image: an HTML page"),
        (wire.response(b"GIF89a" + bytes(20)), "no reference image: a GIF"),
        (wire.response(b""), "no reference image: the file is empty"),
        (wire.response(b"", "302 Found", Location="http://10.0.0.1/a.jpg"), "not a public IP"),
        (wire.response(b"", "302 Found", Location="file:///etc/passwd"), "unsupported scheme"),
        (wire.response(b"x", Content_Encoding="gzip"), "no reference image: data beginning 'x'"),
    ],
)
async def test_response_without_an_image_is_the_problem_of_the_url(
    response: bytes, words: str, cache: Rig
) -> None:
    async with wire.serve(wire.answering(response)) as server:
        url = f"{server.url}/a.jpg"
        assert await cache.bring([url]) == Fetched(failed=1)
        assert len(server.requests) == 1
    assert words in cache.problem(url)
    assert cache.files() == set()


async def test_earlier_copy_is_kept_with_the_problem(cache: Rig, photo: bytes) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        page = wire.response(b"<html>moved")
        await connection.send(page if len(server.requests) > 1 else wire.response(photo))

    async with wire.serve(script) as server:
        url = f"{server.url}/a.jpg"
        await cache.bring([url])
        assert await cache.bring([url]) == Fetched(failed=1)
    copy = cache.urls.find(url)
    assert copy.path == cache.directory / name_of(photo)
    assert "an HTML page" in copy.problem


async def test_this_machine_is_asked_only_for_a_provider_that_is_on_it(
    cache: Rig, photo: bytes
) -> None:
    async with wire.serve(wire.answering(wire.response(photo))) as server:
        url = f"{server.url}/a.jpg"
        assert await cache.bring([url], allow_loopback=False) == Fetched(failed=1)
        assert server.connections == 0
    assert "127.0.0.1, which is not a public IP address" in cache.problem(url)


async def test_a_passing_fault_is_asked_again(cache: Rig, photo: bytes) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        busy = wire.response(b"", "503 Service Unavailable")
        await connection.send(wire.response(photo) if len(server.requests) > 1 else busy)

    async with wire.serve(script) as server:
        assert await cache.bring([f"{server.url}/a.jpg"]) == Fetched(fetched=1)


async def test_silent_host_is_skipped_after_some_urls(cache: Rig) -> None:
    base = f"http://127.0.0.1:{wire.free_port()}"
    urls = [f"{base}/{number}.jpg" for number in range(60)]
    assert await cache.bring(urls) == Fetched(failed=60)
    problems = [cache.problem(url) for url in urls]
    assert sum("was not asked again" in problem for problem in problems) >= 60 - 2 * WIDTH


async def test_no_more_than_a_few_are_asked_at_the_same_time(cache: Rig, photo: bytes) -> None:
    asking, most, all_in = 0, 0, asyncio.Event()

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        nonlocal asking, most
        await wire.receive(connection, server)
        asking += 1
        most = max(most, asking)
        if asking == WIDTH:
            all_in.set()
        await all_in.wait()
        await connection.send(wire.response(photo))
        asking -= 1

    async with wire.serve(script) as server:
        urls = [f"{server.url}/{number}.jpg" for number in range(250)]
        assert await cache.bring(urls) == Fetched(fetched=250)
    assert most == WIDTH
    (noted,) = cache.conn.execute("SELECT count(*) FROM reference_urls").fetchone()
    assert noted == 250


async def test_a_directory_that_cannot_be_written_ends_it(cache: Rig, photo: bytes) -> None:
    cache.directory.write_bytes(b"a file")
    async with wire.serve(wire.answering(wire.response(photo))) as server:
        with pytest.raises(OSError, match="cache"):
            await cache.bring([f"{server.url}/a.jpg"])


async def test_a_disk_that_refuses_ends_it(cache: Rig, photo: bytes) -> None:
    async with wire.serve(wire.answering(wire.response(photo))) as server:
        cache.directory.mkdir()
        (cache.directory / name_of(photo)).mkdir()  # a place that no file can take
        with pytest.raises(IsADirectoryError):
            await cache.bring([f"{server.url}/{number}.jpg" for number in range(40)])
    assert cache.files() == {name_of(photo)}
