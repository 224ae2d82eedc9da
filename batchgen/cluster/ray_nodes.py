"""The only module that knows Ray: connect, start actors, call them.

Actors are started with ``max_restarts=0`` and ``max_task_retries=0``, so that Ray never repeats a
call: a call may cost money. Ray tasks are not used, as they are repeated by default
(https://docs.ray.io/en/latest/ray-core/fault_tolerance/tasks.html).
"""

from __future__ import annotations

import logging
import pickle
import socket
from contextlib import suppress
from functools import cache
from typing import Any, Final

from batchgen.cluster.actor import Actor, BuildParts
from batchgen.cluster.messages import ActorSettings, Greeting
from batchgen.errors import SettingsError

_LOCAL: Final = "local"
_CLIENT: Final = "ray://"
_CONNECT_S: Final = 20.0
_GREET_S: Final = 120.0
"""A node may have to start a Python process and to import batchgen first."""
_CLOSE_S: Final = 5.0
_LOOK_S: Final = 5.0
_START_TRIES: Final = 3
_CALLS_AT_ONCE: Final = 4096
"""Of one actor; the driver gives fewer orders."""
_PICKLED: Final = 5
_STORE_BYTES: Final = 100 << 20
"""Object store of a local cluster. Messages are small, and Ray keeps those out of it."""


class ActorProcess(Actor):
    """An actor as Ray calls it.

    Ray would pickle arguments and results in Python, and results on a thread of its own that
    competes with the event loop. It passes bytes on as they are.
    """

    def is_node_leaving(self) -> bool:
        """Return whether Ray drains the node, as before a spot machine is taken away; blocks.

        Ray's own Serve learns of it in the same way, through a method that is not public.
        """
        import ray

        context = ray.get_runtime_context()
        draining = _gcs_client(context.gcs_address).get_draining_nodes(timeout=_LOOK_S)
        return context.get_node_id() in draining

    async def call(self, packed: bytes) -> bytes:
        """Call a method of the actor: its name and its arguments."""
        method, *args = pickle.loads(packed)
        return pickle.dumps(await getattr(self, method)(*args), _PICKLED)


@cache
def _gcs_client(gcs: str) -> Any:
    from ray._raylet import GcsClient

    return GcsClient(gcs)


def _packed(method: str, *args: object) -> bytes:
    return pickle.dumps((method, *args), _PICKLED)


class RayNodes:
    """The nodes of a Ray cluster, with the actors of one driver."""

    def __init__(self, where: str) -> None:
        """Connect; an empty ``where`` starts a cluster on this machine. Raises SettingsError."""
        try:
            import ray
        except ImportError:
            raise SettingsError(
                "--on ray: needs Ray, which is not installed; expected batchgen[ray,cloud], such as"
                " `pip install 'PATH_OR_WHEEL[ray,cloud]'`; nothing was sent"
            ) from None
        self._ray: Any = ray
        _silence(ray)
        self._handles: list[Any] = []
        if where:
            _check_reachable(where)
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if not where:
            options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        try:
            ray.init(where or _LOCAL, **options)
        except Exception as exc:  # of many kinds, one for each part of Ray
            raise SettingsError(
                f"--on ray: no connection to {where or 'a cluster on this machine'}:"
                f" {_first_line(exc)}; nothing was sent"
            ) from None

    @property
    def count(self) -> int:
        """The number of nodes that are alive."""
        return sum(bool(node["Alive"]) for node in self._ray.nodes())

    def start(self, settings: ActorSettings, build: BuildParts) -> Any:
        """Start an actor and return its handle; it may not run yet."""
        actor = self._ray.remote(ActorProcess).options(
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=_CALLS_AT_ONCE,
            num_cpus=0,
            enable_task_events=False,
            scheduling_strategy="SPREAD",
        )
        handle = actor.remote(settings, build)
        self._handles.append(handle)
        return handle

    def start_all(
        self, settings: list[ActorSettings], build: BuildParts, nonce: bytes
    ) -> list[tuple[Any, Greeting]]:
        """Start actors and return them with their greetings.

        One whose node vanishes meanwhile is started again: no order was given. Raises
        SettingsError if one does not run.
        """
        found: list[tuple[Any, Greeting]] = []
        left, failed = settings, ""
        for _ in range(_START_TRIES):
            handles = [self.start(one, build) for one in left]
            asked = [handle.call.remote(_packed("greet", nonce)) for handle in handles]
            self._ray.wait(asked, num_returns=len(asked), timeout=_GREET_S)
            again = []
            for one, handle, reply in zip(left, handles, asked, strict=True):
                try:
                    found.append((handle, pickle.loads(self._ray.get(reply, timeout=0))))
                except Exception as exc:  # also of its machine, such as a missing package
                    failed = _first_line(exc)
                    again.append(one)
            left = again
            if not left:
                return found
        raise SettingsError(
            f"--on ray: an actor cannot start: {failed}; expected batchgen[ray,cloud] of the same"
            " version on every node; nothing was sent"
        )

    async def call(self, handle: Any, method: str, *args: object) -> Any:
        """Call a method of an actor. Raises an error that `is_lost` classifies."""
        return pickle.loads(await handle.call.remote(_packed(method, *args)))

    def is_lost(self, error: BaseException) -> bool:
        """Return whether an error says that the actor, its node or the cluster is gone."""
        exceptions = self._ray.exceptions
        if isinstance(error, exceptions.RayTaskError):
            return False
        return isinstance(error, exceptions.RayError | ConnectionError)

    def disconnect(self) -> None:
        """End the actors and leave the cluster; one on this machine ends."""
        closing = [handle.close.remote() for handle in self._handles]
        if closing:
            with suppress(Exception):  # an actor that is lost leaves its files to its machine
                self._ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)
        for handle in self._handles:
            self._ray.kill(handle)
        self._handles.clear()
        self._ray.shutdown()


def _check_reachable(where: str) -> None:
    """Refuse a host that accepts no connection: Ray tries for minutes. Raises SettingsError."""
    host, _, port = where.removeprefix(_CLIENT).partition("/")[0].rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as exc:
        raise SettingsError(
            f"--on ray: no connection to {where}: {exc}; expected HOST:PORT of a running Ray"
            " cluster; nothing was sent"
        ) from None


def _silence(ray: Any) -> None:
    """Keep Ray from printing the state of other processes to stdout, which has our results.

    No option does: ``log_to_driver`` concerns what actors print.
    """
    worker = ray._private.worker
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_arguments, **_options: None


def _first_line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[-1] if len(lines) > 3 else " ".join(lines[:1]))[:300] or type(exc).__name__
