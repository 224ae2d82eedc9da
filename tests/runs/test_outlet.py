"""Output to a reader that stops reading: nothing waits for it, and what is read is in order."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from batchgen.console.nonblocking_stream import Outlet
from tests.support import rig

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")


def output(lines: int) -> str:
    return f"{lines} lost"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for handle in (reading, writing):
        os.close(handle)


def read_until(handle: int, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        data += os.read(handle, 65536)
    return data


def test_outlet_never_waits_and_reports_what_the_reader_missed(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    with open(writing, "w", encoding="utf-8", closefd=False) as stream:
        outlet = Outlet(stream, output, held=3)
        block = "x" * 200_000 + "\n"  # more than a pipe holds
        outlet.write(block)
        while not outlet._writing:
            pass
        for number in range(9):
            outlet.write(f"{number}\n")
        assert not outlet.settle(0)

        reader = threading.Thread(target=lambda: got.append(read_until(reading, b"2\n")))
        got: list[bytes] = []
        reader.start()
        assert outlet.settle(20)
        reader.join()
        outlet.write("last\n")
        assert read_until(reading, b"last\n") == b"6 lost\nlast\n"
        assert got == [block.encode() + b"0\n1\n2\n"]


def test_end_waits_for_a_slow_reader_but_not_a_stopped_one(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    with open(writing, "w", encoding="utf-8", closefd=False) as stream:
        outlet = Outlet(stream, output)
        outlet.write("y" * 200_000)
        outlet.finish(patience_s=0.1)
        assert not outlet.settle(0)
        reader = threading.Thread(target=read_until, args=(reading, b"z"))
        reader.start()
        outlet.write("z")
        outlet.finish(patience_s=10)
        assert outlet.settle(0)
        reader.join()


def test_a_reader_that_is_gone_is_written_to_no_more() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        outlet = Outlet(stream, output)
        for _ in range(3):
            outlet.write("w" * 100_000)
            assert outlet.settle(20)


def test_name_outside_the_encoding_is_written_with_escapes(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    with open(writing, "w", encoding="ascii", closefd=False) as stream:
        outlet = Outlet(stream, output)
        outlet.write("café\n")
        assert read_until(reading, b"\n") == b"caf\\xe9\n"


MANY = 400
"""Their lines are more than a pipe holds."""


@pytest.mark.fault("P14")
def test_a_reader_that_stops_reading_does_not_hold_up_a_run(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images") as served:
        path = rig.manifest(tmp_path, served.base_url, [f"p{n}" for n in range(MANY)])
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            rig.wait_for(
                tmp_path, f"SELECT 1 FROM jobs WHERE state = 'done' LIMIT 1 OFFSET {MANY - 1}"
            )
            lines = list(rig.events(process))
            assert process.wait(rig.TIMEOUT_S) == 0
    assert sum(line.get("event") == "job_done" for line in lines) == MANY
    assert lines[-1] == rig.status(tmp_path)


@pytest.mark.fault("P14")
def test_stopped_terminal_does_not_block_a_run(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with rig.endpoint(tmp_path / "state", "--fast-images") as served:
        # Each is refused with a long notice, so that the terminal's buffer is full soon.
        path = rig.manifest(tmp_path, served.base_url, [f"forbidden-word {n}" for n in range(200)])
        command = [sys.executable, "-m", "batchgen", "run", str(path), "--yes"]
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            env=rig.environment(),
            stdin=theirs,
            stderr=theirs,
            stdout=subprocess.DEVNULL,
        ) as process:
            os.close(theirs)
            rig.wait_for(tmp_path, "SELECT 1 FROM runs WHERE ended_at > ''")
            shown = b""
            with suppress(OSError):  # as Linux ends a terminal without a writer
                while data := os.read(ours, 65536):
                    shown += data
    os.close(ours)
    assert process.returncode == 1
    assert shown.count(b"blocked: moderation_blocked") == 200
