"""Read request bodies, and refuse unreadable ones as the gateway does."""

from __future__ import annotations

import zlib

import orjson
from starlette.datastructures import UploadFile
from starlette.requests import Request

from batchgen.simulator.errors import ApiError
from batchgen.simulator.uploads import Upload

MAX_BODY_BYTES = 128 * 1024 * 1024


async def read_body(request: Request) -> None:
    """Read the whole body, so that no fault or error cuts off a client that is still sending."""
    too_large = ApiError(413, "request body too large", code="read_request_body_failed")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_BODY_BYTES:
        raise too_large
    if len(await request.body()) > MAX_BODY_BYTES:
        raise too_large


async def json_fields(request: Request) -> dict[str, object]:
    """Return the object of a JSON body, which may be compressed with gzip. Raises ApiError."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ApiError(400, "The body must be application/json")
    return json_object(_unzipped(request, await request.body()))


def _unzipped(request: Request, body: bytes) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise ApiError(400, f"Content-Encoding {encoding} is not supported")
    decoder = zlib.decompressobj(wbits=31)
    try:
        content = decoder.decompress(body, MAX_BODY_BYTES)
    except zlib.error:
        raise ApiError(400, "The body is not gzip") from None
    if decoder.unconsumed_tail:
        raise ApiError(413, "request body too large", code="read_request_body_failed")
    if not decoder.eof:
        raise ApiError(400, "The gzip body is cut short")
    return content


def json_object(body: bytes) -> dict[str, object]:
    """Parse a JSON object. Raises ApiError."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ApiError(400, "The body is not a JSON object")
    return document


async def upload(part: UploadFile) -> Upload:
    """Read a file part of a form."""
    return Upload(content=await part.read(), mime_type=part.content_type)
