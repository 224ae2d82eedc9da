"""The public Python API: a batch as a context manager, its results as an iterator.

It uses the plan, the ledger and the engine of `batchgen run`. It prints nothing and handles no
signals. It needs asyncio's event loop (uvloop is one); under trio, entering a batch raises
SettingsError.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from batchgen.engine.events import AttemptEnded, JobDone, JobHeld, RunEvent
from batchgen.engine.throttle.limits import DispatchStatus
from batchgen.errors import ExitCode, SettingsError, one_error
from batchgen.job import JobState
from batchgen.ledger.batch_status import BatchStatus
from batchgen.ledger.batch_status import status as read_status
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.key_patterns import Only
from batchgen.money import ZERO, Micros
from batchgen.session.batch_lock import batch_lock
from batchgen.session.bucket_ledger import refuse_bucket_ledger
from batchgen.session.event_log import log_event
from batchgen.session.fresh_prices import PriceLists
from batchgen.session.overrides import Overrides
from batchgen.session.plan_and_enroll import begin, validate
from batchgen.session.prepare import RunSpec, prepare
from batchgen.session.presenter import SilentPresenter
from batchgen.session.reference_downloads import ReferenceImages
from batchgen.session.run_engine import RunResult, drive, endpoint
from batchgen.system.os_errors import stop_reason_of
from batchgen.system.shutdown import Shutdown
from batchgen.urls import is_bucket

_STOPPED: Final = "stopped by its program"
_HELD: Final = (JobState.FAILED, JobState.BLOCKED, JobState.UNCERTAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The state of one job at its end in this run."""

    key: str
    """The job's key, as in the manifest or as the plan made it."""
    state: JobState
    """``done``; ``paid`` if only the download is left for the next run; or ``failed``,
    ``blocked`` or ``uncertain``, which wait for a decision.
    """
    paths: tuple[Path, ...] = ()
    """The verified images of a done job under their final names; else empty."""
    urls: tuple[str, ...] = ()
    """The images of a done job that are in buckets, such as ``s3://BUCKET/PREFIX/mug.png``."""
    reason: str = ""
    """Why the job is not done, as ``code: message``; empty for a done job."""
    warnings: tuple[str, ...] = ()
    """How the images differ from what the job requested, such as another size."""


def _need_asyncio() -> None:
    """Raise SettingsError unless the caller is a task of asyncio."""
    with suppress(RuntimeError):  # no event loop of asyncio is running
        if asyncio.current_task() is not None:
            return
    raise SettingsError(
        "Batch: no asyncio event loop runs this task; expected asyncio: start the program with"
        ' asyncio.run(main()) or anyio.run(main, backend="asyncio")'
    )


async def _in_thread(function: Callable[..., object], *args: object) -> None:
    """Call a function in a thread and wait for its end, even if the task is cancelled.

    A shield of AnyIO does not hold off asyncio's own ``task.cancel()``, which would leave the
    function running while the task continues. A task group waits for its child; the cancellation is
    raised after that.
    """

    async def call() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(function, *args)

    try:
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
        return
    except BaseException as exc:
        error = one_error(exc)
    raise error


