"""The OpenAI Images API: a job to a request, a spooled answer to pictures or an error.

Reads a stranger's JSON: whatever it is, the result is an Answer.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import aiofiles
import orjson
import pybase64

from batchgen.http import ApiRequest, BytesBody
from batchgen.job import AttemptId, Job, PictureRef
from batchgen.outcome import Answer, ErrorBody

_CHUNK_BYTES: Final = 256 * 1024
_MAX_PICTURES: Final = 100


def build_request(job: Job, attempt: AttemptId, base_url: str) -> ApiRequest:
    """Write the request for one picture of a job: the edits route when it has references.

    The attempt's id goes along as ``Idempotency-Key`` and ``X-Client-Request-Id``, so that a charge
    can be found again in the provider's log. Raises OSError when a reference can't be read.
    """
    headers = {"Idempotency-Key": attempt, "X-Client-Request-Id": attempt}
    fields = {"model": job.model, "prompt": job.prompt, "n": 1, **job.options}
    if not job.images:
        return ApiRequest(
            method="POST",
            url=f"{base_url}/images/generations",
            body=BytesBody(orjson.dumps(fields)),
            headers=headers,
        )
    name = "image" if len(job.images) == 1 else "image[]"
    files = [(name, Path(image)) for image in job.images]
    if job.mask:
        files.append(("mask", Path(job.mask)))
    return ApiRequest(
        method="POST",
        url=f"{base_url}/images/edits",
        body=MultipartBody.of(attempt, fields, files),
        headers=headers,
    )


@dataclass(frozen=True, slots=True)
class MultipartBody:
    """Text fields and files as multipart/form-data, streamed from disk anew for each attempt."""

    boundary: str
    fields: tuple[bytes, ...]
    files: tuple[tuple[bytes, Path, int], ...]

    @classmethod
    def of(
        cls, attempt: AttemptId, fields: Mapping[str, Any], files: list[tuple[str, Path]]
    ) -> MultipartBody:
        """Lay the parts out; the lengths are fixed here. Raises OSError."""
        boundary = hashlib.sha256(attempt.encode()).hexdigest()[:40]
        heads = tuple(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
            + _as_field(value).encode()
            + b"\r\n"
            for name, value in fields.items()
        )
        parts = tuple(
            (
                f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; '
                f'filename="{_file_name(path, number)}"\r\n'
                f"Content-Type: {_mime_type(path)}\r\n\r\n".encode(),
                path,
                path.stat().st_size,
            )
            for number, (name, path) in enumerate(files, start=1)
        )
        return cls(boundary, heads, parts)

    @property
    def headers(self) -> Mapping[str, str]:
        """Length and type."""
        length = sum(map(len, self.fields))
        length += sum(len(head) + size + 2 for head, _, size in self.files)
        length += len(self._end)
        return {
            "Content-Type": f"multipart/form-data; boundary={self.boundary}",
            "Content-Length": str(length),
        }

    @property
    def _end(self) -> bytes:
        return f"--{self.boundary}--\r\n".encode()

    async def stream(self) -> AsyncIterator[bytes]:
        """The bytes, from the start."""
        for part in self.fields:
            yield part
        for head, path, _ in self.files:
            yield head
            async with aiofiles.open(path, "rb") as file:
                while chunk := await file.read(_CHUNK_BYTES):
                    yield chunk
            yield b"\r\n"
        yield self._end


def _as_field(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _file_name(path: Path, number: int) -> str:
    # The gateway takes the MIME type from the name's ending, and the rest of the name is nobody's.
    return f"reference-{number}{path.suffix.lower() or '.png'}"


def _mime_type(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "image/png"


def read_answer(body: bytes, headers: Mapping[str, str]) -> Answer:
    """Read a body that may be anything. Never raises."""
    try:
        document = orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        html = "html" in headers.get("content-type", "") or body[:512].lstrip()[:1] == b"<"
        return Answer(html=html)
    if not isinstance(document, dict):
        return Answer(readable=True)
    error = _error(document)
    return Answer(
        readable=True,
        pictures=() if error else _pictures(document),
        error=error,
        task_id=_text(document.get("task_id")) or None,
    )


def _error(document: dict[str, Any]) -> ErrorBody | None:
    error = document.get("error")
    if isinstance(error, str) and error:
        return ErrorBody(message=error, code=_text(document.get("code")))
    if isinstance(error, dict) and error:
        return ErrorBody(
            code=_text(error.get("code")),
            type=_text(error.get("type")),
            message=_text(error.get("message")),
        )
    code, message = _text(document.get("code")), _text(document.get("message"))
    if code and message and not document.get("data"):
        return ErrorBody(code=code, message=message)
    return None


def _text(value: object) -> str:
    return str(value)[:4096] if isinstance(value, str | int) and value is not True else ""


def _pictures(document: dict[str, Any]) -> tuple[PictureRef, ...]:
    items = document.get("data")
    if isinstance(items, dict):
        items = [items]
    if not isinstance(items, list):
        return ()
    found = []
    for index, item in enumerate(items[:_MAX_PICTURES]):
        if not isinstance(item, dict):
            continue
        if _inline(item) is not None:
            found.append(PictureRef(index=index))
        elif url := _text(item.get("url")).strip():
            found.append(PictureRef(index=index, url=url))
    return tuple(found)


def _inline(item: dict[str, Any]) -> str | None:
    """The base64 text of an item: from ``b64_json``, or from an address that is itself data."""
    for name in ("b64_json", "url"):
        value = item.get(name)
        if not isinstance(value, str) or not value:
            continue
        if value[:5].lower() == "data:":
            return value.partition(",")[2]
        if name == "b64_json":
            return value
    return None


_SPACE: Final = re.compile(r"\s+")


def inline_picture(body: bytes, index: int) -> bytes:
    """Take one picture out of an answer. Raises ValueError when its base64 is no base64.

    White space, the URL-safe alphabet and missing padding are understood; other servers write them.
    """
    item = orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))["data"]
    if isinstance(item, list):
        item = item[index]
    text = _inline(item) or ""
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        tidy = _SPACE.sub("", text).rstrip("=").replace("-", "+").replace("_", "/")
        return pybase64.b64decode(tidy + "=" * (-len(tidy) % 4), validate=True)


def expiry_of(url: str) -> datetime | None:
    """When a signed address stops working, as far as it says so itself.

    Understands S3 and compatible (``X-Amz-Date`` with ``X-Amz-Expires``), ``Expires`` in Unix
    seconds, and Azure's ``se``.
    """
    query = {name.lower(): values[0] for name, values in parse_qs(_query(url)).items()}
    try:
        if "x-amz-expires" in query and "x-amz-date" in query:
            start = datetime.strptime(query["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            return start + timedelta(seconds=int(query["x-amz-expires"]))
        if "expires" in query:
            return datetime.fromtimestamp(int(query["expires"]), UTC)
        if "se" in query:
            end = datetime.fromisoformat(query["se"])
            return end if end.tzinfo else end.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _query(url: str) -> str:
    try:
        return urlsplit(url).query
    except ValueError:
        return ""
