"""The key and signed URLs: in no artifact, no argument, no log and no request to others."""

from __future__ import annotations

import ast
import base64
import json
import os
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import batchgen
from batchgen.cli.main import cli
from batchgen.http.client import ApiClient
from batchgen.http.deadlines import Deadlines
from batchgen.http.network import Network
from batchgen.http.request import ApiRequest, BytesBody
from batchgen.http.session import ssl_context
from batchgen.job import AttemptId
from batchgen.outcomes.classify import Reach
from batchgen.session.env_file import exposed_env_file
from batchgen.spool.spool import Spool
from tests.support import canary, rig, wire
from tests.support.canary import CANARY
from tests.support.responses import RED
from tests.support.scripted_server import scripted

EVERYTHING = "output: {sidecar: true, metadata: true}\n"


# The search


def as_metadata(directory: Path) -> None:
    info = PngInfo()
    info.add_text("Comment", f"Bearer {CANARY}")
    Image.new("RGB", (8, 8)).save(directory / "a.png", pnginfo=info)


def as_row(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "a.db")) as conn, conn:
        conn.execute("CREATE TABLE kept AS SELECT ? AS it", (f"Bearer {CANARY}",))


def as_deleted_row(directory: Path) -> None:
    as_row(directory)
    with closing(sqlite3.connect(directory / "a.db")) as conn:
        conn.execute("PRAGMA secure_delete = OFF")
        conn.execute("DELETE FROM kept")
        conn.commit()


LEAKS = {
    "plain": lambda directory: (directory / "a").write_text(f"x{CANARY}y"),
    "at the end of megabytes": lambda directory: (directory / "a").write_text(
        "x" * 3_000_000 + CANARY
    ),
    "deep down": lambda directory: (
        (directory / "b/c").mkdir(parents=True),
        (directory / "b/c/a").write_text(CANARY),
    ),
    "base64": lambda directory: (directory / "a").write_bytes(base64.b64encode(CANARY.encode())),
    "base64 after one octet": lambda directory: (directory / "a").write_bytes(
        base64.b64encode(f" {CANARY} and more".encode())
    ),
    "base64 after two": lambda directory: (directory / "a").write_bytes(
        base64.urlsafe_b64encode(f"r {CANARY}\n".encode())
    ),
    "url-encoded": lambda directory: (directory / "a").write_text(
        urllib.parse.quote(f"={CANARY}&")
    ),
    "url-encoded whole": lambda directory: (directory / "a").write_text(
        "".join(f"%{octet:02X}" for octet in CANARY.encode())
    ),
    "JSON": lambda directory: (directory / "a").write_text(json.dumps({"key": CANARY})),
    "JSON escapes": lambda directory: (directory / "a").write_text(
        "".join(f"\\u{octet:04x}" for octet in CANARY.encode())
    ),
    "hex": lambda directory: (directory / "a").write_text(f"x{CANARY.encode().hex()}"),
    "a file's name": lambda directory: (directory / f"a-{CANARY}.json").touch(),
    "an image's metadata": as_metadata,
    "a row": as_row,
    "a free page": as_deleted_row,
}


@pytest.mark.parametrize("leak", LEAKS)
def test_the_search_finds_the_key(leak: str) -> None:
    with TemporaryDirectory() as place:
        directory = Path(place)
        (directory / "b.txt").write_text("nothing")
        assert canary.found_in(directory) == []
        LEAKS[leak](directory)
        assert len(canary.found_in(directory)) == 1


