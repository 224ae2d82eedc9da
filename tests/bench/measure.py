"""Run a client as a whole process on one core, and return what it took."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CORES: Final = sorted(os.sched_getaffinity(0))
CLIENT_CORE: Final = _CORES[0]
SERVER_CORE: Final = _CORES[-1]
"""Servers and the suite itself."""
TRACE: Final = ("strace", "-f", "-qq", "--seccomp-bpf")
"""Stops a process only at the system calls that are named after it."""
BOTH_CORES: Final = (CLIENT_CORE, SERVER_CORE)
_OPEN_FILES: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process took from its start to its end."""

    began_at: float
    """Seconds since 1970."""
    wall_s: float
    cpu_s: float
    peak_mb: float
    switches: int
    """Context switches, voluntary or not."""

    @property
    def ended_at(self) -> float:
        """Seconds since 1970."""
        return self.began_at + self.wall_s


class Failed(Exception):
    """A client ended with another code than 0, or did not do its work."""


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def on_core(*cores: int) -> Callable[[], None]:
    """Return what a child does before it becomes its program: stay on cores, open many files."""

    def prepare() -> None:
        os.sched_setaffinity(0, cores)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

    return prepare


def measure(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout_s: float = 600.0,
    until: Callable[[], bool] | None = None,
    cores: Sequence[int] = (CLIENT_CORE,),
) -> Usage:
    """Run a command to its end, or until something holds, and then kill it. Raises Failed."""
    log = cwd / "client.log"
    with log.open("wb") as output:
        began_at = time.time()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=on_core(*cores),
        )
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(process.pid, timeout_s, until, over))
    watch.start()
    try:
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.time() - began_at
    finally:
        over.set()
        watch.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    wanted = 0 if until is None else -signal.SIGKILL
    if process.returncode not in (0, wanted):
        tail = log.read_text(errors="replace")[-2_000:]
        raise Failed(f"exit {process.returncode} after {wall_s:.1f} s: {command}\n{tail}")
    return Usage(
        began_at=began_at,
        wall_s=wall_s,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_mb=used.ru_maxrss / 1024,
        switches=used.ru_nvcsw + used.ru_nivcsw,
    )


def _watch(
    pid: int, timeout_s: float, until: Callable[[], bool] | None, over: threading.Event
) -> None:
    give_up = time.monotonic() + timeout_s
    while not over.wait(0.02 if until else max(0.0, give_up - time.monotonic())):
        if time.monotonic() >= give_up or (until is not None and until()):
            os.kill(pid, signal.SIGKILL)
            return
