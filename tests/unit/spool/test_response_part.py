"""Small text responses stay in memory until the ledger has them; everything else is a file."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from batchgen.job import AttemptId
from batchgen.spool.redaction import Redactor
from batchgen.spool.response_part import MAX_HELD_BYTES, ResponsePart
from batchgen.spool.spool import Spool
from batchgen.spool.writer import SpoolWriter
from tests.support import rig

pytestmark = pytest.mark.anyio

ONE = AttemptId("0" * 32)
URL_RESPONSE = b'{"data": [{"url": "https://example.com/1.png"}]}'
INLINE_RESPONSE = b'{"data": [{"b64_json": "%s"}]}' % base64.b64encode(os.urandom(9_000))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.prepare()
    return made


async def receive(spool: Spool, *chunks: bytes, may_hold: bool = True) -> ResponsePart:
    part = spool.part(ONE, may_hold=may_hold)
    async with part:
        writer = SpoolWriter(part, 200, {"x": "y"}, hide=Redactor("secret-secret-secret"))
        for chunk in chunks:
            await writer.write(chunk)
        await writer.commit()
    assert writer.whole
    assert writer.is_durable is not part.is_held
    if part.is_held:
        assert writer.scanned is not None
        assert writer.scanned.text == b"".join(chunks)
    return part


@pytest.mark.parametrize("chunks", [(), (URL_RESPONSE,), (URL_RESPONSE[:20], URL_RESPONSE[20:])])
async def test_a_small_text_response_is_held(spool: Spool, chunks: tuple[bytes, ...]) -> None:
    part = await receive(spool, *chunks)
    assert part.is_held
    assert spool.attempts() == []
    content = part.content()
    assert content is not None
    assert content.endswith(b"\n" + b"".join(chunks))


async def test_a_held_response_is_written_as_if_it_never_was_held(spool: Spool) -> None:
    part = await receive(spool, URL_RESPONSE)
    await part.write_held()
    found = spool.find(ONE)
    assert found is not None
    assert (found.status, found.headers, found.body()) == (200, {"x": "y"}, URL_RESPONSE)
    assert not part.is_held
    await part.write_held()
    assert spool.attempts() == [ONE]


@pytest.mark.parametrize(
    ("body", "may_hold"),
    [(URL_RESPONSE, False), (bytes(MAX_HELD_BYTES), True), (INLINE_RESPONSE, True)],
    ids=["not allowed", "large", "inline"],
)
async def test_other_responses_are_files(spool: Spool, body: bytes, may_hold: bool) -> None:
    part = await receive(spool, body, may_hold=may_hold)
    assert not part.is_held
    assert part.content() is None
    found = spool.find(ONE)
    assert found is not None
    assert found.body() == body


async def test_a_held_response_has_no_secret(spool: Spool) -> None:
    part = spool.part(ONE, may_hold=True)
    async with part:
        writer = SpoolWriter(part, 200, {}, hide=Redactor("secret-secret-secret"))
        await writer.write(b'{"key": "secret-secret-secret"}')
        await writer.commit()
    content = part.content()
    assert content is not None
    assert b"secret-secret-secret" not in content


async def test_held_response_is_whole_after_a_write_that_failed(tmp_path: Path) -> None:
    """The part of it that a full disk took is written again."""
    body = b'{"text": "%s"}' % (b"word " * 12_000)
    with rig.small_disk(tmp_path / "disk", "size=256k") as disk:
        small = Spool(disk / "spool")
        small.prepare()
        part = await receive(small, body)
        assert part.is_held
        ballast = rig.fill(disk, leave=16 * 1024)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                await part.write_held()
        assert part.content() is not None
        ballast.unlink()
        await part.write_held()
        found = small.find(ONE)
        assert found is not None
        assert found.body() == body
