"""Answers on disk before anybody reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchgen.files import PartFile
from batchgen.job import AttemptId
from batchgen.spool import Spool, SpoolWriter
from tests.canary import CANARY as KEY

pytestmark = pytest.mark.anyio

ONE = AttemptId("0123abcd")
HEADERS = {"content-type": "application/json", "x-request-id": "req-7"}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "state" / "spool")
    made.prepare()
    return made


async def write(spool: Spool, *chunks: bytes, commit: bool = True, hide: str | None = None) -> None:
    """Spool an answer, whole or cut off."""
    async with spool.part(ONE) as part:
        writer = SpoolWriter(part, 200, HEADERS, hide=hide)
        for chunk in chunks:
            await writer.write(chunk)
        await (writer.commit() if commit else writer.flush())


@pytest.mark.parametrize(
    "chunks", [(), (b"{}",), (b"{", b"}\n", b"\n"), (bytes(700_000),) * 4], ids=len
)
async def test_a_whole_answer_is_found_with_its_head(
    chunks: tuple[bytes, ...], spool: Spool
) -> None:
    await write(spool, *chunks)
    found = spool.find(ONE)
    assert found is not None
    assert (found.status, found.headers, found.body()) == (200, HEADERS, b"".join(chunks))
    assert spool.find_cut(ONE) is None
    assert spool.attempts() == [ONE]


async def test_a_cut_answer_is_found_as_cut(spool: Spool) -> None:
    await write(spool, b'{"data":', commit=False)
    found = spool.find_cut(ONE)
    assert found is not None
    assert (found.status, found.headers, found.body()) == (200, HEADERS, b'{"data":')
    assert spool.find(ONE) is None
    assert spool.attempts() == [ONE]


async def test_large_answers_are_not_held_in_memory(spool: Spool) -> None:
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
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    assert (spool.folder / spool.name(ONE)).stat().st_mode & 0o777 == 0o600


async def test_preparing_again_keeps_what_is_there(spool: Spool) -> None:
    await write(spool, b"{}")
    spool.prepare()
    assert spool.attempts() == [ONE]


async def test_a_removed_answer_is_gone_whole_or_cut(spool: Spool) -> None:
    await write(spool, b"{}")
    await write(spool, b"{", commit=False)
    spool.remove(ONE)
    spool.remove(ONE)
    assert spool.attempts() == []
    assert list(spool.folder.iterdir()) == []


async def test_an_unknown_attempt_is_not_found(spool: Spool, tmp_path: Path) -> None:
    assert spool.find(ONE) is None
    assert spool.find_cut(ONE) is None
    assert Spool(tmp_path / "nowhere").attempts() == []


async def test_strangers_in_the_folder_are_no_attempts(spool: Spool) -> None:
    await write(spool, b"{}")
    for name in (".DS_Store", "notes.txt", "x.part", "y.answer.bak"):
        (spool.folder / name).write_bytes(b"x")
    assert spool.attempts() == [ONE]


@pytest.mark.fault("S12")
async def test_the_key_does_not_reach_the_disk(spool: Spool) -> None:
    await write(spool, b'{"error":"wrong key sk-CAN', b'ARY-0123456789abcdef"}', hide=KEY)
    found = spool.find(ONE)
    assert found is not None
    assert found.body() == b'{"error":"wrong key ***"}'


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b + b"\n{}"))
async def test_a_damaged_file_is_no_answer(content: bytes, spool: Spool) -> None:
    (spool.folder / spool.name(ONE)).write_bytes(content)
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
    final = spool.folder / spool.name(ONE)
    async with PartFile(final) as part:
        writer = SpoolWriter(part, status, headers)
        await writer.write(body)
        await writer.commit()
    found = spool.find(ONE)
    assert found is not None
    assert (found.status, found.headers, found.body()) == (status, headers, body)