class Batch:
    """A batch that is planned on entering and run by iterating.

    ``async with Batch("catalog.yaml", max_cost="5") as batch: async for result in batch: ...``

    Entering reads the manifest, plans, and enrolls the jobs in the ledger; it sends no request.
    Iterating sends requests. Leaving early lets requests in flight finish, as the first Ctrl-C
    does. A cancellation does not wait for them: they become ``uncertain``. In both cases the ledger
    has the end of the run.

    Args:
        manifest: path of the manifest.
        ledger: path of the SQLite file; None for the one that `batchgen run` would use.
        max_cost: budget of this run in dollars, as "5" or "0.50"; None for the manifest's.
        max_waste: dollars or a share ("5%") for rebuying; None for the manifest's.
        concurrency: requests in flight at most; None for the manifest's.
        limit: pending jobs to take up at most; None for all.
        only: a key or pattern, or several, of the jobs to take up; empty for all.
        yes: pay prices that have risen, and go as far as the budget reaches.
        accept_unknown_price: send requests whose price is not known.
        adopt: continue a batch whose ledger entry names a manifest at another path, for example
            after the manifest was moved. Its images stay with the batch.
        take_over: continue a batch whose last run was on another host or container. Set it only if
            you know that this run is dead: two live runs could pay for the same image twice.

    Several batches of one ledger can be open at a time; one batch only once.

    Entering raises ManifestError, SettingsError (a wrong setting, or no asyncio event loop),
    LedgerError, StoppedError (the estimate is over a budget, prices have risen, or `stop` was
    called) and BatchLockedError. An error in the run is one exception, never an ExceptionGroup, and
    is raised once: by the iterator after the results that came before it, or by leaving the block
    where the program does not iterate that far. Other errors of the same moment are in its
    ``__notes__``. If the block is left by an exception of the program, that one is raised with the
    run's as a note.
    Failed, blocked and uncertain jobs are results and no errors.
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
        only: str | Iterable[str] = (),
        yes: bool = False,
        accept_unknown_price: bool = False,
        adopt: bool = False,
        take_over: bool = False,
    ) -> None:
        self._manifest = Path(manifest)
        self._overrides = Overrides(
            db=Path(ledger) if ledger is not None else None,
            max_cost=max_cost,
            max_waste=max_waste,
            concurrency=concurrency,
            limit=limit,
            only=Only.of([only] if isinstance(only, str) else only),
            yes=yes,
            accept_unknown_price=accept_unknown_price,
            adopt=adopt,
            take_over=take_over,
        )
        self._presenter = SilentPresenter()
        self.notices = self._presenter.notices
        """Warnings and notices of the plan, as `batchgen run` prints them."""
        self.stopped: str | None = None
        """Why the run ended before every job was requested; None if it did not, or still runs."""
        self.exit_code: ExitCode | None = None
        """The exit code that `batchgen run` would have; None until the run has ended."""
        self._entered = False
        self._started = False
        self._error: BaseException | None = None
        self._ending: str | None = None

    async def __aenter__(self) -> Self:
        _need_asyncio()
        await anyio.lowlevel.checkpoint()
        held = ExitStack()
        try:
            await _in_thread(self._open, held)
        except BaseException:
            await _in_thread(held.close)
            raise
        self._held = held
        self._tasks = await anyio.create_task_group().__aenter__()
        self._entered = True
        return self

    def _open(self, held: ExitStack) -> None:
        flags = self._overrides
        refuse_bucket_ledger(self._manifest, flags.db, "batchgen.Batch")
        spec = RunSpec.of(prepare(self._manifest, flags.db), flags)
        validate(spec)
        ledger = spec.prepared.ledger
        held.enter_context(batch_lock(ledger, spec.name, take_over=flags.take_over))
        images = ReferenceImages(self._presenter)
        self._run = begin(spec, self._presenter, PriceLists(), images, write_run=False)
        self._base_url = held.enter_context(endpoint(self._run.spec.prepared))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered = False
        if self._started and self.exit_code is None:
            self._results.end("left by its program")
        raised = exc
        try:
            await self._leave(exc_type, exc, traceback)
        except BaseException as cancelled:
            raised = cancelled
            raise
        finally:
            error = self._take_error()
            if error is not None and raised is not None:
                raised.add_note(f"the run failed, too: {type(error).__name__}: {error}")
        if error is not None and raised is None:
            raise error

    async def _leave(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if isinstance(exc, anyio.get_cancelled_exc_class()):
                await self._tasks.__aexit__(exc_type, exc, traceback)
            else:
                # An error in the program must not cut off paid requests.
                await self._tasks.__aexit__(None, None, None)
        finally:
            if self._started:
                self._received.close()
            await _in_thread(self._held.close)

    @property
    def name(self) -> str:
        """The batch's name in the ledger; known after entering, like what follows."""
        return self._run.name

    @property
    def to_do(self) -> int:
        """Jobs to request, to recover or to download."""
        return self._run.to_do

    @property
    def estimate(self) -> Micros:
        """Expected cost of the requests to send, in millionths of a dollar."""
        return self._run.estimate if self._run.to_do else ZERO

    def __aiter__(self) -> AsyncIterator[Result]:
        """Begin to send, and give the result of each job, in the order in which they are known.

        An error in the run is raised after the results that came before it. A batch runs once:
        iterating a second time, or outside of the `async with` block, raises RuntimeError.
        """
        if self._started:
            raise RuntimeError("this batch has run already; make another Batch for another run")
        if not self._entered:
            raise RuntimeError("this batch is not open; iterate inside `async with Batch(...)`")
        self._started = True
        send, self._received = anyio.create_memory_object_stream[Result](math.inf)
        self._results = _Results(send, self._run.spec.prepared.base, self.name)
        self._tasks.start_soon(self._run_to_end)
        return _Iterator(self._received, self._take_error)

    def _take_error(self) -> BaseException | None:
        """Return the error that ended the run, the first time."""
        error, self._error = self._error, None
        return error

    async def _run_to_end(self) -> None:
        with self._results:
            try:
                await self._drive()
            except BaseException as exc:
                error = one_error(exc)
                self.stopped, self.exit_code = stop_reason_of(error)
                if not isinstance(error, Exception):
                    raise
                self._error = error

    async def _drive(self) -> None:
        run = self._run
        if self._ending is not None:
            self.stopped, self.exit_code = self._ending, ExitCode.STOPPED
            return
        if not run.to_do:
            self.exit_code = RunResult(at_fault=run.at_fault).exit_code(self.status())
            return
        result = await drive(run, self._results, self._base_url, embedder=self._results)
        self.stopped = result.stopped
        self.exit_code = result.exit_code(self.status())

    def stop(self) -> None:
        """Start no more requests and let those in flight finish; iteration ends after them.

        Call it in the thread of the event loop. While the batch is entered, entering raises
        StoppedError as soon as the plan allows; before iterating, iteration ends without a request.
        Has no effect after the run has ended.
        """
        if not self._started:
            self._ending = _STOPPED
            self._presenter.refuse(f"{self._manifest.name}: {_STOPPED}")
        elif self.exit_code is None:
            self._results.end(_STOPPED)

    def status(self) -> BatchStatus:
        """Return jobs by state, images, and money in millionths of a dollar, as of now.

        Can be called after entering, and after leaving too. Raises LedgerError.
        """
        conn = open_for_reading(self._run.spec.prepared.ledger, checked=True)
        try:
            return read_status(conn, self.name)
        finally:
            conn.close()


