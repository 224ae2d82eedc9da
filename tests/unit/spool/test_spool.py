"""Answers on disk before anybody reads them."""

from __future__ import annotations

import base64
import json
import os
import random
import resource
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchgen.images.base64_scanner import ScannedBody
from batchgen.job import AttemptId
from batchgen.spool.spool import Spool, SpoolWriter
from batchgen.system.atomic_files import PartFile
from tests.support.canary import CANARY as KEY

pytestmark = pytest.mark.anyio

ONE = AttemptId("0123abcd")
IMAGE = random.Random(3).randbytes(400_000)
TEXT = base64.b64encode(IMAGE).decode()
SECOND = base64.b64encode(IMAGE[::-1]).decode()
HEADERS = {"content-type": "application/json", "x-request-id": "req-7"}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "state" / "spool")
    made.prepare()
    return made


async def write(spool: Spool, *chunks: bytes, commit: bool = True, hide: str | None = None) -> None:
    """Spool a response, whole or cut off."""
    async with spool.part(ONE) as part:
        writer = SpoolWriter(part, 200, HEADERS, hide=hide)
        for chunk in chunks:
            await writer.write(chunk)
        await (writer.commit() if commit else writer.flush())


@pytest.mark.parametrize(
    "chunks", [(), (b"{}",), (b"{", b"}\n", b"\n"), (bytes(700_000),) * 4], ids=len
)
async def test_a_whole_response_is_found_with_its_head(
    chunks: tuple[bytes, ...], spool: Spool
) -> None:
    await write(spool, *chunks)
    found = spool.find(ONE)
    assert found is not None
    assert (found.status, found.headers, found.body()) == (200, HEADERS, b"".join(chunks))
    assert spool.find_cut(ONE) is None
    assert spool.attempts() == [ONE]


async def test_a_cut_response_is_found_as_cut(spool: Spool) -> None:
    await write(spool, b'{"data":', commit=False)
    found = spool.find_cut(ONE)
    assert found is not None
    assert (found.status, found.headers, found.body()) == (200, HEADERS, b'{"data":')
    assert spool.find(ONE) is None
    assert spool.attempts() == [ONE]


async def test_large_responses_are_not_held_in_memory(spool: Spool) -> None:
    async with spool.part(ONE) as part:
        writer = SpoolWriter(part, 200, {})
        for _ in range(8):
            await writer.write(bytes(1024 * 1024))
            assert part.part.stat().st_size >= 1024 * 1024
        await writer.commit()


@pytest.mark.fault("D22")
@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
async def test_the_spool_is_for_its_owner_only(spool: Spool) -> None:
    await write(spool, b"{}")
    assert spool.directory.stat().st_mode & 0o777 == 0o700
    assert (spool.directory / spool.name(ONE)).stat().st_mode & 0o777 == 0o600


async def test_preparing_again_keeps_what_is_there(spool: Spool) -> None:
    await write(spool, b"{}")
    spool.prepare()
    assert spool.attempts() == [ONE]


async def test_a_removed_response_is_gone_whole_or_cut(spool: Spool) -> None:
    await write(spool, b"{}")
    await write(spool, b"{", commit=False)
    spool.remove(ONE)
    spool.remove(ONE)
    assert spool.attempts() == []
    assert list(spool.directory.iterdir()) == []


async def test_an_unknown_attempt_is_not_found(spool: Spool, tmp_path: Path) -> None:
    assert spool.find(ONE) is None
    assert spool.find_cut(ONE) is None
    assert Spool(tmp_path / "nowhere").attempts() == []


async def test_strangers_in_the_directory_are_no_attempts(spool: Spool) -> None:
    await write(spool, b"{}")
    for name in (".DS_Store", "notes.txt", "x.part", "y.answer.bak"):
        (spool.directory / name).write_bytes(b"x")
    assert spool.attempts() == [ONE]


def response_with(*texts: str) -> bytes:
    return json.dumps({"data": [{"b64_json": text} for text in texts], "created": 1}).encode()


