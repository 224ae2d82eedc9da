"""Spooled responses: complete, cut off, damaged, with and without images."""

from __future__ import annotations

import base64
import json
import os
import random
import resource
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchgen.images.base64_scanner import ScannedBody
from batchgen.job import AttemptId
from batchgen.spool.redaction import Redactor
from batchgen.spool.spool import Spool
from batchgen.spool.writer import SpoolWriter
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


async def write(
    spool: Spool, *chunks: bytes, commit: bool = True, hide: Redactor | None = None
) -> None:
    """Spool a response, complete or cut off."""
    async with spool.part(ONE) as part:
        writer = SpoolWriter(part, 200, HEADERS, hide=hide)
        await write_all(writer, chunks)
        await (writer.commit() if commit else writer.flush())


async def write_all(writer: SpoolWriter, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        await writer.write(chunk)


@pytest.mark.parametrize(
    "chunks", [(), (b"{}",), (b"{", b"}\n", b"\n"), (bytes(700_000),) * 4], ids=len
)
async def test_complete_response_is_found_with_its_head(
    chunks: tuple[bytes, ...], spool: Spool
) -> None:
    await write(spool, *chunks)
    found = spool.find(ONE)
    assert found is not None
    assert (found.status, found.headers, found.body()) == (200, HEADERS, b"".join(chunks))
    assert spool.find_cut(ONE) is None
    assert spool.attempts() == [ONE]


async def test_cut_response_is_found_as_cut(spool: Spool) -> None:
    await write(spool, b'{"data":', commit=False)
    found = spool.find_cut(ONE)
    assert found is not None
    assert (found.status, found.headers, found.body()) == (200, HEADERS, b'{"data":')
    assert spool.find(ONE) is None
    assert spool.attempts() == [ONE]


async def test_large_response_is_not_buffered_in_memory(spool: Spool) -> None:
    async with spool.part(ONE) as part:
        writer = SpoolWriter(part, 200, {})
        for _ in range(8):
            await writer.write(bytes(1024 * 1024))
            assert part.part.stat().st_size >= 1024 * 1024
        await writer.commit()


@pytest.mark.fault("D22")
@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
async def test_spool_is_readable_by_owner_only(spool: Spool) -> None:
    await write(spool, b"{}")
    assert spool.directory.stat().st_mode & 0o777 == 0o700
    assert (spool.directory / spool.name(ONE)).stat().st_mode & 0o777 == 0o600


async def test_prepare_keeps_existing_responses(spool: Spool) -> None:
    await write(spool, b"{}")
    spool.prepare()
    assert spool.attempts() == [ONE]


async def test_remove_deletes_complete_and_cut_response(spool: Spool) -> None:
    await write(spool, b"{}")
    await write(spool, b"{", commit=False)
    spool.remove(ONE)
    spool.remove(ONE)
    assert spool.attempts() == []
    assert names(spool) == set()


async def test_unknown_attempt_is_not_found(spool: Spool, tmp_path: Path) -> None:
    assert spool.find(ONE) is None
    assert spool.find_cut(ONE) is None
    assert Spool(tmp_path / "nowhere").attempts() == []


async def test_attempts_ignores_unrelated_files(spool: Spool) -> None:
    await write(spool, b"{}")
    for name in (".DS_Store", "notes.txt", "x.part", "y.answer.bak"):
        (spool.directory / name).write_bytes(b"x")
    assert spool.attempts() == [ONE]


def response_with(*texts: str) -> bytes:
    return json.dumps({"data": [{"b64_json": text} for text in texts], "created": 1}).encode()


def in_chunks(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def names(spool: Spool) -> set[str]:
    return {path.name for path in spool.directory.iterdir()} - {".gitignore"}


async def test_whole_image_is_written_while_the_next_one_arrives(spool: Spool) -> None:
    """Bytes that arrived are held for fewer writes, but a kill must not lose a whole image."""
    async with spool.part(ONE) as part:
        writer = SpoolWriter(part, 200, HEADERS)
        await write_all(writer, in_chunks(response_with(TEXT, SECOND), 65_536)[:9])
        assert (spool.directory / f"{spool.name(ONE)}.0").read_bytes() == IMAGE
        await writer.flush()


@pytest.mark.parametrize("commit", [True, False])
async def test_response_gives_its_memory_back(commit: bool, spool: Spool) -> None:
    """Else later responses would be written in many small pieces."""
    body = response_with(TEXT)
    for _ in range(40):
        await write(spool, *in_chunks(body, 100_000), commit=commit)
    async with spool.part(ONE) as part:
        assert part.buffer.has_room(900_000)


@pytest.mark.parametrize("size", [999, 65_536, 10_000_000])
async def test_inline_image_is_stored_decoded(size: int, spool: Spool) -> None:
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


async def test_writer_keeps_the_text_in_memory(spool: Spool) -> None:
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
async def test_irregular_base64_is_stored_verbatim(
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
async def test_cut_response_is_stored_verbatim(at: int, spool: Spool) -> None:
    body = response_with(SECOND, TEXT)[:at]
    await write(spool, *in_chunks(body, 65_536), commit=False)
    cut = spool.find_cut(ONE)
    assert cut is not None
    assert cut.body() == cut.text() == body
    assert names(spool) == {f"{ONE}.answer.part"}


async def test_response_cut_by_a_kill_is_found(spool: Spool) -> None:
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


async def test_completed_cut_response_keeps_its_body(spool: Spool) -> None:
    body = response_with(TEXT)
    await write(spool, body, commit=False)
    spool.complete_cut(ONE)
    found = spool.find(ONE)
    assert found is not None
    assert found.body() == body


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("body", [response_with(TEXT), bytes(900_000)], ids=["image", "text"])
async def test_response_with_a_gap_is_never_complete(body: bytes, spool: Spool) -> None:
    """The disk refuses one write and accepts all later ones."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with spool.part(ONE) as part:
        writer = SpoolWriter(part, 200, HEADERS)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            with pytest.raises(OSError, match="large"):
                await write_all(writer, [body, body, body])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        with pytest.raises(OSError, match="large"):
            await writer.commit()
    assert spool.find(ONE) is None


async def test_remove_deletes_images_without_a_response(
    spool: Spool,
) -> None:
    await write(spool, response_with(TEXT, SECOND))
    (spool.directory / spool.name(ONE)).unlink()
    assert spool.attempts() == [ONE]
    spool.remove(ONE)
    assert names(spool) == set()


async def test_remove_later_works_in_groups(spool: Spool) -> None:
    attempts = [AttemptId(f"{number:08x}") for number in range(16)]
    for attempt in attempts:
        (spool.directory / spool.name(attempt)).write_bytes(b"{}\n")
    stuck = spool.directory / spool.name(attempts[3])
    stuck.unlink()
    stuck.mkdir()  # `unlink` cannot remove a directory
    for attempt in attempts[:-1]:
        await spool.remove_later(attempt)
    assert spool.attempts() == attempts
    await spool.remove_later(attempts[-1])
    assert spool.attempts() == [attempts[3]]


async def test_response_of_an_older_release_is_found(spool: Spool) -> None:
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
async def test_body_survives_any_chunking_and_end(
    documents: list[str | int | None], size: int, commit: bool, spool: Spool
) -> None:
    spool.remove(ONE)
    body = json.dumps(documents).encode()
    await write(spool, *in_chunks(body, size), commit=commit)
    found = spool.find(ONE) if commit else spool.find_cut(ONE)
    assert found is not None
    assert found.body() == body


@pytest.mark.fault("S12")
async def test_api_key_does_not_reach_the_disk(spool: Spool) -> None:
    await write(spool, b'{"error":"wrong key sk-CAN', b'ARY-0123456789abcdef"}', hide=Redactor(KEY))
    found = spool.find(ONE)
    assert found is not None
    assert found.body() == b'{"error":"wrong key ***"}'


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b + b"\n{}"))
async def test_damaged_file_is_not_a_response(content: bytes, spool: Spool) -> None:
    (spool.directory / spool.name(ONE)).write_bytes(content)
    found = spool.find(ONE)
    assert found is None or content.startswith(b"{")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=st.integers(100, 599),
    headers=st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=5),
    body=st.binary(max_size=300),
)
async def test_response_round_trips(
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
async def test_response_survives_removal_of_the_spool_directory(
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
                    spool.prepare()  # as another request would meanwhile
                else:
                    shutil.rmtree(spool.directory)
        await writer.commit()
    found = spool.find(ONE)
    assert found is not None
    assert found.body() == body
    assert spool.directory.stat().st_mode & 0o777 == 0o700


async def test_kept_image_is_found_and_dropped(spool: Spool, tmp_path: Path) -> None:
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