LEAKING = """
import os
from pathlib import Path

def test_that_leaks(tmp_path: Path) -> None:
    (tmp_path / "response.json").write_text(os.environ["WRITTEN"])

def test_that_does_not(tmp_path: Path) -> None:
    (tmp_path / "response.json").write_text("nothing")
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
@pytest.mark.parametrize("written", [CANARY, "nothing"])
def test_key_left_by_a_test_fails_the_session(written: str, workers: list[str]) -> None:
    with TemporaryDirectory() as place:
        (Path(place) / "test_it.py").write_text(LEAKING)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.canary", *workers]
        done = subprocess.run(
            [*command, "--basetemp", f"{place}/made", "-c", os.devnull, f"{place}/test_it.py"],
            cwd=Path(batchgen.__file__).parents[1],
            env=rig.environment({"WRITTEN": written}),
            capture_output=True,
            text=True,
            timeout=rig.TIMEOUT_S,
            check=False,
        )
    assert done.returncode == (written == CANARY), done.stdout
    assert ("an API key was written down" in done.stdout) == (written == CANARY)
    assert "2 passed" in done.stdout


# What is left of a night


@pytest.mark.fault("S04", "S05")
def test_no_artefact_of_a_night_holds_the_key(served: rig.Endpoint, tmp_path: Path) -> None:
    prompts = ["a mug", "a hat", "a forbidden-word"]
    path = rig.manifest(tmp_path, served.base_url, prompts, extra=EVERYTHING)
    rig.batchgen("run", path, "--log-file", tmp_path / "night.log", cwd=tmp_path, code=1)
    rig.manifest(tmp_path, served.base_url, ["a cup", *prompts[1:]], extra=EVERYTHING)
    rig.batchgen("plan", path, "--json", cwd=tmp_path)
    rig.batchgen("run", path, "--json", cwd=tmp_path, code=1)
    for command in ("status", "report", "verify", "cost"):
        rig.batchgen(command, "batch", cwd=tmp_path, code=None)
    for what in ("jobs", "attempts", "images"):
        file = tmp_path / f"{what}.jsonl"
        rig.batchgen("export", "batch", "--what", what, "-o", file, cwd=tmp_path)
        assert file.stat().st_size
    kept = {file.suffix for file in tmp_path.rglob("*") if file.is_file()}
    assert {".db", ".log", ".json", ".jsonl", ".png"} <= kept
    assert canary.found_in(tmp_path) == []


@pytest.mark.fault("S12")
def test_provider_that_repeats_the_key_does_not_leak_it(tmp_path: Path) -> None:
    said = f"wrong key {CANARY} for you"
    error = {"message": said, "code": CANARY, "type": f"Bearer {CANARY}", "param": CANARY}
    with scripted() as script:
        script.reply = lambda: (400, json.dumps({"error": error}).encode())
        path = rig.manifest(tmp_path, f"{script.base}/v1", ["a mug"], extra=EVERYTHING)
        log = tmp_path / "night.log"
        done = rig.batchgen("run", path, "--log-file", log, cwd=tmp_path, code=1)
        printed = rig.batchgen("report", "batch", cwd=tmp_path, code=None)
    assert "wrong key *** for you" in done.stderr + printed.stdout
    assert canary.found_in(tmp_path) == []


def echoes(key: str) -> str:
    """A text in which a server repeats the key in many forms."""
    plain = key.encode()
    return " ".join(
        (
            *(base64.b64encode(before + plain + b"!").decode() for before in (b"", b"a", b"ab")),
            base64.urlsafe_b64encode(b"Bearer " + plain).decode(),
            *(plain.hex(), plain.hex().upper(), urllib.parse.quote(f"k={key}&", safe="")),
            "".join(f"%{octet:02X}" for octet in plain),
            "".join(f"\\u{octet:04x}" for octet in plain),
        )
    )


@pytest.mark.fault("S12")
@pytest.mark.parametrize("place", ["refusal", "task", "success"])
def test_provider_that_repeats_the_key_encoded_does_not_leak_it(place: str, tmp_path: Path) -> None:
    """In messages, logs, the ledger and sidecars, and in what a polled task says."""
    said = f"see {echoes(CANARY)} there"
    with scripted() as script:
        script.headers["X-Request-Id"] = base64.b64encode(CANARY.encode()).decode()
        error = {"message": said, "code": CANARY.encode().hex()}
        if place == "refusal":
            script.reply = lambda: (400, json.dumps({"error": error}).encode())
        elif place == "task":
            task = {"id": "task_1", "status": "queued", "polling_url": f"{script.base}/t/1"}
            script.reply = lambda: (202, json.dumps(task).encode())
            failed = json.dumps({"status": "failed", "error": error}).encode()
            script.files["t/1"] = failed
        else:
            item = {"url": script.url("1.png"), "revised_prompt": said}
            script.files["1.png"] = RED
            script.response(item)
        path = rig.manifest(
            tmp_path,
            f"{script.base}/v1",
            ["a mug"],
            limits="{max_waste: '0', poll: 0.01}",
            extra=EVERYTHING,
        )
        log = tmp_path / "night.log"
        code = 0 if place == "success" else 1
        done = rig.batchgen("run", path, "--log-file", log, cwd=tmp_path, code=code)
        printed = rig.batchgen("report", "batch", cwd=tmp_path, code=None)
    if place != "success":
        assert "see ***" in done.stderr + printed.stdout
    (attempt,) = rig.query(tmp_path / "batchgen.db", "SELECT request_id FROM attempts")
    assert attempt["request_id"] == "***=" or attempt["request_id"].startswith("***")
    assert canary.found_in(tmp_path) == []


@pytest.mark.fault("S03")
def test_signature_of_an_image_url_is_removed_after_download(tmp_path: Path) -> None:
    signature = b"0123456789signature"
    signed = f"1.png?X-Amz-Signature={signature.decode()}"
    while_needed: list[bool] = []

    def send() -> bytes:
        while_needed.append(any(holds(file, signature) for file in tmp_path.glob("batchgen.db*")))
        return RED

    with scripted() as script:
        script.response({"url": script.url(signed)})
        script.files[signed] = send
        path = rig.manifest(tmp_path, f"{script.base}/v1", ["a mug"], extra=EVERYTHING)
        log = tmp_path / "night.log"
        done = rig.batchgen("run", path, "--log-file", log, cwd=tmp_path)
    assert while_needed == [True]
    assert signature not in (done.stdout + done.stderr).encode()
    assert [file for file in tmp_path.rglob("*") if holds(file, signature)] == []


def holds(file: Path, content: bytes) -> bool:
    """Whether a file has it."""
    return file.is_file() and content in file.read_bytes()


@pytest.mark.fault("S15")
def test_a_log_names_jobs_and_quotes_no_prompt(served: rig.Endpoint, tmp_path: Path) -> None:
    prompts = ["an unquotable wish", "an unquotable forbidden-word"]
    path = rig.manifest(tmp_path, served.base_url, prompts)
    log = tmp_path / "night.log"
    done = rig.batchgen("run", path, "--log-file", log, cwd=tmp_path, code=1)
    written = log.read_text("utf-8")
    assert "job-000" in written
    assert "unquotable" not in written + done.stdout + done.stderr
    logged = [file.read_text("utf-8") for file in Path(os.environ[canary.LOGS]).iterdir()]
    assert [text for text in logged if "unquotable" in text] == []


# Where a key comes from


def options() -> Iterator[tuple[str, str]]:
    for name, command in cli.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                for flag in (*parameter.opts, *parameter.secondary_opts):
                    yield name, flag


@pytest.mark.fault("S06")
def test_no_option_takes_a_key(served: rig.Endpoint, tmp_path: Path) -> None:
    words = {"key", "token", "secret", "password"}
    found = [flag for _, flag in options() if words & set(flag.strip("-").split("-"))]
    assert set(found) <= {"--token-name", "--key"}
    path = rig.manifest(tmp_path, served.base_url, ["a mug"])
    refused = rig.batchgen("run", path, "--api-key", "x", cwd=tmp_path, code=2)
    assert "no such option" in refused.stderr.lower()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
@pytest.mark.fault("S06")
def test_the_key_is_in_no_argument_of_any_process(tmp_path: Path) -> None:
    with scripted() as script:
        seen: dict[str, bytes] = {}

        def look() -> tuple[int, bytes]:
            for process in Path("/proc").iterdir():
                if process.name.isdecimal() and process.name != str(os.getpid()):
                    seen[process.name] = read(process / "cmdline")
            return 400, b'{"error": {"message": "no"}}'

        script.reply = look
        path = rig.manifest(tmp_path, f"{script.base}/v1", ["a mug"])
        with rig.start("run", path, cwd=tmp_path, has_command_line=True) as process:
            process.communicate(timeout=rig.TIMEOUT_S)
    assert b"batchgen" in seen[str(process.pid)]
    assert [line for line in seen.values() if canary.is_in(line)] == []


def read(path: Path) -> bytes:
    """Return the text; empty if the process is gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.fault("S13")
