"""The OpenAI Images API: a job to a request, a spooled answer to pictures or an error.

Reads a stranger's JSON: whatever it is, the result is an Answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import AsyncGenerator, Mapping
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
_MIME_TYPES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
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
            # Not orjson: it has no numbers beyond 64 bits, and a seed may be one.
            body=BytesBody(json.dumps(fields, ensure_ascii=False).encode()),
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
                _readable_size(path),
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

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The bytes, from the start. Raises OSError."""
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


def _readable_size(path: Path) -> int:
    """The size of a file that can also be opened: found out here, it has cost nothing yet."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size


def _file_name(path: Path, number: int) -> str:
    # The gateway takes the MIME type from the name's ending, and the rest of the name is nobody's.
    suffix = path.suffix.lower()
    return f"reference-{number}{suffix if suffix in _MIME_TYPES else '.png'}"


def _mime_type(path: Path) -> str:
    return _MIME_TYPES.get(path.suffix.lower(), "image/png")


def read_answer(body: bytes, headers: Mapping[str, str]) -> Answer:
    """Read a body that may be anything. Never raises."""
    try:
        document = _document(body)
    except ValueError:
        html = "html" in headers.get("content-type", "") or body[:512].lstrip()[:1] == b"<"
        return Answer(html=html)
    if not isinstance(document, dict):
        return Answer(readable=True)
    return Answer(
        readable=True,
        pictures=_pictures(document),
        error=_error(document),
        task_id=_text(document.get("task_id")) or None,
    )


def _document(body: bytes) -> Any:
    """The JSON of a body, also where a server wrote it carelessly. Raises ValueError."""
    try:
        return orjson.loads(body)
    except ValueError:
        # Broken UTF-8 in a message, a byte order mark, UTF-16 and NaN must lose no paid picture.
        text = body.decode(json.detect_encoding(body), "replace")
        try:
            return json.loads(text)
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc


def _error(document: dict[str, Any]) -> ErrorBody | None:
    error = document.get("error")
    if isinstance(error, str) and error:
        return ErrorBody(message=error, code=_text(document.get("code")))
    if isinstance(error, dict):
        body = ErrorBody(
            code=_text(error.get("code")),
            type=_text(error.get("type")),
            message=_text(error.get("message")),
        )
        # Some servers send an error object in every answer, and leave it empty in a good one.
        return None if body == ErrorBody() else body
    code, message = _text(document.get("code")), _text(document.get("message"))
    if code and message and not document.get("data"):
        return ErrorBody(code=code, message=message)
    return None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value[:4096]
    # The code 0 means success where codes are numbers.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value else ""


def _items(document: Any) -> list[Any]:
    items = document.get("data") if isinstance(document, dict) else None
    if isinstance(items, dict):
        return [items]
    return items[:_MAX_PICTURES] if isinstance(items, list) else []


def _pictures(document: dict[str, Any]) -> tuple[PictureRef, ...]:
    found = []
    for index, item in enumerate(_items(document)):
        if not isinstance(item, dict):
            continue
        url = item.get("url")
        if _inline(item) is not None:
            found.append(PictureRef(index=index))
        elif isinstance(url, str) and url.strip():
            # Half a surrogate pair is legal in JSON, and no database takes it.
            storable = url.strip().encode("utf-8", "replace").decode()
            found.append(PictureRef(index=index, url=storable))
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
    items = _items(_document(body))
    text = _inline(items[index]) if index < len(items) and isinstance(items[index], dict) else None
    if text is None:
        raise ValueError(f"the answer holds no picture {index}")
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        tidy = _SPACE.sub("", text).rstrip("=").replace("-", "+").replace("_", "/")
        return pybase64.b64decode(tidy + "=" * (-len(tidy) % 4), validate=True)


def expiry_of(url: str) -> datetime | None:
    """When a signed address stops working, in UTC, as far as it says so itself.

    Understands S3 and compatible (``X-Amz-Date`` with ``X-Amz-Expires``, and the same of Google,
    Aliyun and Volcengine), ``Expires`` in Unix seconds, and Azure's ``se``.
    """
    query = {name.lower(): values[0] for name, values in parse_qs(_query(url)).items()}
    try:
        for name, seconds in query.items():
            signed = query.get(name.removesuffix("-expires") + "-date")
            if name.endswith("-expires") and signed:
                start = datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return start + timedelta(seconds=int(seconds))
        if "expires" in query:
            return datetime.fromtimestamp(int(query["expires"]), UTC)
        if "se" in query:
            end = datetime.fromisoformat(query["se"])
            return (end if end.tzinfo else end.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _query(url: str) -> str:
    try:
        return urlsplit(url).query
    except ValueError:
        return ""
