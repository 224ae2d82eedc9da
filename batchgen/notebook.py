"""Run a batch without an event loop of one's own, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, Final, overload

import pybase64
from anyio.from_thread import BlockingPortal, start_blocking_portal

from batchgen.api import Batch, Result
from batchgen.errors import ExitCode
from batchgen.images.formats import BadImage
from batchgen.images.thumbnail import thumbnail_bytes
from batchgen.job import JobState
from batchgen.ledger.batch_status import BatchStatus
from batchgen.money import rounded_dollars
from batchgen.text import counted

_SHOWN: Final = 60
"""Images on a page of HTML; each is about 10 kB in the notebook's file."""
_SIDE: Final = 224
_CELL: Final = (
    '<figure style="display:inline-block;margin:4px;width:232px;vertical-align:top;'
    'font:12px sans-serif;overflow-wrap:anywhere">{image}<figcaption>{text}</figcaption></figure>'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResults(Sequence[Result]):
    """The results of a finished run, which a notebook shows as images."""

    name: str
    """The batch's name in the ledger."""
    results: tuple[Result, ...]
    """In the order in which they became known."""
    exit_code: ExitCode
    """The exit code that `batchgen run` would have."""
    stopped: str | None
    """Why the run ended before every job was requested; None if it did not."""
    notices: tuple[str, ...]
    """Warnings and notices of the plan."""
    status: BatchStatus
    """Jobs, images and money of the whole batch after the run."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All verified images of this run."""
        return tuple(path for result in self.results for path in result.paths)

    def __len__(self) -> int:
        return len(self.results)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Result]: ...
    def __getitem__(self, index: int | slice) -> Result | Sequence[Result]:
        return self.results[index]

    def _repr_html_(self) -> str:
        """Return the images and problems of the run, for a notebook."""
        cells = [_cell(result) for result in self.results[:_SHOWN]]
        if len(self) > _SHOWN:
            cells.append(f"<p>and {counted(len(self) - _SHOWN, 'more result')}</p>")
        return "\n".join([f"<p>{escape(self._summary())}</p>", *cells])

    def _summary(self) -> str:
        done = sum(result.state is JobState.DONE for result in self.results)
        text = f"{self.name}: {done:,} of {counted(len(self), 'job')} done in this run"
        if run := self.status.last_run:
            text += f", charged {rounded_dollars(run.charged)}"
        return f"{text}; stopped: {self.stopped}" if self.stopped else text


def _cell(result: Result) -> str:
    key = f"<b>{escape(result.key)}</b>"
    if result.state is not JobState.DONE:
        text = f"{key}<br>{escape(result.state.value)}: {escape(result.reason)}"
        return _CELL.format(image="", text=text)
    notes = "".join(f"<br>{escape(warning)}" for warning in result.warnings)
    images = "".join(map(_image, result.paths))
    return _CELL.format(image=images, text=f"{key}{notes}")


def _image(path: Path) -> str:
    """Return a thumbnail as an element that contains its data; the name for other files."""
    with suppress(BadImage, OSError):
        data = pybase64.b64encode(thumbnail_bytes(path, _SIDE)).decode()
        return f'<img src="data:image/webp;base64,{data}" alt="{escape(path.name)}">'
    return escape(path.name)


def run(manifest: str | PathLike[str], **options: Any) -> RunResults:
    """Run a batch to its end and return its results; the options are those of `Batch`.

    Works in notebooks, where an event loop already runs: the batch has a thread of its own. A
    KeyboardInterrupt starts no more requests, lets those in flight finish and is raised again. One
    that comes before the first request ends the run without any.
    Raises the errors that entering and iterating a `Batch` raise.
    """
    with start_blocking_portal("asyncio") as portal:
        batch = Batch(manifest, **options)
        future = portal.start_task_soon(_collect, batch)
        try:
            results = future.result()
        except KeyboardInterrupt as interrupt:
            _stop(portal, batch)
            if error := future.exception():
                interrupt.add_note(f"the run ended with {type(error).__name__}: {error}")
            raise
        status = portal.call(batch.status)
    assert batch.exit_code is not None
    return RunResults(
        name=batch.name,
        results=tuple(results),
        exit_code=batch.exit_code,
        stopped=batch.stopped,
        notices=tuple(batch.notices),
        status=status,
    )


async def _collect(batch: Batch) -> list[Result]:
    async with batch:
        return [result async for result in batch]


def _stop(portal: BlockingPortal, batch: Batch) -> None:
    with suppress(RuntimeError):
        portal.call(batch.stop)
