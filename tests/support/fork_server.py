"""Starts batchgen and its local endpoint as forks of a process that has imported them already.

Each is a process of its own either way, with its own arguments, environment, directory,
standard streams and exit code. Only the imports are shared: they are most of what a short command
costs. ``BATCHGEN_TEST_EXEC=1`` starts each in a new interpreter, as a user does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import pickle
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

# As long as tests wait for any command: a busy machine may not give the process its turn.
_END_TIMEOUT_S = 100
_ROOT = Path(__file__).parents[2]
LOUD = str(Path(__file__).with_name("loud"))
"""What ``PYTHONPATH`` must be; its ``sitecustomize`` runs in the fork."""
_MOST_BYTES = 128 * 1024
"""Of one order: less than a packet of a socket may have."""
_READ_AT_START = ("PYTHON", "LC_", "LANG")
"""Variables that an interpreter reads once, when it starts."""


_PROGRAMS = {
    "batchgen": "batchgen.cli.main",
    "batchgen.simulator": "batchgen.simulator.__main__",
}
"""The module of each program's ``main``."""


@dataclass(frozen=True, slots=True)
class _Order:
    program: str
    arguments: list[str]
    directory: str
    env: dict[str, str]
    umask: int
    has_session: bool = False
    """Whether it leads a session and so a process group of its own."""


# The side of the tests


def is_wanted() -> bool:
    """Return whether programs are started this way here."""
    return hasattr(os, "pidfd_open") and "BATCHGEN_TEST_EXEC" not in os.environ


def can_fork(env: Mapping[str, str]) -> bool:
    """Return whether a fork would do what a new interpreter does with this environment."""
    if not is_wanted():
        return False
    return env.get("PYTHONPATH") == LOUD and all(
        env.get(name) == os.environ.get(name)
        for name in env.keys() | os.environ.keys()
        if name.startswith(_READ_AT_START) and name != "PYTHONPATH"
    )


def run(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end with its output captured, as `subprocess.run` does."""
    pipes = [os.pipe() for _ in range(3)]
    nothing = os.open(os.devnull, os.O_RDONLY)
    with ExitStack() as stack:
        for reader, _ in pipes:
            stack.callback(os.close, reader)
        order = _Order("batchgen", list(arguments), str(cwd), dict(env), _umask())
        _give(order, [nothing, *(end for _, end in pipes)])
        found = _read_to_end([reader for reader, _ in pipes], timeout_s)
    out, errors = (text.decode().replace("\r\n", "\n") for text in found[:2])
    return subprocess.CompletedProcess(list(arguments), int(found[2].split()[1]), out, errors)


class _Child:
    """A process that outlives the call, with the part of `subprocess.Popen` that tests use."""

    returncode: int | None = None

    def __init__(self, order: _Order, streams: Sequence[int]) -> None:
        """Start a program with these standard streams, which are closed here."""
        status, its_status = os.pipe()
        _give(order, [*streams, its_status])
        self._status = os.fdopen(status, "rb")
        self.pid = int(self._status.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.wait(_END_TIMEOUT_S)
        self._status.close()

    def poll(self) -> int | None:
        """Return the exit code if it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float = _END_TIMEOUT_S) -> int:
        """Return the exit code, negative for a signal. Raises TimeoutExpired after seconds."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._status, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(str(self.pid), timeout)
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Process(_Child):
    """A program with pipes as its stdin and stdout, in this environment and directory."""

    def __init__(self, program: str, arguments: Sequence[str]) -> None:
        (its_in, ours_in), (ours_out, its_out) = os.pipe(), os.pipe()
        order = _Order(program, list(arguments), str(Path.cwd()), dict(os.environ), _umask())
        super().__init__(order, [its_in, its_out, os.dup(2)])
        self.stdin = os.fdopen(ours_in, "wb", buffering=0)
        self.stdout = os.fdopen(ours_out, "rb")

    def __exit__(self, *error: object) -> None:
        self.stdin.close()
        super().__exit__()
        self.stdout.close()


class Command(_Child):
    """A command of batchgen in a session of its own, with a pipe as its stdout.

    Its stderr is another pipe, or that of the tests.
    """

    def __init__(
        self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], inherits_stderr: bool
    ) -> None:
        ours_out, its_out = os.pipe()
        ours_err, its_err = (None, os.dup(2)) if inherits_stderr else os.pipe()
        order = _Order("batchgen", list(arguments), str(cwd), dict(env), _umask(), has_session=True)
        super().__init__(order, [os.open(os.devnull, os.O_RDONLY), its_out, its_err])
        self.stdout = os.fdopen(ours_out, encoding="utf-8")
        self.stderr = None if ours_err is None else os.fdopen(ours_err, encoding="utf-8")

    def __exit__(self, *error: object) -> None:
        self.stdout.close()
        if self.stderr is not None:
            self.stderr.close()
        super().__exit__()

    def communicate(self, timeout: float = _END_TIMEOUT_S) -> tuple[str, str]:
        """Return what is left of its output, and wait for its end. Raises TimeoutExpired."""
        assert self.stderr is not None
        read, errors = self.stderr.read, list[str]()
        reader = threading.Thread(target=lambda: errors.append(read()), daemon=True)
        reader.start()
        watchdog = threading.Timer(timeout, self.kill)
        watchdog.start()
        output = self.stdout.read()
        reader.join()
        if not watchdog.is_alive():
            raise subprocess.TimeoutExpired(str(self.pid), timeout, output)
        watchdog.cancel()
        self.wait(timeout)
        self.stdout.close()
        self.stderr.close()
        return output, errors[0]


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _give(order: _Order, handles: Sequence[int]) -> None:
    """Send an order with its standard streams and the pipe of its status; close them here."""
    data = pickle.dumps(order)
    assert len(data) < _MOST_BYTES, "too many arguments"
    try:
        socket.send_fds(_server(), [data], handles)
    finally:
        for handle in handles:
            os.close(handle)


def _read_to_end(readers: Sequence[int], timeout_s: float) -> list[bytes]:
    """Return what came through the pipes; kill the process if it takes too long."""
    found = dict.fromkeys(readers, b"")
    until = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(until - time.monotonic())
            if not ready and not found[readers[2]]:  # the server has not begun it
                until += timeout_s
                continue
            if not ready:
                pid = int(found[readers[2]].split()[0])
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired("batchgen", timeout_s, found[readers[0]])
            for key, _ in ready:
                piece = os.read(key.fd, 1 << 16)
                found[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
    return list(found.values())


@cache
def _server() -> socket.socket:
    """Start the process, once in each worker; it ends with the worker."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-c", "from tests.support.fork_server import serve; serve()"],
            cwd=_ROOT,
            stdin=its.fileno(),
            stdout=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait(_END_TIMEOUT_S)

    atexit.register(end)
    return ours


