"""Open the stores that output directories and files of a manifest are named by."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from batchgen.storage.local import LocalStore
from batchgen.storage.store import Store
from batchgen.urls import is_bucket

Options = Callable[[], Mapping[str, Mapping[str, str]]]
"""Returns the options of obstore for each kind of URL: ``s3``, ``gs`` and ``az``."""


class Stores:
    """The stores of a batch, each opened once; may be used by several threads."""

    def __init__(self, base: Path, options: Options) -> None:
        """Open no store yet.

        ``base`` is the directory that paths are relative to. ``options`` is called when the first
        bucket is opened.
        """
        self._base = base
        self._options = options
        self._lock = threading.Lock()
        self._opened: dict[str, Store] = {}

    def of(self, root: str) -> Store:
        """Return the store of an output directory, as `output_root` returns it.

        Raises SettingsError if it needs a package that is not installed.
        """
        with self._lock:
            if root not in self._opened:
                self._opened[root] = self._open(root)
            return self._opened[root]

    def _open(self, root: str) -> Store:
        if not is_bucket(root):
            return LocalStore(self._base / root)
        from batchgen.storage.object_store import ObjectStore  # most runs use no bucket

        return ObjectStore(root, self._options().get(root.partition("://")[0], {}))
