"""Uploads that are cut off while they are sent, by a proxy with a limit for example."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.support import canary, rig
from tests.support.responses import RED, encoded

LIMIT = 1 << 20
GOOD = json.dumps({"data": [{"b64_json": encoded(RED)}]}).encode()


class Proxy:
    """Sends an image for small requests and resets the connection of large uploads."""

    def __init__(self) -> None:
        self.cuts = 0
        self.images = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"

    def serve(self) -> None:
        """Accept connections until the listener is closed."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self._response(connection)

    def _response(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536) or b"\r\n\r\n"
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        size = int(fields.get(b"content-length", 0))
        if size > LIMIT:
            self.cuts += 1
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        while len(body) < size:
            body += connection.recv(65536)
        status, reply = (b"200 OK", GOOD) if head.startswith(b"POST") else (b"404 Not Found", b"{}")
        self.images += reply is GOOD
        connection.sendall(
            b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%s" % (status, len(reply), reply)
        )


@contextmanager
def proxy() -> Iterator[Proxy]:
    """A proxy on loopback."""
    found = Proxy()
    thread = threading.Thread(target=found.serve)
    thread.start()
    try:
        yield found
    finally:
        found.listener.shutdown(socket.SHUT_RDWR)
        found.listener.close()
        thread.join()


@pytest.mark.fault("XC6")
def test_three_cut_uploads_fail_the_job_and_no_other(tmp_path: Path) -> None:
    noise = Image.frombytes("RGB", (1500, 1500), os.urandom(1500 * 1500 * 3))
    noise.save(tmp_path / "large.png")
    small = "".join(f"  - {{key: small-{n}, prompt: a mug {n}}}\n" for n in range(30))
    with proxy() as provider:
        path = tmp_path / "batch.yaml"
        path.write_text(
            f"provider: {{name: local, base_url: {provider.url!r},"
            f" api_key_env: {canary.VARIABLE}}}\n"
            "model: gpt-image-2\nlimits: {concurrency: 2}\njobs:\n"
            f"  - {{key: large, prompt: a mug, images: [large.png]}}\n{small}",
            encoding="utf-8",
        )
        rig.batchgen("run", path, cwd=tmp_path, code=1)
    found = rig.status(tmp_path)
    assert (found["jobs"]["failed"], found["jobs"]["done"]) == (1, 30)
    assert (provider.cuts, provider.images) == (3, 30)
    (job,) = rig.query(tmp_path / "batchgen.db", "SELECT * FROM jobs WHERE state = 'failed'")
    assert job["key"] == "large"
    assert job["cuts"] == 3
    assert job["reason"].startswith("upload_cut: the upload of ")
    assert "upload limit" in job["reason"]
    assert "(3 times)" in job["reason"]
    attempts = rig.query(
        tmp_path / "batchgen.db",
        "SELECT outcome, billed, cost FROM attempts WHERE job_id = ?",
        job["id"],
    )
    assert [tuple(row) for row in attempts] == [("safe", "no", 0)] * 3
