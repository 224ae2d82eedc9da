"""The public Python API: a batch as a context manager, its results as an iterator.

The same plan, ledger and engine as `batchgen run`; nothing is printed, and signals are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from batchgen.commands.begin import Faces, begin, check, reference_images
from batchgen.commands.drive import drive, endpoint
from batchgen.commands.prepare import Overrides, Prepared, key_of, prepare
from batchgen.commands.pricing import PriceLists
from batchgen.errors import BatchLockedError, ExitCode
from batchgen.events import AttemptEnded, JobDone, JobHeld, RunEvent
from batchgen.job import JobState
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.queries import Status
from batchgen.ledger.queries import status as read_status
from batchgen.lock import batch_lock
from batchgen.money import ZERO, Micros
from batchgen.shutdown import Shutdown
from batchgen.throttle_limits import Status as ThrottleStatus

_HELD: Final = (JobState.FAILED, JobState.BLOCKED, JobState.UNCERTAIN)
_open_ledgers: set[Path] = set()
_opening = Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one job in this run."""

    key: str
    state: JobState
    """``done``, ``paid`` where only the download is left, or one of those that wait for you."""
    paths: tuple[Path, ...] = ()
    """The pictures, verified and under their final names."""
    reason: str = ""
    warnings: tuple[str, ...] = ()


@contextmanager
def _alone(prepared: Prepared) -> Iterator[None]:
    """Keep a second batch of this process from the ledger, whose locks are the process's."""
    ledger = prepared.ledger.resolve()
    with _opening:
        if ledger in _open_ledgers:
            raise BatchLockedError(prepared.loaded.name, ledger)
        _open_ledgers.add(ledger)
    try:
        yield
    finally:
        with _opening:
            _open_ledgers.discard(ledger)


class Batch:
    """A manifest's batch, planned on entering and run by iterating.

    ``async with Batch("catalog.yaml", max_cost="5") as batch: async for result in batch: ...``

    Entering reads the manifest, plans, and enrols the jobs in the ledger; nothing is sent.
    Iterating sends. Leaving early lets requests in flight finish, as the first Ctrl-C does.
    ``ledger`` is the SQLite file, else where `batchgen run` finds it. ``max_cost`` is in dollars,
    ``concurrency`` in requests, ``limit`` in jobs; ``yes`` pays prices that have risen and goes as
    far as the budget reaches. A ledger can be open for one batch a process at a time.

    Raises ManifestError, SettingsError, StoppedError (over the budget) and BatchLockedError.
    """

    def __init__(
        self,
        manifest: str | PathLike[str],
        *,
        ledger: str | PathLike[str] | None = None,
        max_cost: str | None = None,
        max_waste: str | None = None,
        concurrency: int | None = None,
        limit: int | None = None,
        yes: bool = False,
        accept_unknown_price: bool = False,
    ) -> None:
        self._manifest = Path(manifest)
        self._overrides = Overrides(
            db=Path(ledger) if ledger is not None else None,
            max_cost=max_cost,
            max_waste=max_waste,
            concurrency=concurrency,
            limit=limit,
            yes=yes,
            accept_unknown_price=accept_unknown_price,
        )
        self.notices: list[str] = []
        """Warnings and notices of the plan, as `batchgen run` prints them."""
        self.stopped: str | None = None
        """Why dispatch stopped before everything was asked for; None where it did not."""
        self.exit_code: ExitCode | None = None
        """What `batchgen run` would exit with; known when the results have ended."""
        self._started = False

    async def __aenter__(self) -> Self:
        held = ExitStack()
        try:
            await anyio.to_thread.run_sync(self._open, held)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(held.close)
            raise
        self._held = held
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    def _open(self, held: ExitStack) -> None:
        overrides = self._overrides
        prepared = prepare(self._manifest, overrides.db)
        check(prepared, overrides)
        held.enter_context(_alone(prepared))
        held.enter_context(batch_lock(prepared.ledger, prepared.loaded.name))
        faces = Faces(quiet=True, tell=self.notices.append)
        self._prepared, self._start = begin(
            prepared, overrides, faces, PriceLists(), reference_images(faces)
        )
        self._base_url = held.enter_context(endpoint(self._prepared))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._started:
            self._results.end("left by its program")
        try:
            if isinstance(exc, anyio.get_cancelled_exc_class()):
                await self._tasks.__aexit__(exc_type, exc, traceback)
            else:
                # A fault of the program's own must not cut off requests that are paid for.
                await self._tasks.__aexit__(None, None, None)
        finally:
            if self._started:
                self._received.close()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._held.close)

    @property
    def name(self) -> str:
        """The batch's name in the ledger."""
        return self._prepared.loaded.name

    @property
    def to_do(self) -> int:
        """Jobs to ask for, to look after or to download."""
        return self._start.to_do

    @property
    def estimate(self) -> Micros:
        """What the requests to send are expected to cost, in millionths of a dollar."""
        return self._start.estimate if self._start.to_do else ZERO

    def __aiter__(self) -> MemoryObjectReceiveStream[Result]:
        """Begin to send, and give what becomes of each job, in the order in which that is known.

        A batch is run once: iterating again raises RuntimeError.
        """
        if self._started:
            raise RuntimeError("this batch is run already; open it anew")
        self._started = True
        send, receive = anyio.create_memory_object_stream[Result](math.inf)
        base = self._prepared.loaded.base
        self._results = _Results(send, base)
        self._received = receive
        self._tasks.start_soon(self._run)
        return receive

    async def _run(self) -> None:
        prepared, start = self._prepared, self._start
        with self._results:
            if start.to_do:
                key = key_of(prepared.profile, prepared.environment)
                outcome = await drive(
                    prepared,
                    start,
                    self._overrides,
                    self._results,
                    self._base_url,
                    key,
                    embedder=self._results,
                )
                self.stopped = outcome.stopped
                self.exit_code = outcome.exit_code(self.status())
            else:
                self.exit_code = ExitCode.DONE

    def status(self) -> Status:
        """Where the batch stands: jobs by state, pictures, and money in millionths of a dollar."""
        conn = open_for_reading(self._prepared.ledger)
        try:
            return read_status(conn, self.name)
        finally:
            conn.close()


class _Results:
    """A face of a run that hands its results to an iterator."""

    def __init__(self, send: MemoryObjectSendStream[Result], base: Path) -> None:
        self._send = send
        self._base = base
        self._shutdown: Shutdown | None = None
        self._ending: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._send.close()

    def take(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown
        if self._ending is not None:
            shutdown.begin(self._ending)

    def end(self, reason: str) -> None:
        """Let what is in flight finish, and start nothing new."""
        self._ending = reason
        if self._shutdown is not None and not self._shutdown.asked:
            self._shutdown.begin(reason)

    def observe(self, event: RunEvent) -> None:
        match event:
            case JobDone(key=key, paths=paths, warnings=warnings):
                found = tuple(self._base / path for path in paths)
                self._give(Result(key=key, state=JobState.DONE, paths=found, warnings=warnings))
            case JobHeld(key=key, state=state, reason=reason) if state is not JobState.PENDING:
                self._give(Result(key=key, state=state, reason=reason))
            case AttemptEnded(key=key, state=state, code=code, message=message) if state in _HELD:
                self._give(Result(key=key, state=state, reason=f"{code}: {message}"))

    def _give(self, result: Result) -> None:
        try:
            self._send.send_nowait(result)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # nobody listens any more; the ledger knows

    async def run(self, throttle: Callable[[], ThrottleStatus]) -> None:
        await anyio.sleep_forever()

    def close(self) -> None:
        pass
