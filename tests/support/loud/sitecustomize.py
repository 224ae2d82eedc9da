"""Runs first in every Python that the rig starts: what anybody logs goes to a file, at DEBUG."""

from __future__ import annotations

import logging
import os
from pathlib import Path

if directory := os.environ.get("LOUD_LOGS"):
    logging.raiseExceptions = False  # a test may take the disk or the open files away
    logging.basicConfig(
        level=logging.DEBUG,
        handlers=[logging.FileHandler(Path(directory) / f"{os.getpid()}.log", delay=True)],
    )
