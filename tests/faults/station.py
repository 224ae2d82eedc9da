"""Starts batchgen thousands of times: a process that has it imported already forks for each run.

``Station`` is the side of the tests, ``serve`` the process.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.tracer import End, Plan, Refused, run, trace
from tests.support import rig

COUNTED_FROM = "batchgen.db"
"""The lock and the ledger: what comes before them changes nothing."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that is over."""

    end: End
    plan: Plan | None
    output: str


@dataclass(frozen=True, slots=True)
class _Order:
    arguments: list[str]
    directory: Path
    env: Mapping[str, str]
    plan: Plan | None
    naive: bool


class Station:
    """Hands orders to the process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def run(
        self,
        *arguments: str | Path,
        cwd: Path,
        plan: Plan | None = None,
        env: Mapping[str, str] | None = None,
        naive: bool = False,
    ) -> Ended:
        """Run a command in a fork, traced if there is a plan.

        Raises Refused if tracing is not allowed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = _Order([str(one) for one in arguments], cwd, env or {}, plan, naive)
        pickle.dump(order, self._process.stdin)
        self._process.stdin.flush()
        end = pickle.load(self._process.stdout)
        if isinstance(end, Refused):
            raise end
        assert isinstance(end, Ended)
        return end


@contextmanager
def station() -> Iterator[Station]:
    """Start the process; it ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-c", "from tests.faults.station import serve; serve()"],
        cwd=Path(__file__).parents[2],
        env=rig.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield Station(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(rig.TIMEOUT_S)


def serve() -> None:
    """Take orders from stdin until it ends."""
    orders, responses = sys.stdin.buffer, sys.stdout.buffer
    _warm_up()
    while True:
        try:
            order: _Order = pickle.load(orders)
        except EOFError:
            return
        response: Ended | Refused
        log = order.directory.with_name(order.directory.name + ".log")
        try:
            end = _run(order, log)
            response = Ended(end, order.plan, log.read_text("utf-8", "replace"))
        except Refused as exc:
            response = exc
        pickle.dump(response, responses)
        responses.flush()


def _run(order: _Order, log: Path) -> End:
    def program() -> int:
        return _child(order, log)

    if order.plan is None:
        return run(program)
    return trace(program, order.plan, counted_from=COUNTED_FROM)


def _child(order: _Order, log: Path) -> int:
    from batchgen.cli.main import main
    from tests.faults.naive import naive

    os.setsid()
    os.chdir(order.directory)
    os.environ.update(order.env)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for handle in (1, 2):
        os.dup2(output, handle)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = (naive if order.naive else main)(order.arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code)


def _warm_up() -> None:
    """Import what a run imports, so that no fork has to."""
    import importlib

    for name in _IMPORTED:
        importlib.import_module(name)


_IMPORTED = (
    "batchgen.commands.run",
    "httptools",
    "httpx",
    "httpcore",
    "anyio._backends._asyncio",
    "sqlite_utils",
    "batchgen.engine.delivery",
    "tests.faults.naive",
)
