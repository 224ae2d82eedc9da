"""Thumbnails made ahead of the person who looks, at the lowest priority."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from batchgen.review.files import SIZES, Files
from batchgen.review.image_files import NoFileError

_PAUSE_S: Final = 0.01


def prepare_thumbnails(files: Files, images: Sequence[int], stop: threading.Event) -> None:
    """Make the small thumbnails of images in order until stopped; one after the other."""
    if sys.platform == "linux":
        with suppress(OSError):  # a thread of Linux has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)
    for image in images[: files.most_prepared]:
        if stop.wait(_PAUSE_S):
            return
        with suppress(NoFileError, OSError, sqlite3.OperationalError):
            files.thumbnail(image, SIZES[0])
