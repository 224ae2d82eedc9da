"""Responses on their way between the spools of two machines: one file, as the body was received."""

from __future__ import annotations

import orjson

from batchgen.job import AttemptId
from batchgen.spool.response_file import SpooledResponse
from batchgen.spool.spool import Spool
from batchgen.system.atomic_files import (
    PART_SUFFIX,
    PRIVATE_DIRECTORY,
    PRIVATE_FILE,
    make_directories,
    write_atomically,
)


def portable_response(response: SpooledResponse) -> bytes:
    """Return a response as one spool file, with its inline images in the body. Raises OSError."""
    head: dict[str, object] = {
        "status": response.status,
        "headers": dict(response.headers),
        "route": response.route,
    }
    if response.coding:
        head["coding"] = response.coding
    return orjson.dumps(head) + b"\n" + response.body()


def receive_response(spool: Spool, attempt: AttemptId, data: bytes, *, cut: bool = False) -> None:
    """Write a portable response into a spool, durably; ``cut`` for one without its end.

    Raises OSError.
    """
    make_directories(spool.directory, PRIVATE_DIRECTORY)
    name = spool.name(attempt) + (PART_SUFFIX if cut else "")
    write_atomically(spool.directory / name, data, mode=PRIVATE_FILE)