class _Iterator:
    """The results of a run, and the error that ended it, if any."""

    def __init__(
        self,
        received: MemoryObjectReceiveStream[Result],
        take_error: Callable[[], BaseException | None],
    ) -> None:
        self._received = received
        self._take_error = take_error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        with suppress(anyio.EndOfStream):
            return await self._received.receive()
        error = self._take_error()
        raise StopAsyncIteration if error is None else error


class _Results:
    """Passes the results of a run to an iterator."""

    def __init__(self, send: MemoryObjectSendStream[Result], base: Path, name: str) -> None:
        self._send = send
        self._name = name
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
        """Start no more requests and let those in flight finish."""
        self._ending = reason
        if self._shutdown is not None and not self._shutdown.asked:
            self._shutdown.begin(reason)

    def observe(self, event: RunEvent) -> None:
        log_event(self._name, event)
        match event:
            case JobDone(key=key, paths=paths, warnings=warnings):
                self._give(
                    Result(
                        key=key,
                        state=JobState.DONE,
                        paths=tuple(self._base / path for path in paths if not is_bucket(path)),
                        urls=tuple(filter(is_bucket, paths)),
                        warnings=warnings,
                    )
                )
            case JobHeld(key=key, state=state, reason=reason) if state is not JobState.PENDING:
                self._give(Result(key=key, state=state, reason=reason))
            case AttemptEnded(key=key, state=state, code=code, message=message) if state in _HELD:
                self._give(Result(key=key, state=state, reason=f"{code}: {message}"))

    def _give(self, result: Result) -> None:
        try:
            self._send.send_nowait(result)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the iterator was closed; the ledger has the result

    async def run(self, throttle: Callable[[], DispatchStatus]) -> None:
        await anyio.sleep_forever()

    def close(self) -> None:
        pass
