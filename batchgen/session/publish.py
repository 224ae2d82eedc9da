"""Publish accepted images (``publish: on_accept``), from the review page, a run or an import.

A decision is durable before anything moves. What a kill or a held batch left unpublished is
published by the next of these.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio

from batchgen.errors import BatchgenError, BatchLockedError, SettingsError
from batchgen.ledger.batches import BatchRow, find_batch
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.manifest_paths import base_of
from batchgen.ledger.transaction import write_transaction
from batchgen.ledger.unpublished import Publication, publications, record_publication
from batchgen.ledger.writer import LedgerWriteError, LedgerWriter
from batchgen.output.final_names import Conflict
from batchgen.output.publishing import publish_file
from batchgen.session.batch_lock import batch_lock
from batchgen.system.threads import in_disk_thread

LIVE_EVERY_S: Final = 5.0
_MOMENT_S: Final = 0.5
"""How long a batch is held at a time, since a run may want it."""


@dataclass(slots=True)
class Published:
    """What was published, and what was not."""

    images: list[int] = field(default_factory=list)
    troubles: dict[int, str] = field(default_factory=dict)
    """Why an image was not published, by its id."""
    has_more: bool = False
    """Whether the time was over before all were published."""


def publish_accepted(
    conn: sqlite3.Connection, row: BatchRow, path: Path, *, seconds: float | None = None
) -> Published:
    """Publish the accepted images of a batch of the ledger ``path``, for about ``seconds``.

    The caller holds the batch, and no run of it sends requests. Raises SettingsError.
    """
    end = None if seconds is None else time.monotonic() + seconds
    done, ledger = Published(), Ledger(conn)
    due = publications(ledger, row.id)
    base = base_of(path, row) if due else Path()
    for one in due:
        if end is not None and time.monotonic() > end:
            done.has_more = True
            break
        trouble = try_publishing(base, one)
        if trouble is not None:
            done.troubles[one.image] = trouble
            continue
        with write_transaction(conn):
            record_publication(ledger, one)
        done.images.append(one.image)
    return done


async def publish_live(ledger: LedgerWriter, path: Path, name: str) -> None:
    """Publish accepted images of done jobs every few seconds during a run.

    The review page cannot, since the run holds the batch. What fails here is reported by the page
    and the next run.
    """

    def due(ledger: Ledger) -> tuple[Path, list[Publication]]:
        row = find_batch(ledger.conn, name)
        found = publications(ledger, row.id, live=True)
        return (base_of(path, row) if found else Path(), found)

    with suppress(LedgerWriteError, SettingsError):  # the workers report a ledger that fails
        while True:
            await anyio.sleep(LIVE_EVERY_S)
            base, found = await ledger.run(due)
            for one in found:
                with anyio.CancelScope(shield=True):
                    if await in_disk_thread(try_publishing, base, one) is None:
                        await ledger.run(record_publication, one)


def try_publishing(base: Path, one: Publication) -> str | None:
    """Move the file of an accepted image; return why it could not be done, or None."""
    try:
        publish_file(base, one)
    except Conflict as exc:
        return f"{one.key}: not published: {exc.path} is not an image of this job; move it"
    except OSError as exc:
        return f"{one.key}: not published: {exc}"
    return None


def publish_if_free(ledger: Path, name: str, *, seconds: float | None = None) -> Published | None:
    """Hold a batch and publish its accepted images; None while another command holds it.

    Raises BatchgenError.
    """
    try:
        with batch_lock(ledger, name), closing(open_for_writing(ledger)) as conn:
            return publish_accepted(conn, find_batch(conn, name), ledger, seconds=seconds)
    except BatchLockedError:
        return None


class Publisher:
    """Publishes the accepted images of one batch while a review page is open. For one thread."""

    def __init__(self, ledger: Path, name: str, is_due: Callable[[], bool]) -> None:
        self._ledger = ledger
        self._name = name
        self._is_due = is_due
        self.troubles: dict[int, str] = {}
        """Why images are not published, by their ids."""

    def step(self) -> bool:
        """Publish for a moment; return whether more is left that can be published at once."""
        try:
            if not self._is_due():
                self.troubles = {}
                return False
            done = publish_if_free(self._ledger, self._name, seconds=_MOMENT_S)
        except (BatchgenError, OSError, sqlite3.Error):
            return False  # the next step tries again; the page shows the images as not published
        if done is None:
            return False
        self.troubles = done.troubles
        return done.has_more
