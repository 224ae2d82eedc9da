"""Objects by name: a directory of this machine, or a bucket of an object storage service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class StaleObjectError(Exception):
    """The object is not the one that a conditional put expected."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: another program has replaced or removed the object")


class StoreError(OSError):
    """A service refused an operation or could not be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """An object of a store."""

    name: str
    """Relative to the store, with ``/`` between its parts."""
    bytes: int
    e_tag: str
    """Changes with the content."""


class Store(Protocol):
    """Objects by relative names with ``/``. All methods block.

    A put is visible whole or not at all, and durable when it returns. Errors are OSErrors:
    FileNotFoundError for a missing object, FileExistsError where a create-only put finds one,
    StoreError for what a service refuses.
    """

    @property
    def url(self) -> str:
        """The URL of the store, without a final ``/``."""
        ...

    def info(self, name: str) -> ObjectInfo | None:
        """Return the size and tag of an object; None if it does not exist."""
        ...

    def read(self, name: str) -> bytes:
        """Return the content of an object. Raises FileNotFoundError."""
        ...

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of an object in pieces. Raises FileNotFoundError."""
        ...

    def digest(self, name: str) -> str | None:
        """Return the SHA-256 of an object's content in hex; None if it does not exist."""
        ...

    def put(
        self, name: str, data: bytes, *, create: bool = False, if_tag: str | None = None
    ) -> ObjectInfo:
        """Write an object and return its description.

        ``create`` raises FileExistsError if the object exists. ``if_tag`` raises StaleObjectError
        unless the object has that tag. Without either, an existing object is replaced.
        """
        ...

    def put_file(
        self, name: str, source: Path, *, create: bool = False, if_tag: str | None = None
    ) -> ObjectInfo:
        """Write an object from a file, which may be moved instead of copied; see `put`."""
        ...

    def copy(self, name: str, target: str) -> None:
        """Copy an object inside the store, replacing the target. Raises FileNotFoundError."""
        ...

    def delete(self, name: str) -> None:
        """Delete an object; do nothing if it does not exist."""
        ...

    def delete_all(self, names: Sequence[str]) -> None:
        """Delete objects in few requests; those that do not exist are no error."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose names start with ``prefix``, in an unspecified order."""
        ...
