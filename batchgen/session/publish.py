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
from batchgen.ledger.group_commit import LedgerWriteError
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.manifest_paths import base_of
from batchgen.ledger.transaction import write_transaction
from batchgen.ledger.unpublished import Publication, publications, record_publication
from batchgen.ledger.writer import LedgerWriter
from batchgen.output.final_names import Conflict
from batchgen.output.publishing import publish_image
from batchgen.session.batch_lock import batch_lock
from batchgen.session.storage import stores_of_batch
from batchgen.storage.stores import Stores
from batchgen.system.threads import in_disk_thread, in_store_thread
from batchgen.urls import is_bucket

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
    if not due:
        return done
    places = _Places.of(path, row)
    for one in due:
        if end is not None and time.monotonic() > end:
            done.has_more = True
            break
        trouble = places.publish(one)
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

    def due(ledger: Ledger) -> tuple[BatchRow, list[Publication]]:
        row = find_batch(ledger.conn, name)
        return row, publications(ledger, row.id, live=True)

    with suppress(LedgerWriteError, SettingsError):  # the workers report a ledger that fails
        while True:
            await anyio.sleep(LIVE_EVERY_S)
            row, found = await ledger.run(due)
            if not found:
                continue
            places = _Places.of(path, row)
            for one in found:
                with anyio.CancelScope(shield=True):
                    if await places.publish_in_thread(one) is None:
                        await ledger.run(record_publication, one)


@dataclass(frozen=True, slots=True)
class _Places:
    """The directories and buckets of a batch."""

    base: Path
    stores: Stores

    @classmethod
    def of(cls, ledger: Path, row: BatchRow) -> _Places:
        """Return those of a batch of a ledger. Raises SettingsError."""
        return cls(base_of(ledger, row), stores_of_batch(ledger, row))

    def publish(self, one: Publication) -> str | None:
        """Move an accepted image; return why it could not be done, or None."""
        try:
            publish_image(self.base, self.stores, one)
        except Conflict as exc:
            return f"{one.key}: not published: {exc.path} is not an image of this job; move it"
        except (OSError, SettingsError) as exc:
            return f"{one.key}: not published: {exc}"
        return None

    async def publish_in_thread(self, one: Publication) -> str | None:
        """Do so on another thread: a slow bucket must not hold up the disk."""
        call = in_store_thread if is_bucket(one.root) else in_disk_thread
        return await call(self.publish, one)


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
