"""Open the stores that output directories and files of a manifest are named by."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from batchgen.storage.local import LocalStore
from batchgen.storage.object_store import ObjectStore
from batchgen.storage.store import Store

_REMOTE: Final = re.compile(r"(?:s3|gs|az)://", re.IGNORECASE)
_FILE: Final = "file://"


def is_remote(root: str) -> bool:
    """Return whether an output directory is a bucket: ``s3://``, ``gs://`` or ``az://``."""
    return _REMOTE.match(root) is not None


def check_root(text: str) -> str:
    """Return an output directory in the form that is stored: a path, or a URL of a bucket.

    A ``file://`` URL becomes its path. Raises ValueError for any other URL.
    """
    if text.lower().startswith(_FILE):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError(f"{text!r}: expected file:///PATH")
        return unquote(parts.path)
    if not is_remote(text):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
            raise ValueError(f"{text!r}: expected a path, or s3://, gs://, az:// or file://")
        return text
    scheme, _, rest = text.partition("://")
    bucket, *parts_of_prefix = rest.rstrip("/").split("/")
    if not bucket or any(part in ("", ".", "..") for part in parts_of_prefix) or "?" in rest:
        raise ValueError(f"{text!r}: expected {scheme.lower()}://BUCKET/PREFIX")
    return f"{scheme.lower()}://{rest.rstrip('/')}"


class Stores:
    """The stores of a batch, each opened once; may be used by several threads."""

    def __init__(self, base: Path, options: Mapping[str, Mapping[str, str]]) -> None:
        """``base`` is the directory that paths are relative to.

        ``options`` has the options of obstore for each kind of URL: ``s3``, ``gs`` and ``az``.
        """
        self._base = base
        self._options = options
        self._lock = threading.Lock()
        self._opened: dict[str, Store] = {}

    def of(self, root: str) -> Store:
        """Return the store of an output directory, as `check_root` returns it.

        Raises SettingsError if it needs a package that is not installed.
        """
        with self._lock:
            if root not in self._opened:
                self._opened[root] = self._open(root)
            return self._opened[root]

    def _open(self, root: str) -> Store:
        if not is_remote(root):
            return LocalStore(self._base / root)
        return ObjectStore(root, self._options.get(root.partition("://")[0], {}))