def test_crashed_run_leaves_no_core_dump_and_no_values(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"] * 8, limits="{concurrency: 1}")
    command = ["sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh"]
    command += [sys.executable, "-X", "faulthandler", "-m", "batchgen", "run", str(path), "--json"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=rig.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        next(rig.events(process))
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        process.send_signal(signal.SIGSEGV)
        out, errors = process.communicate(timeout=rig.TIMEOUT_S)
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4] == "0"
    assert process.returncode == -signal.SIGSEGV
    assert "Current thread" in errors
    assert not canary.is_in((out + errors).encode())


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.fault("S07")
def test_an_env_file_others_may_read_is_warned_of(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["a mug", "a hat"])
    keys = tmp_path / ".env"
    keys.write_text(f"OTHER_KEY={CANARY}\n")
    keys.chmod(0o644)
    warned = rig.batchgen("run", path, "--limit", "1", cwd=tmp_path)
    assert f"warning: {keys} can be read by others on this machine" in warned.stderr
    keys.chmod(0o600)
    assert "warning" not in rig.batchgen("resume", "batch", cwd=tmp_path).stderr


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.fault("S07")
@pytest.mark.parametrize("below", ["", "jobs/winter"])
def test_an_env_file_in_git_is_warned_of(below: str, tmp_path: Path) -> None:
    directory = tmp_path / below
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ".env").write_text("A=1\n")
    (directory / ".env").chmod(0o600)
    (directory / "a.env").write_text("")

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init", "-q")
    git("add", "--", str(directory / "a.env"))
    assert exposed_env_file(directory) is None
    git("add", "-f", "--", str(directory / ".env"))
    assert "is in git" in (exposed_env_file(directory) or "")
    git("rm", "-q", "--cached", "--", str(directory / ".env"))
    assert exposed_env_file(directory) is None
    assert exposed_env_file(tmp_path / "nowhere") is None


