"""Publish accepted images while the review page is open (``publish: on_accept``)."""

from __future__ import annotations

import threading
from typing import Final

from batchgen.ledger.ledger import Ledger
from batchgen.ledger.unpublished import publications
from batchgen.review.batch import ReviewBatch
from batchgen.session.publish import Publisher

_EVERY_S: Final = 2.0
"""How often it is tried while a run holds the batch."""


class ReviewPublisher:
    """A thread that publishes what is accepted, on this page or elsewhere."""

    def __init__(self, batch: ReviewBatch) -> None:
        def is_due() -> bool:
            return bool(batch.read(lambda conn: publications(Ledger(conn), batch.id)))

        self._publisher = Publisher(batch.ledger, batch.row.name, is_due)
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    @property
    def troubles(self) -> dict[int, str]:
        """Why accepted images are not published, by their ids."""
        return self._publisher.troubles

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Look now: something was decided."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread after what was decided so far."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            while self._publisher.step():
                pass
            self._wake.wait(_EVERY_S)
        while self._publisher.step():
            pass
