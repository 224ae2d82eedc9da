"""Keep Pillow's warnings on the metadata of images from the user."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_LOCK: Final = threading.Lock()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Turn warnings off, for one thread at a time, so decode pixels outside.

    Filters are process-wide: threads that save and restore them at the same time would leave them
    off for good.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