# Whom a key is sent to


@pytest.mark.anyio
@pytest.mark.fault("S11")
async def test_certificates_of_the_environment_are_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = wire.certificate(tmp_path, "IP:127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(shown.file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    script = wire.answering(wire.response(b"{}"))
    async with wire.serve(script, shown.server()) as server:
        client = ApiClient(
            key=CANARY, network=Network(ssl_context()), deadlines=Deadlines(), deadline_s=10
        )
        async with client:
            request = ApiRequest(method="POST", url=server.url, body=BytesBody(b"{}"))
            exchange = await client.exchange(request, spool.part(AttemptId("a1")))
    assert exchange.reach is Reach.NOTHING
    assert server.requests == []


@pytest.mark.fault("S16")
def test_nothing_switches_the_check_of_certificates_off(tmp_path: Path) -> None:
    context = ssl_context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert [flag for _, flag in options() if {"verify", "insecure"} & set(flag.split("-"))] == []
    path = rig.manifest(tmp_path, "https://127.0.0.1:1/v1", ["a mug"])
    path.write_text(path.read_text("utf-8").replace("api_key_env", "verify: false, api_key_env"))
    refused = rig.batchgen("check", path, cwd=tmp_path, code=2)
    assert "provider.verify: unknown key 'verify'" in refused.stderr
    for file in Path(batchgen.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("verify", "ssl", "verify_ssl"):
                off = isinstance(node.value, ast.Constant) and node.value.value is False
                assert not off, f"{file}:{node.lineno}"
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("CERT_NONE", "_create_unverified_context"), file
