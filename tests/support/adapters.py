"""Provide a job and its inputs for tests of the provider adapters."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from batchgen.http.client import ApiRequest
from batchgen.images.base64_scanner import unpack_base64
from batchgen.job import AttemptId, Job, JobId, JobState, Verify
from batchgen.money import Micros
from batchgen.providers.adapters import images
from batchgen.providers.adapters.registry import Adapter

ATTEMPT = AttemptId("5f0c7d1e")
BASE = "https://api.example/v1"
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
TEXT = base64.b64encode(IMAGE).decode()
URL = "https://images.example/1.png?sig=a%2Fb"


def inline_image(
    body: bytes, headers: Mapping[str, str], index: int, adapter: Adapter = images
) -> bytes:
    """An image out of a response, as the delivery takes it."""
    return unpack_base64(adapter.inline_base64(body, headers, index))


JOB = Job(
    id=JobId(1),
    key="mug",
    state=JobState.PENDING,
    fingerprint="f",
    model="gpt-image-2",
    prompt="A mug \u2014 \u6c34\u676f \U0001f375, \u201cquoted\u201d\nand 100 % ceramic",
    options={},
    images=(),
    mask=None,
    root="out",
    path="mug.{ext}",
    verify=Verify.STRUCTURE,
    keep_previous=0,
    keep_partials=False,
    sidecar=False,
    metadata=False,
    price=Micros(37_700),
    tries=0,
    doubts=0,
)


async def sent(request: ApiRequest) -> bytes:
    """The body as it goes out, of the length that is announced."""
    body = b"".join([piece async for piece in request.body.stream()])
    assert len(body) == int(request.body.headers["Content-Length"])
    return body
