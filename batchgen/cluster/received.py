"""Remember where the responses of a run are, and bring them to this machine."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from batchgen.cluster.channel import Channel, Fetching, Intents
from batchgen.cluster.intents import response_name
from batchgen.job import AttemptId
from batchgen.ledger.path_owners import PathHistory
from batchgen.spool.portable import receive_response
from batchgen.spool.spool import Spool
from batchgen.storage.store import Store
from batchgen.system.threads import in_disk_thread, in_store_thread

_MAX_RECEIVED: Final = 4096

Known: TypeAlias = Mapping[str, PathHistory]
"""What the ledger knew of the paths of an image before its request was sent."""


@dataclass(frozen=True, slots=True)
class Received:
    """Where the response to an attempt arrived."""

    channel: Channel
    intents: Intents
    images: dict[int, Fetching]
    """Those that the actor fetches without an order."""
    known: Known


class ReceivedResponses:
    """The responses of one run, which are in its bucket."""

    def __init__(self, spool: Spool, store: Store, epoch: int) -> None:
        """``spool`` is that of this machine."""
        self._spool = spool
        self._store = store
        self._epoch = epoch
        self._found: OrderedDict[AttemptId, Received] = OrderedDict()
        """Of the newest attempts."""

    def note(self, attempt: AttemptId, received: Received) -> None:
        """Remember where the response to an attempt arrived."""
        self._found[attempt] = received
        if len(self._found) > _MAX_RECEIVED:
            self._found.popitem(last=False)

    def of(self, attempt: AttemptId) -> Received | None:
        """Return where the response to an attempt arrived; None if that is not known."""
        return self._found.get(attempt)

    def forget(self, attempt: AttemptId) -> Received | None:
        """Forget a response that is not needed any more, and return what was known of it."""
        return self._found.pop(attempt, None)

    def name(self, attempt: AttemptId) -> str:
        """Return the object of a response."""
        return response_name(self._epoch, attempt)

    async def bring(self, attempt: AttemptId) -> bool:
        """Bring a response to the spool of this machine; return whether it is there.

        Raises StoreError if the bucket cannot be read, and OSError for the spool.
        """
        spool = self._spool
        if await in_disk_thread(spool.find, attempt) is not None:
            return True
        try:
            data = await in_store_thread(self._store.read, self.name(attempt))
        except FileNotFoundError:
            return False
        await in_disk_thread(receive_response, spool, attempt, data)
        return True