# The process


def serve() -> None:
    """Take orders from stdin, a socket, until it is closed."""
    import batchgen.commands

    for module in pkgutil.iter_modules(batchgen.commands.__path__, "batchgen.commands."):
        importlib.import_module(module.name)
    for name in (
        "anyio._backends._asyncio",
        "httptools",
        "httpcore",
        "batchgen.simulator.server",
        *_PROGRAMS.values(),
    ):
        importlib.import_module(name)
    gc.freeze()  # collections of a fork would copy these pages, one by one
    with socket.socket(fileno=os.dup(0)) as control:
        order = _next_child(control)
    if order is not None:  # this is a child
        raise SystemExit(_main(order))


def _next_child(control: socket.socket) -> _Order | None:
    """Fork for each order. Return it in the child; return None in the server at its end."""
    running: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in running:
                    pid, status = running.pop(key.fd)
                    selector.unregister(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    _report(status, code)
                    os.close(status)
                    os.close(key.fd)
                    continue
                data, handles, _, _ = socket.recv_fds(control, _MOST_BYTES, 4)
                if not data:
                    return None
                pid = os.fork()
                if pid == 0:
                    for number, handle in enumerate(handles[:3]):
                        os.dup2(handle, number)
                    order: _Order = pickle.loads(data)
                    return order
                _report(handles[3], pid)
                for handle in handles[:3]:
                    os.close(handle)
                watched = os.pidfd_open(pid)
                running[watched] = (pid, handles[3])
                selector.register(watched, selectors.EVENT_READ)


def _report(status: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the test gave up the process
        os.write(status, f"{number}\n".encode())


def _main(order: _Order) -> int:
    """Become the program: nothing of the server but its imports may be left."""
    main = importlib.import_module(_PROGRAMS[order.program]).main
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    if order.has_session:
        os.setsid()
    # The streams of the server still hold facts of its own files, such as positions in them.
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        new = os.fdopen(number, old.mode, encoding=old.encoding, errors=old.errors, closefd=False)
        new.reconfigure(line_buffering=number == 2)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    os.umask(order.umask)
    os.chdir(order.directory)
    os.environ.clear()
    os.environ.update(order.env)
    sys.argv = [order.program, *order.arguments]
    runpy.run_path(str(Path(LOUD) / "sitecustomize.py"))
    code: int = main()
    return code
