"""An HTTP proxy in a process of its own: ``python -m tests.support.http_proxy [USER:PASSWORD]``.

It prints its port, and then each request line. Every name leads to 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import sys
from base64 import b64encode
from contextlib import suppress
from urllib.parse import urlsplit


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, credentials: str
) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip().split("\r\n")
        print(line, flush=True)
        method, target, _ = line.split()
        sent = {name.lower(): value for name, _, value in (one.partition(": ") for one in fields)}
        if credentials and sent.get("proxy-authorization") != f"Basic {credentials}":
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        server = await asyncio.open_connection("127.0.0.1", parts.port or 80)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            kept = [one for one in fields if not one.lower().startswith("proxy-")]
            path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
            request = "\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close"])
            server[1].write(f"{request}\r\n\r\n".encode("latin-1"))
        await asyncio.gather(_pump(reader, server[1]), _pump(server[0], writer))


async def _main() -> None:
    credentials = b64encode(sys.argv[1].encode()).decode() if len(sys.argv) > 1 else ""
    server = await asyncio.start_server(lambda r, w: _serve(r, w, credentials), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
