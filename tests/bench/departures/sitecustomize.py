"""Log when each request of a batchgen process departs: set ``DEPARTURES`` to a file prefix.

On the path of every process that the rate benchmarks start. The times are taken after the throttle,
or the gate of an actor, has let a request go, just before its first byte is written.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TextIO

_WAITS = {
    "batchgen.engine.throttle.throttle": ("Throttle", "wait_to_send"),
    "batchgen.cluster.gate": ("Gate", "wait"),
}
"""Modules, and the class and method that returns when a request departs."""
_files: list[TextIO] = []


class _Finder(importlib.abc.MetaPathFinder):
    """Wraps the methods when their modules are imported."""

    def __init__(self) -> None:
        self._is_busy = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _WAITS or self._is_busy:
            return None
        self._is_busy = True
        spec = importlib.util.find_spec(name)
        self._is_busy = False
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            kind, method = _WAITS[name]
            wait = getattr(getattr(module, kind), method)

            async def wait_and_log(*arguments: object) -> float | None:
                left_s: float | None = await wait(*arguments)
                _log(time.time() + (left_s or 0.0))
                return left_s

            setattr(getattr(module, kind), method, wait_and_log)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _log(at: float) -> None:
    # Line by line: Ray ends an actor without notice.
    if not _files:
        path = Path(f"{os.environ['DEPARTURES']}{os.getpid()}")
        _files.append(path.open("a", buffering=1))
    _files[0].write(f"{at!r}\n")


if os.environ.get("DEPARTURES"):
    sys.meta_path.insert(0, _Finder())
