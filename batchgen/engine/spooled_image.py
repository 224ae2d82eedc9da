"""Read an inline image of a paid response from the spool."""

from __future__ import annotations

from pathlib import Path

from batchgen.job import AttemptId
from batchgen.providers.adapters.registry import adapter_of
from batchgen.spool.response_file import SpooledResponse
from batchgen.spool.spool import Spool


class SpoolUnreadable(Exception):
    """The spooled response of a paid image is missing or damaged; the message says what to do."""

    def __init__(self, spool: Spool, attempt: AttemptId, problem: str) -> None:
        super().__init__(
            f"{spool.name(attempt)} {problem}; restore {spool.directory.name}/ next to the ledger,"
            " or pay again with `batchgen retry --buy --only KEY`"
        )


class StillCompressed(Exception):
    """The spooled response is as it arrived, since its compression could not be undone."""

    def __init__(self, response: SpooledResponse) -> None:
        super().__init__(response.coding)
        self.response = response


def spooled_image(spool: Spool, attempt: AttemptId, position: int) -> tuple[str, Path | None]:
    """Return an inline image as base64, and the file with its decoded bytes, if there is one.

    The image was in the response when it was recorded. If it is not there now, the spool is at
    fault and not the provider. Raises SpoolUnreadable and StillCompressed.
    """
    try:
        response = spool.find(attempt)
        if response is None:
            raise SpoolUnreadable(spool, attempt, "is missing or damaged")
        if response.coding:
            raise StillCompressed(response)
        adapter = adapter_of(response.route)
        base64 = adapter.inline_base64(response.text(), response.headers, position)
        source = response.image(base64)
        if source is not None:
            source.stat()
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise SpoolUnreadable(spool, attempt, f"can't be read: {exc}") from None
    return base64, source
