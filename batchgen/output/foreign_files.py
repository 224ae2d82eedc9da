"""Find files of output directories and bucket prefixes that no batch of the ledger has saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from batchgen.ledger.saved_images import Owned
from batchgen.output.bucket_sidecar import sidecar_name
from batchgen.output.sidecar import is_sidecar, is_sidecar_data, sidecar_of
from batchgen.storage.store import Store
from batchgen.system.atomic_files import PART_SUFFIX
from batchgen.urls import is_bucket, path_below


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file that may be foreign."""

    place: Path | str
    """Its path as the output directory is written, or its URL."""
    is_sidecar_of: Callable[[str, str], bool]
    """Whether it is the sidecar of a batch and a key. Raises OSError."""


class ForeignFiles:
    """Files found in the output directories of a batch, without those of any batch.

    ``ours`` are names of directories that batchgen keeps other things in.
    """

    def __init__(self, ours: Sequence[str]) -> None:
        self._ours = ours
        self._found: dict[str, _Candidate] = {}
        """By real path or URL, which is the same for all batches."""

    def add_directory(self, root: Path) -> None:
        """Look for files below a directory."""
        real = root.resolve()
        for path in self._walk(root):
            candidate = _Candidate(path, partial(is_sidecar, path))
            self._found[str(real / path.relative_to(root))] = candidate

    def add_prefix(self, root: str, store: Store) -> None:
        """Look for objects below a prefix. Raises OSError."""
        for one in store.list():
            if not any(f"/{name}/" in f"/{one.name}" for name in self._ours):
                url = path_below(root, one.name)
                self._found[url] = _Candidate(url, partial(_is_sidecar_object, store, one.name))

    def without(self, images: Iterable[Owned]) -> list[Path | str]:
        """Return what is neither one of these images nor the sidecar of one. Raises OSError."""
        found, real = self._found, dict[Path, Path]()
        for owned in images:
            if not found:
                break
            image, sidecar = _places(owned, real)
            found.pop(image, None)
            candidate = found.get(sidecar)
            if candidate is not None and candidate.is_sidecar_of(owned.batch, owned.key):
                del found[sidecar]
        return [candidate.place for candidate in found.values()]

    def _walk(self, root: Path) -> Iterator[Path]:
        for directory, directories, names in os.walk(root):
            directories[:] = sorted(name for name in directories if name not in self._ours)
            for name in sorted(names):
                if not name.endswith(PART_SUFFIX):
                    yield Path(directory, name)


def _is_sidecar_object(store: Store, name: str, batch: str, key: str) -> bool:
    return is_sidecar_data(store.read(name), batch, key)


def _places(owned: Owned, real: dict[Path, Path]) -> tuple[str, str]:
    """Return the real paths or the URLs of an image and its sidecar.

    ``real`` keeps the real path of each output directory.
    """
    root, path = owned.root, owned.path
    if is_bucket(root):
        return path_below(root, path), path_below(root, sidecar_name(path))
    directory = owned.base / root
    if directory not in real:
        real[directory] = directory.resolve()
    image = real[directory] / path
    return str(image), str(sidecar_of(image))
