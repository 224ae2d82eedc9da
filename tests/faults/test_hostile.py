"""Hostile data from the network never controls a terminal, and never leaves its directory."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import pytest

from tests.support import rig, wire

EVIL: Final = "\x1b]0;owned\x07\x1b[2J\x9b31m\x08\x7f\r\u202edlrow\u2028evil"
COMMANDS: Final = ("\x1b]", "\x1b[2", "\x9b", "\x07", "\x08", "\x7f", "\u202e", "\u2028")
RAW: Final = EVIL.replace("\r", "").encode("latin-1", "replace")


def said(**error: str) -> bytes:
    return json.dumps({"error": error}).encode()


def image_at(url: str) -> bytes:
    return wire.response(json.dumps({"created": 1, "data": [{"url": url}]}).encode())


def free() -> bytes:
    return wire.response(said(message="no", code="bad"), "400 Bad Request")


RESPONSES: Final[dict[str, Callable[[str], bytes]]] = {
    "an error": lambda _: wire.response(
        said(message=EVIL, code=EVIL, type=EVIL, param=EVIL), "400 Bad Request"
    ),
    "no url": lambda _: image_at(EVIL),
    "names": lambda _: wire.response(
        said(message="no"), "400 Bad Request", X_Request_Id=RAW.decode("latin-1")
    ),
    "a host": lambda _: image_at(f"http://{EVIL}/1.png"),
    "a page": lambda _: wire.response(RAW, "500 Oh", Content_Type="text/html"),
    "between": lambda _: free(),
    "a path": lambda url: image_at(f"{url}/{EVIL}"),
    "a redirect": lambda url: image_at(f"{url}/redirect"),
    "no image": lambda url: image_at(f"{url}/rubbish"),
    "a reason": lambda url: image_at(f"{url}/reason"),
    "inline": lambda _: wire.response(
        json.dumps({"data": [{"b64_json": base64.b64encode(RAW).decode()}]}).encode()
    ),
    "rubbish": lambda _: wire.response(RAW),
    "between again": lambda _: free(),
    "no HTTP": lambda _: RAW + b"\r\n\r\n",
    "a reason phrase": lambda _: b"HTTP/1.1 400 " + RAW + b"\r\nContent-Length: 0\r\n\r\n",
    "a refusal": lambda _: wire.response(
        said(message=EVIL, code="content_policy_violation"), "400 Bad Request"
    ),
    "no key": lambda _: wire.response(said(message=EVIL, code=EVIL), "401 Unauthorized"),
}
FILES: Final = {
    "/redirect": b"HTTP/1.1 302 Found\r\nLocation: http://"
    + RAW
    + b"/\r\nContent-Length: 0\r\n\r\n",
    "/rubbish": wire.response(RAW),
    "/reason": b"HTTP/1.1 404 " + RAW + b"\r\nContent-Length: 0\r\n\r\n",
    "/v1/models": wire.response(
        json.dumps({"data": [{"id": EVIL}, {"id": "gpt-image-2", "shutdown_date": EVIL}]}).encode()
    ),
    "/api/pricing": wire.response(
        json.dumps({"data": [{"model_name": EVIL, "model_price": 1}]}).encode()
    ),
}


async def hostile(connection: wire.Connection, server: wire.Server) -> None:
    request = await wire.receive(connection, server)
    if request.body:
        response = RESPONSES[json.loads(request.body)["prompt"]](server.url)
    else:
        response = FILES.get(request.line.split()[1], wire.response(RAW, "404 No"))
    await connection.send(response)


async def shown(directory: Path, *arguments: str | Path) -> str:
    """Return the output of a command with any exit code but that of a bug."""
    done = await anyio.to_thread.run_sync(
        lambda: rig.batchgen(*arguments, cwd=directory, code=None)
    )
    assert done.returncode in range(4), done.stderr
    return done.stdout + done.stderr


@pytest.mark.anyio
async def test_nothing_that_a_provider_sends_commands_the_terminal(tmp_path: Path) -> None:
    async with wire.serve(hostile) as server:
        path = rig.manifest(
            tmp_path,
            f"{server.url}/v1",
            [*RESPONSES],
            limits='{concurrency: 1, max_waste: "0", download_wait: 1}',
        )
        texts = [
            await shown(tmp_path, "run", path, "--yes", "--log-file", tmp_path / "night.log"),
            await shown(tmp_path, "run", path, "--yes", "--json"),
            await shown(tmp_path, "models", path),
            await shown(tmp_path, "prices", path),
            await shown(tmp_path, "reconcile", "batch"),
        ]
    asked = {json.loads(request.body)["prompt"] for request in server.requests if request.body}
    assert asked == set(RESPONSES)
    texts += [
        await shown(tmp_path, command, "batch", *options)
        for command, *options in (
            ["status"],
            ["report"],
            ["verify"],
            ["export", "--what", "jobs", "--format", "csv"],
            ["export", "--what", "attempts", "--format", "jsonl"],
        )
    ]
    assert sum("dlrow" in text for text in texts) >= 4, "the words themselves are printed"
    for text in [*texts, (tmp_path / "night.log").read_text("utf-8")]:
        assert [command for command in COMMANDS if command in text] == [], ascii(text)


@pytest.mark.fault("M22")
def test_manifest_edited_during_a_run_has_no_effect_on_it(tmp_path: Path) -> None:
    switches = ("--fast-images", "--latency", "0.1")
    with rig.endpoint(tmp_path / "state", *switches) as endpoint:
        prompts = [f"image {number}" for number in range(8)]
        limits = "{concurrency: 2}"
        path = rig.manifest(tmp_path, endpoint.base_url, prompts, limits=limits)
        written = path.read_bytes()
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            for _ in rig.events(process):
                path.write_text("jobs: [something else entirely\n", encoding="utf-8")
        assert process.returncode == 0
        rig.judge(tmp_path, endpoint.bill(), finished=True)
        rig.batchgen("run", path, cwd=tmp_path, code=2)
        rig.batchgen("resume", "batch", cwd=tmp_path)
        assert len(endpoint.bill()) == 8
    (batch,) = rig.query(tmp_path / "batchgen.db", "SELECT manifest, manifest_sha256 FROM batches")
    assert batch["manifest"].encode() == written
    assert batch["manifest_sha256"] == hashlib.sha256(written).hexdigest()
    jobs = rig.query(tmp_path / "batchgen.db", "SELECT prompt FROM jobs ORDER BY id")
    assert [job["prompt"] for job in jobs] == prompts
