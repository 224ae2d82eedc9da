"""What an actor looks at before it sends a request, and which images it fetches after that."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from batchgen.cluster.messages import SendOrder, SendReport
from batchgen.cluster.sending import Sender, _found_images
from batchgen.images.base64_scanner import ScannedBody
from batchgen.job import AttemptId, Verify
from batchgen.outcomes.exchange import Exchange, Reach
from batchgen.spool.spool import Spool
from batchgen.storage.local import LocalStore

ORDER = SendOrder(
    attempt=AttemptId("0a"),
    intent=b"{}",
    method="POST",
    url="http://127.0.0.1/v1/images/generations",
    headers={},
    content_type="application/json",
    pieces=(b"{}",),
    route="images",
    base_url="http://127.0.0.1/v1",
    verify=Verify.STRUCTURE,
    free=("cup.png", "mug.png"),
)


@pytest.mark.parametrize(("there", "is_refused"), [("mug.png", True), ("other.png", False)])
def test_request_is_refused_whose_image_has_no_place(
    there: str, is_refused: bool, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "bucket")
    store.put(there, b"of another program")

    async def run() -> SendReport | None:
        sender = Sender(3, Spool(tmp_path), store, cast(Any, None), cast(Any, None))
        intents = asyncio.create_task(sender.put_intents("spool/3/0a.intent", ORDER.intent))
        return await sender.refusal(ORDER, intents)

    refused = asyncio.run(run())
    assert (refused is not None) == is_refused
    if refused is not None:
        assert refused.is_taken
        assert refused.refused == "an object is at mug.png"


@pytest.mark.parametrize(
    ("status", "data", "images"),
    [
        (200, b'{"data": [{"url": "/files/1.png"}]}', [(0, "http://127.0.0.1/files/1.png")]),
        (
            200,
            b'{"data": [{"b64_json": ""}, {"url": "https://a/2.png"}]}',
            [(1, "https://a/2.png")],
        ),
        (500, b'{"data": [{"url": "/files/1.png"}]}', []),
        (200, b"not JSON", []),
    ],
)
def test_images_to_fetch_are_those_of_the_response(
    status: int, data: bytes, images: list[tuple[int, str | None]]
) -> None:
    exchange = Exchange(
        reach=Reach.COMPLETE,
        status=status,
        headers={"content-type": "application/json"},
        scanned=ScannedBody(data, len(data)),
    )
    assert _found_images(ORDER, exchange) == images
