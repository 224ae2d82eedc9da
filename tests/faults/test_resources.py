"""Memory, open files, threads and the event loop, on large batches and starved machines."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import pytest
from PIL import Image

from batchgen import Batch
from batchgen.ledger.writer import LedgerWriter
from tests.support import rig, wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and Linux's units")

MIB: Final = 1024


PEAK = """
import atexit, sys
from pathlib import Path

def report():
    peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
    Path(sys.argv[0]).write_text(peak)

sys.argv = sys.argv[1:]
atexit.register(report)
from batchgen.cli.main import main
main()
"""


def peak_kib(arguments: Sequence[str | Path], cwd: Path) -> int:
    """Run a command to success, and return its maximum memory in KiB.

    In a process of its own: what `wait4` reports of a child includes the process that it was forked
    from.
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux to measure the peak of a process")
    peak = cwd / "peak"
    subprocess.run(
        [sys.executable, "-c", PEAK, str(peak), *map(str, arguments)],
        cwd=cwd,
        env=rig.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return int(peak.read_text())


def rows(directory: Path, base_url: str, count: int, more: str = "") -> Path:
    """Write a manifest with this many rows."""
    with (directory / "rows.csv").open("w", encoding="utf-8") as table:
        table.write("id,title\n")
        table.writelines(f"{number},mug number {number}\n" for number in range(count))
    path = directory / "batch.yaml"
    path.write_text(
        f"provider: {{name: local, base_url: {base_url!r}}}\nrows: rows.csv\n"
        f"prompt: 'A photo of {{{{ title }}}}'\noptions: {{size: 1024x640}}\n{more}",
        encoding="utf-8",
    )
    return path


# Memory


@pytest.mark.fault("R03")
def test_a_hundred_thousand_jobs_need_150_mib(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rows(tmp_path, served.base_url, 100_000, "limits: {concurrency: 64}\n")
    assert peak_kib(["plan", path], tmp_path) < 150 * MIB
    assert peak_kib(["run", path, "--limit", "200", "--quiet"], tmp_path) < 150 * MIB
    jobs = rig.status(tmp_path)["jobs"]
    assert (jobs["done"], jobs["pending"]) == (200, 99_800)


@pytest.mark.anyio
@pytest.mark.fault("R05")
async def test_sixteen_responses_of_32_mib_at_a_time_need_400_mib(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.frombytes("RGB", (2896, 2896), os.urandom(2896 * 2896 * 3)).save(
        image, "PNG", compress_level=0
    )
    body = json.dumps({"data": [{"b64_json": base64.b64encode(image.getvalue()).decode()}]})
    assert len(body) > 32 << 20
    response = wire.response(body.encode(), Content_Type="application/json")
    waiting: list[asyncio.Event] = []

    async def together(connection: wire.Connection, server: wire.Server) -> None:
        """All responses are sent once the last request has arrived."""
        request = await wire.receive(connection, server)
        if not request.body:
            await connection.send(wire.response(b"", "404 No"))
            return
        waiting.append(asyncio.Event())
        if len(waiting) == 16:
            for event in waiting:
                event.set()
        await waiting[-1].wait()
        for start in range(0, len(response), 1 << 20):
            await connection.send(response[start : start + (1 << 20)])

    async with wire.serve(together) as server:
        path = rig.manifest(
            tmp_path, f"{server.url}/v1", ["a mug"] * 16, limits="{concurrency: 16}"
        )
        peak = await anyio.to_thread.run_sync(lambda: peak_kib(["run", path, "--quiet"], tmp_path))
    assert peak < 400 * MIB
    assert rig.status(tmp_path)["jobs"]["done"] == 16
    for file in (tmp_path / "out/batch").iterdir():
        file.unlink()


def held_by(process: int) -> tuple[int, int]:
    """Resident memory in KiB and open files of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    files = len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208  # the count is wanted
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024, files


@pytest.mark.fault("R09")
@pytest.mark.parametrize("images", [800, pytest.param(10_000, marks=pytest.mark.sweep)])
@pytest.mark.timeout(1800)
def test_memory_and_open_files_do_not_grow_with_the_images(
    images: int, served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    path = rows(tmp_path, served.base_url, images, "limits: {concurrency: 8}\n")
    with rig.start("run", path, "--json", cwd=tmp_path) as process:
        seen = [
            held_by(process.pid)
            for event in rig.events(process)
            if event.get("event") == "job_done"
        ]
    assert process.returncode == 0
    rig.judge(tmp_path, served.bill()[before:], finished=True)
    quarter = len(seen) // 4
    early, late = seen[quarter : 2 * quarter], seen[-quarter:]
    growth = max(kib for kib, _ in late) - max(kib for kib, _ in early)
    assert growth < MIB * max(4, images // 1000)
    assert max(files for _, files in late) <= max(files for _, files in early) + 8


# Threads and the loop


@pytest.mark.anyio
@pytest.mark.fault("R07")
async def test_ledger_is_written_while_all_threads_are_busy(
    tmp_path: Path,
) -> None:
    free = threading.Event()

    async def occupy() -> None:
        await anyio.to_thread.run_sync(free.wait)

    limiter = anyio.to_thread.current_default_thread_limiter()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with LedgerWriter(tmp_path / "batchgen.db") as ledger, anyio.create_task_group() as busy:
        for _ in range(int(limiter.total_tokens) + 1):
            busy.start_soon(occupy)
        asyncio.get_running_loop().run_in_executor(None, free.wait)
        await anyio.wait_all_tasks_blocked()
        try:
            with anyio.fail_after(20):
                assert await ledger.run(lambda ledger: ledger.conn.total_changes) >= 0
        finally:
            free.set()


WATCHED: Final = """
import asyncio, sys

BLOCKING = {
    "open", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.scandir", "os.truncate",
    "shutil.rmtree", "socket.getaddrinfo", "socket.gethostbyname", "sqlite3.connect",
    "subprocess.Popen", "time.sleep",
}
found = set()

def watch(event, arguments):
    if event not in BLOCKING or asyncio._get_running_loop() is None:
        return
    frame, ours = sys._getframe(1), None
    while frame is not None:
        name = frame.f_code.co_filename
        if "importlib" in name:
            return  # a module that is needed for the first time
        if ours is None and "/batchgen/" in name:
            ours = f"{event}{arguments[:1]!r} at {name}:{frame.f_lineno}"
        frame = frame.f_back
    found.add(ours or f"{event}{arguments[:1]!r} at somewhere else")

from batchgen.cli.main import main
sys.addaudithook(watch)
code = main(sys.argv[1:])
print(*sorted(found), sep="\\n")
raise SystemExit(code)
"""


@pytest.mark.fault("R10")
def test_nothing_on_the_event_loop_waits_for_the_disk(served: rig.Endpoint, tmp_path: Path) -> None:
    prompts = [f"image {number}" for number in range(6)] + ["forbidden-word"]
    path = rig.manifest(
        tmp_path, served.base_url, prompts, extra="output: {sidecar: true, metadata: true}\n"
    )

    def watched(script: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", script, "run", str(path), "--quiet"],
            cwd=tmp_path,
            env=rig.environment(),
            capture_output=True,
            text=True,
            timeout=rig.TIMEOUT_S,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return [line for line in done.stdout.splitlines() if " at " in line]

    assert watched(WATCHED) == []
    rig.manifest(tmp_path, served.base_url, ["another"])
    blocking = "import batchgen.engine.throttle.throttle as t; s = t.Throttle.start\n"
    blocking += "def start(*a): open('/dev/null').close(); return s(*a)\n"
    assert watched(blocking + "t.Throttle.start = start\n" + WATCHED) != []


@pytest.mark.fault("R12")
def test_a_fifth_of_a_processor_makes_no_deadline_pass(tmp_path: Path) -> None:
    switches = ("--fast-images", "--latency", "0.2")
    with rig.endpoint(tmp_path / "state", *switches) as slow:
        path = rig.manifest(
            tmp_path,
            slow.base_url,
            [f"image {number}" for number in range(24)],
            limits='{concurrency: 8, deadline: 3, max_waste: "0"}',
        )
        with rig.start("run", path, "--quiet", cwd=tmp_path) as process:
            while process.poll() is None:
                process.send_signal(signal.SIGSTOP)
                time.sleep(0.08)
                process.send_signal(signal.SIGCONT)
                time.sleep(0.02)
            out, errors = process.communicate()
        assert process.returncode == 0, out + errors
        rig.judge(tmp_path, slow.bill(), finished=True)
        assert len(slow.bill()) == 24


@pytest.mark.anyio
@pytest.mark.sweep
@pytest.mark.timeout(1800)
@pytest.mark.fault("R04")
async def test_how_long_the_event_loop_is_kept_by_4k_images(tmp_path: Path) -> None:
    """A figure to be read, not a limit: run it on a machine that does nothing else, with -s."""
    every_s = 0.005
    late: list[float] = []

    async def look() -> None:
        while True:
            start = time.perf_counter()
            await anyio.sleep(every_s)
            late.append(time.perf_counter() - start - every_s)

    with rig.endpoint(tmp_path / "state") as endpoint:
        options = "{size: 3840x2160, output_format: png}"
        path = rig.manifest(
            tmp_path,
            endpoint.base_url,
            [f"image {number}" for number in range(160)],
            limits="{concurrency: 16}",
            options=options,
        )
        async with Batch(path) as batch, anyio.create_task_group() as looking:
            looking.start_soon(look)
            made = [result async for result in batch]
            looking.cancel_scope.cancel()
    late.sort()
    p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
    print(
        f"\nloop lag of {len(made)} images of 3840x2160, 16 in flight:"
        f" p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, most {late[-1] * 1000:.1f} ms"
    )
    assert len(made) == 160
