"""What is known of a request on its way: how much the kernel took, whether a response began."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PROGRESS: Final = "batchgen.progress"
"""Key of a `Progress` in ``httpx.Request.extensions``."""
DEADLINE: Final = "batchgen.deadline"
"""Key of a `Deadline` in ``httpx.Request.extensions``; without it a request has no time limit."""
TARGET: Final = "target"
"""Key of the raw request target in ``httpx.Request.extensions``; httpcore has the same."""
ARRIVED: Final = "batchgen.arrived"
"""Key of a callable in ``httpx.Response.extensions``. It returns the body bytes that arrived and
were not read, without waiting, and whether the body is complete."""


@dataclass(slots=True)
class Progress:
    """Filled in by `StreamTransport` while it sends a request.

    The decision whether a broken request may have been charged depends on it, so it errs on the
    side of "sent": a byte counts as taken unless it is known to have stayed in this process.
    """

    is_tracked: bool = False
    """Whether the transport fills in this object; another transport of httpx does not."""
    size: int | None = None
    """Bytes of the request with its head; None before it is sent, or if it has no known length."""
    taken: int = 0
    """Bytes of the request that the kernel took."""
    is_sent: bool = False
    """Whether the kernel took the whole request."""
    received: int = 0
    """Bytes of the response that arrived."""
    on_sent: Callable[[], None] | None = None
    """Called when the kernel took the whole request."""

    def restart(self, size: int | None = None) -> None:
        """Begin again on another connection, after one that took nothing or never responded."""
        self.is_tracked, self.size = True, size
        self.taken, self.is_sent, self.received = 0, False, 0

    def took(self, count: int) -> None:
        """Note how many bytes the kernel took so far."""
        self.taken = max(self.taken, count)
        if self.size is not None and self.taken >= self.size:
            self.sent()

    def sent(self) -> None:
        """Note that the kernel took the whole request."""
        if not self.is_sent:
            self.is_sent = True
            if self.on_sent is not None:
                self.on_sent()
