"""What other operating systems lack or want, as far as it can be shown on this one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import batchgen
from batchgen.ledger.database import open_for_writing
from tests.support import rig
from tests.support.terminal import at_terminal

WITHOUT_SIGNAL_HANDLERS = """
import asyncio, sys
from batchgen.cli.main import main

def refuse(self, *arguments):
    raise NotImplementedError

for kind in (asyncio.AbstractEventLoop, asyncio.SelectorEventLoop):
    kind.add_signal_handler = kind.remove_signal_handler = refuse
sys.exit(main(sys.argv[1:]))
"""
"""A batchgen whose event loop is like those of Windows."""


@contextmanager
def started(*arguments: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a run on such a loop."""
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_SIGNAL_HANDLERS, *map(str, arguments)],
        cwd=cwd,
        env=rig.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@pytest.mark.fault("XD1")
def test_a_loop_without_signal_handlers_runs_a_batch(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images") as served:
        path = rig.manifest(tmp_path, served.base_url, ["a mug", "a bag"])
        with started("run", path, cwd=tmp_path) as process:
            out, errors = process.communicate(timeout=rig.TIMEOUT_S)
        assert process.returncode == 0, out + errors
        rig.judge(tmp_path, served.bill(), finished=True)


@pytest.mark.fault("XD1")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_lets_requests_finish_there_too(number: int, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "1") as slow:
        path = rig.manifest(tmp_path, slow.base_url, ["a"] * 6, limits="{concurrency: 2}")
        with started("run", path, "--json", cwd=tmp_path) as process:
            next(rig.events(process))
            process.send_signal(number)
            _, errors = process.communicate(timeout=rig.TIMEOUT_S)
        assert process.returncode == 128 + number, errors
        rig.judge(tmp_path, slow.bill(), finished=False)
    found = rig.status(tmp_path)["jobs"]
    assert found["done"] >= 1
    assert found["uncertain"] == found["sending"] == found["paid"] == 0
    assert found["pending"] == 6 - found["done"]


@pytest.mark.fault("XD1")
def test_a_second_signal_cancels_requests_there_too(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "60") as slow:
        path = rig.manifest(tmp_path, slow.base_url, ["a"] * 2, limits="{max_waste: 0}")
        with started("run", path, "--json", cwd=tmp_path) as process:
            events = rig.events(process)
            while slow.judge("stats")["in_flight"] < 2:
                pass
            process.send_signal(signal.SIGINT)
            assert any(event.get("event") == "stopping" for event in events)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=rig.TIMEOUT_S)
        assert process.returncode == 130, errors
    assert rig.status(tmp_path)["jobs"]["uncertain"] == 2


UNABLE = ["cp1252", "ascii", "latin-1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch whose keys and prompts no code page of the West can spell."""
    directory = tmp_path_factory.mktemp("made")
    with rig.endpoint(directory / "state", "--fast-images") as served:
        path = directory / "batch.yaml"
        path.write_text(
            f"provider: {{name: local, base_url: {served.base_url!r}}}\n"
            "jobs:\n  - {key: чашка, prompt: 茶碗 ☕}\n  - {key: plain, prompt: a mug}\n",
            encoding="utf-8",
        )
        rig.batchgen("run", path, cwd=directory)
    return directory


def output_of(*arguments: str, cwd: Path, encoding: str) -> bytes:
    """Return what a command writes to a stdout of that encoding that is not a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "batchgen", *arguments],
        cwd=cwd,
        env=rig.environment() | {"PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=rig.TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"Traceback" not in done.stderr
    return done.stdout


@pytest.mark.fault("XD4")
@pytest.mark.parametrize("encoding", UNABLE)
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_export_is_utf_8_with_any_code_page(encoding: str, kind: str, made: Path) -> None:
    out = output_of("export", "batch", "--format", kind, cwd=made, encoding=encoding)
    text = out.decode("utf-8")
    assert "чашка" in text
    assert "茶碗 ☕" in text
    assert b"\r\r" not in out
    if kind == "jsonl":
        assert {json.loads(line)["key"] for line in text.splitlines()} == {"чашка", "plain"}


@pytest.mark.fault("XD4")
@pytest.mark.parametrize("encoding", UNABLE)
@pytest.mark.parametrize(
    "command",
    ["status", "status --json", "report", "verify", "cost --json", "prices --provider local"],
)
def test_every_command_prints_to_a_code_page(command: str, encoding: str, made: Path) -> None:
    name = [] if command.startswith(("cost", "prices")) else ["batch"]
    verb, *options = command.split()
    assert output_of(verb, *name, *options, cwd=made, encoding=encoding).decode("utf-8")


@pytest.mark.fault("XD4")
def test_a_terminal_of_another_encoding_gets_escapes(made: Path) -> None:
    env = {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
    code, shown = at_terminal("plan", "batch.yaml", "--why", "чашка", cwd=made, env=env)
    assert code == 0, shown
    assert "\\u0447\\u0430" in shown


COMMANDS = [
    "status", "status batch", "status batch --json",
    "status --metrics", "report batch", "report batch --format json", "plan batch.yaml",
    "plan batch.yaml --json", "plan batch.yaml --why plain", "check batch.yaml", "cost",
    "cost --json", "cost --csv", "verify batch", "budget", "budget --json", "schema",
    "prices --provider local", "prices --provider local --json", "export batch",
    "export batch --format csv", "export batch --what attempts", "prune batch", "--help",
    "run batch.yaml", "resume batch", "retry batch",
]  # fmt: skip
"""Every command that prints and changes nothing here."""


def shell(script: str, arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command under redirections of a shell."""
    command = [sys.executable, "-m", "batchgen", *arguments.split()]
    return subprocess.run(
        ["bash", "-c", script, "bash", *command],
        cwd=cwd,
        env=rig.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=rig.TIMEOUT_S,
        check=False,
    )


@pytest.mark.fault("XD5")
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_cannot_be_written_is_never_exit_0(
    command: str, redirection: str, made: Path
) -> None:
    done = shell(f'exec "$@" {redirection}', command, made)
    assert "stdout: the output could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 3


@pytest.mark.fault("XD5")
def test_reader_that_stops_early_causes_no_failure(made: Path) -> None:
    for command in ("export batch", "schema", "status batch"):
        done = shell('"$@" | true; exit "${PIPESTATUS[0]}"', command, made)
        assert (done.returncode, done.stderr) == (0, ""), command


def test_macos_syncs_to_the_medium(tmp_path: Path) -> None:
    """On macOS ``fsync`` alone does not; the module is read as that system reads it."""
    script = """
import fcntl, os, sys
calls = []
fcntl.F_FULLFSYNC = 51
real = os.fsync
def full(handle, command, *rest):
    assert command == 51
    calls.append("full")
    if len(calls) > 1:
        raise OSError(45, "Operation not supported")
def plain(handle):
    calls.append("plain")
fcntl.fcntl, os.fsync, sys.platform = full, plain, "darwin"
from batchgen.system.file_sync import sync_file
sync_file(0)
sync_file(0)
assert calls == ["full", "full", "plain"], calls
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_ledger_syncs_to_the_medium(tmp_path: Path) -> None:
    with closing(open_for_writing(tmp_path / "batchgen.db")) as conn:
        assert conn.execute("PRAGMA fullfsync").fetchone()[0] == 1


def test_no_module_syncs_by_another_way() -> None:
    package = Path(batchgen.__file__).parent
    found = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if path.name != "file_sync.py"
        and "simulator" not in path.parts  # a process of its own that plays a provider
        and "os.fsync" in path.read_text("utf-8")
    ]
    assert not found