def in_chunks(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def names(spool: Spool) -> set[str]:
    return {path.name for path in spool.directory.iterdir()}


@pytest.mark.parametrize("size", [999, 65_536, 10_000_000])
async def test_a_image_stands_decoded_beside_its_response(size: int, spool: Spool) -> None:
    body = response_with(TEXT, SECOND)
    await write(spool, *in_chunks(body, size))
    found = spool.find(ONE)
    assert found is not None
    assert names(spool) == {f"{ONE}.answer", f"{ONE}.answer.0", f"{ONE}.answer.1"}
    assert len(found.text()) < 300
    words = [item["b64_json"] for item in json.loads(found.text())["data"]]
    for word, image in zip(words, [IMAGE, IMAGE[::-1]], strict=True):
        path = found.image(word)
        assert path is not None
        assert path.read_bytes() == image
    assert found.image(TEXT) is None
    assert found.image("0" * 32 + ":0") is None
    assert found.body() == body


async def test_what_is_to_be_read_is_known_without_reading_it(spool: Spool) -> None:
    async with spool.part(ONE) as part:
        writer = SpoolWriter(part, 200, HEADERS)
        for chunk in in_chunks(response_with(TEXT), 100_000):
            await writer.write(chunk)
        await writer.commit()
    found = spool.find(ONE)
    assert found is not None
    assert writer.scanned == ScannedBody(found.text(), len(response_with(TEXT)))


@pytest.mark.parametrize(
    "text",
    [
        TEXT.rstrip("="),
        TEXT.replace("+", "-").replace("/", "_"),
        TEXT.replace("/", "\\/"),
        TEXT[:200_000] + "\n" + TEXT[200_000:],
        f"{TEXT[:-3]}B==",
        f"{TEXT}{SECOND}",
        TEXT[:300_000] + "!" + TEXT[300_000:],
    ],
    ids=["no padding", "url-safe", "escaped", "lines", "loose bits", "two in one", "none"],
)
@pytest.mark.parametrize("first", [(), (SECOND,)], ids=["alone", "second"])
async def test_base64_of_another_kind_stays_as_it_came(
    text: str, first: tuple[str, ...], spool: Spool
) -> None:
    body = b'{"data": [%s]}' % b", ".join(
        b'{"b64_json": "%s"}' % t.encode() for t in (*first, text)
    )
    await write(spool, *in_chunks(body, 70_000))
    found = spool.find(ONE)
    assert found is not None
    assert found.body() == body
    if text == TEXT.rstrip("=") or not first:
        assert names(spool) == {f"{ONE}.answer"}


@pytest.mark.parametrize("at", [10, 40, 5000, 300_000, -4, -1])
async def test_a_cut_response_is_left_as_it_came(at: int, spool: Spool) -> None:
    body = response_with(SECOND, TEXT)[:at]
    await write(spool, *in_chunks(body, 65_536), commit=False)
    cut = spool.find_cut(ONE)
    assert cut is not None
    assert cut.body() == cut.text() == body
    assert names(spool) == {f"{ONE}.answer.part"}


async def test_of_an_response_that_a_kill_cut_off_what_was_written_is_found(spool: Spool) -> None:
    body = response_with(SECOND, TEXT)
    async with spool.part(ONE) as part:
        writer = SpoolWriter(part, 200, HEADERS)
        for chunk in in_chunks(body[:-5000], 65_536):
            await writer.write(chunk)
    writer.close()
    cut = spool.find_cut(ONE)
    assert cut is not None
    assert len(cut.body()) > 500_000
    assert body.startswith(cut.body())
    spool.remove(ONE)
    assert names(spool) == set()


async def test_a_cut_response_that_is_taken_for_whole_keeps_all(spool: Spool) -> None:
    body = response_with(TEXT)
    await write(spool, body, commit=False)
    spool.complete_cut(ONE)
    found = spool.find(ONE)
    assert found is not None
    assert found.body() == body


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("body", [response_with(TEXT), bytes(900_000)], ids=["image", "text"])
async def test_an_response_with_a_gap_is_never_whole(body: bytes, spool: Spool) -> None:
    """The disk refuses once, and takes all the rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with spool.part(ONE) as part:
        writer = SpoolWriter(part, 200, HEADERS)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            with pytest.raises(OSError, match="large"):
                await writer.write(body)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        with pytest.raises(OSError, match="large"):
            await writer.commit()
    assert spool.find(ONE) is None


async def test_images_that_a_kill_left_behind_are_removed_with_their_attempt(
    spool: Spool,
) -> None:
    await write(spool, response_with(TEXT, SECOND))
    (spool.directory / spool.name(ONE)).unlink()
    assert spool.attempts() == [ONE]
    spool.remove(ONE)
    assert names(spool) == set()


async def test_responses_go_some_at_a_time_and_one_that_cannot_stays_behind(spool: Spool) -> None:
    attempts = [AttemptId(f"{number:08x}") for number in range(16)]
    for attempt in attempts:
        (spool.directory / spool.name(attempt)).write_bytes(b"{}\n")
    stuck = spool.directory / spool.name(attempts[3])
    stuck.unlink()
    stuck.mkdir()  # which no unlink removes
    for attempt in attempts[:-1]:
        await spool.no_longer(attempt)
    assert spool.attempts() == attempts
    await spool.no_longer(attempts[-1])
    assert spool.attempts() == [attempts[3]]


async def test_an_response_of_an_older_release_is_found(spool: Spool) -> None:
    body = response_with(TEXT)
    head = {"status": 200, "headers": HEADERS, "route": "images"}
    (spool.directory / spool.name(ONE)).write_bytes(json.dumps(head).encode() + b"\n" + body)
    found = spool.find(ONE)
    assert found is not None
    assert found.text() == found.body() == body
    assert found.image(":0") is None


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=st.lists(
        st.sampled_from([TEXT[:6000], TEXT[:6001], TEXT[:5000] + "/-", "a prompt", None, 7]),
        max_size=5,
    ),
    size=st.integers(500, 20_000),
    commit=st.booleans(),
)
async def test_a_body_is_the_same_however_it_comes_and_ends(
    documents: list[str | int | None], size: int, commit: bool, spool: Spool
) -> None:
    spool.remove(ONE)
    body = json.dumps(documents).encode()
    await write(spool, *in_chunks(body, size), commit=commit)
    found = spool.find(ONE) if commit else spool.find_cut(ONE)
    assert found is not None
    assert found.body() == body


@pytest.mark.fault("S12")
async def test_the_key_does_not_reach_the_disk(spool: Spool) -> None:
    await write(spool, b'{"error":"wrong key sk-CAN', b'ARY-0123456789abcdef"}', hide=KEY)
    found = spool.find(ONE)
    assert found is not None
    assert found.body() == b'{"error":"wrong key ***"}'


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b + b"\n{}"))
async def test_a_damaged_file_is_no_response(content: bytes, spool: Spool) -> None:
    (spool.directory / spool.name(ONE)).write_bytes(content)
    found = spool.find(ONE)
    assert found is None or content.startswith(b"{")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=st.integers(100, 599),
    headers=st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=5),
    body=st.binary(max_size=300),
)
async def test_what_goes_in_comes_out(
    status: int, headers: dict[str, str], body: bytes, spool: Spool
) -> None:
    final = spool.directory / spool.name(ONE)
    async with PartFile(final) as part:
        writer = SpoolWriter(part, status, headers)
        await writer.write(body)
        await writer.commit()
    found = spool.find(ONE)
    assert found is not None
    assert (found.status, found.headers, found.body()) == (status, headers, body)


@pytest.mark.fault("D18")
@pytest.mark.parametrize("moved", [False, True], ids=["removed", "moved"])
@pytest.mark.parametrize("body", [response_with(TEXT), bytes(900_000)], ids=["image", "text"])
async def test_a_spool_directory_that_vanishes_loses_no_response(
    body: bytes, moved: bool, spool: Spool, tmp_path: Path
) -> None:
    chunks = list(in_chunks(body, 65_536))
    async with spool.part(ONE) as part:
        writer = SpoolWriter(part, 200, HEADERS)
        for number, chunk in enumerate(chunks):
            await writer.write(chunk)
            if number == len(chunks) // 2:
                if moved:
                    spool.directory.rename(tmp_path / "moved")
                    spool.prepare()  # as for another request, in the meantime
                else:
                    shutil.rmtree(spool.directory)
        await writer.commit()
    found = spool.find(ONE)
    assert found is not None
    assert found.body() == body
    assert spool.directory.stat().st_mode & 0o777 == 0o700


async def test_a_kept_image_is_found_and_dropped(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"verified")
    spool.images.keep(ONE, 1, tmp_path / "image")
    again = Spool(spool.directory)
    assert not again.images.has(ONE, 1)
    again.prepare()
    assert again.images.has(ONE, 1)
    kept = again.images.find(ONE, 1)
    assert kept is not None
    assert kept.read_bytes() == b"verified"
    assert again.images.find(ONE, 0) is None
    assert again.attempts() == [ONE]
    again.remove(ONE)
    assert names(spool) == set()
