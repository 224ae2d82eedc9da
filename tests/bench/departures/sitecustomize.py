"""Log when each request of a batchgen process departs: set ``DEPARTURES`` to a file prefix.

On the path of every process that the rate benchmark starts. The times are taken after the throttle
has let a request go, just before its first byte is written.
"""

from __future__ import annotations

import atexit
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

_TARGET = "batchgen.engine.throttle.throttle"
_times: list[float] = []


class _Finder(importlib.abc.MetaPathFinder):
    """Wraps `Throttle.wait_to_send` when its module is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            wait = module.Throttle.wait_to_send

            async def wait_and_log(throttle: object, ticket: object) -> None:
                await wait(throttle, ticket)
                _times.append(time.time())

            module.Throttle.wait_to_send = wait_and_log

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _write(prefix: str) -> None:
    if _times:
        Path(f"{prefix}{os.getpid()}").write_text("\n".join(map(repr, _times)))


if prefix := os.environ.get("DEPARTURES"):
    sys.meta_path.insert(0, _Finder())
    atexit.register(_write, prefix)
