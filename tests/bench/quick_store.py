"""A store that costs little, for the figures of a cluster: S3 in memory, without signatures.

It has what obstore needs: puts with both conditions, reads, copies, deletions and listings. moto
is the judge of whether a request is right; this is not.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support.s3 import S3Server

_END_OF_HEAD = b"\r\n\r\n"
_KEY = re.compile(rb"<Key>(.*?)</Key>")
_DATE = "Wed, 25 Nov 2026 12:00:00 GMT"
_MODIFIED = "2026-11-25T12:00:00.000Z"
_PAGE = 1000
_SHARED_BYTES = 4096
COUNT = "/_requests"
"""Where the server says how many requests it got."""


@contextmanager
def quick_store() -> Iterator[S3Server]:
    """Start a server on a free port; stopped at the end."""
    command = [sys.executable, "-m", "tests.bench.quick_store"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield S3Server(process.stdout.readline().strip(), process.pid)
        finally:
            process.kill()


class _Objects:
    """The objects of all buckets, by their path."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[bytes, dict[str, str]]] = {}
        self._requests = 0
        self._images: dict[str, bytes] = {}
        """Large contents by tag: a run with ``--fast-images`` puts the same one again and again."""

    def respond(self, method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
        if target == COUNT:
            return _response("200 OK", str(self._requests).encode())
        self._requests += 1
        parts = urlsplit(target)
        path, query = unquote(parts.path), parse_qs(parts.query, keep_blank_values=True)
        if method == "PUT":
            return self._put(path, headers, body)
        if method == "POST" and "delete" in query:
            for key in _KEY.findall(body):
                self._found.pop(f"{path.rstrip('/')}/{key.decode()}", None)
            return _response("200 OK", b"<DeleteResult></DeleteResult>")
        if method == "DELETE":
            self._found.pop(path, None)
            return _response("204 No Content")
        if "list-type" in query:
            return self._list(path.rstrip("/"), query)
        if path not in self._found:
            return _response("404 Not Found", b"", {"Content-Type": "application/xml"})
        data, kept = self._found[path]
        return _response("200 OK", data, kept, is_head=method == "HEAD")

    def _put(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        present = self._found.get(path)
        tag = present[1]["ETag"] if present else None
        if "if-none-match" in headers and present:
            return _response("412 Precondition Failed")
        if "if-match" in headers and headers["if-match"] != tag:
            return _response("412 Precondition Failed")
        if "x-amz-copy-source" in headers:
            source = "/" + unquote(headers["x-amz-copy-source"]).lstrip("/")
            if source not in self._found:
                return _response("404 Not Found")
            self._found[path] = self._found[source]
            tag = self._found[path][1]["ETag"]
            xml = f"<CopyObjectResult><ETag>{escape(tag)}</ETag></CopyObjectResult>"
            return _response("200 OK", xml.encode())
        kept = {name: text for name, text in headers.items() if name.startswith("x-amz-meta-")}
        kept["Content-Type"] = headers.get("content-type", "")
        kept["ETag"] = f'"{hashlib.md5(body).hexdigest()}"'
        kept["Last-Modified"] = _DATE
        if path.count("/") > 1:
            if len(body) > _SHARED_BYTES:
                body = self._images.setdefault(kept["ETag"], body)
            self._found[path] = body, kept
        return _response("200 OK", b"", {"ETag": kept["ETag"]})

    def _list(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        prefix = f"{bucket}/{query.get('prefix', [''])[0]}"
        after = query.get("continuation-token", [""])[0]
        names = sorted(name for name in self._found if name.startswith(prefix) and name > after)
        page, rest = names[:_PAGE], names[_PAGE:]
        rows = "".join(
            f"<Contents><Key>{escape(name[len(bucket) + 1 :])}</Key><Size>{len(data)}</Size>"
            f"<ETag>{escape(kept['ETag'])}</ETag><LastModified>{_MODIFIED}</LastModified>"
            "</Contents>"
            for name in page
            for data, kept in [self._found[name]]
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if rest else ""
        xml = (
            f"<ListBucketResult><IsTruncated>{str(bool(rest)).lower()}</IsTruncated>{token}{rows}"
            "</ListBucketResult>"
        )
        return _response("200 OK", xml.encode(), {"Content-Type": "application/xml"})


class _Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, objects: _Objects) -> None:
        self._objects = objects
        self._received = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(_END_OF_HEAD)) >= 0:
            first, *lines = self._received[:end].decode().split("\r\n")
            headers = {
                name.lower(): text.strip()
                for name, _, text in (line.partition(":") for line in lines)
            }
            begin = end + len(_END_OF_HEAD)
            whole = begin + int(headers.get("content-length", 0))
            if len(self._received) < whole:
                return
            body = bytes(self._received[begin:whole])
            del self._received[:whole]
            method, target, _ = first.split(" ")
            self._transport.write(self._objects.respond(method, target, headers, body))


def _response(
    status: str, body: bytes = b"", headers: dict[str, str] | None = None, *, is_head: bool = False
) -> bytes:
    lines = [f"{name}: {text}\r\n" for name, text in (headers or {}).items()]
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{''.join(lines)}\r\n"
    return head.encode() + (b"" if is_head else body)


async def _serve() -> None:
    objects = _Objects()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(objects), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
