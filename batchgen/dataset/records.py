"""What a dataset's directory records about itself, so that an export can be resumed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

from batchgen.dataset.layout import DatasetOrder
from batchgen.errors import SettingsError
from batchgen.storage.store import Store
from batchgen.urls import output_root

CHECKSUMS: Final = "SHA256SUMS"
_DIRECTORY: Final = ".batchgen"
_HEAD: Final = f"{_DIRECTORY}/dataset.json"
_VERSION: Final = 1
_RECORD: Final = re.compile(rf"{re.escape(_DIRECTORY)}/(?P<number>[0-9]{{5,}})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFile:
    """A file of a part."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A written part of a dataset."""

    number: int
    plan: str
    """Hash of the samples that the part was made of; empty while it is written or incomplete."""
    files: tuple[PartFile, ...]


class Records:
    """The records of a dataset in its store, below ``.batchgen/``.

    ``SHA256SUMS`` exists only while the dataset is complete.
    """

    def __init__(self, store: Store, order: DatasetOrder) -> None:
        self._store = store
        self._place = output_root(store.url)  # a path, not the URL of one, in messages
        self._head = (
            json.dumps(
                {
                    "version": _VERSION,
                    "batch": order.batch,
                    "layout": order.layout.value,
                    "part_images": order.part_images,
                    "accepted": order.accepted,
                },
                indent=2,
            )
            + "\n"
        ).encode()

    def begin(self) -> None:
        """Record what the store holds. Raises SettingsError if it holds anything else."""
        try:
            found = self._store.read(_HEAD)
        except FileNotFoundError:
            first = next(self._store.list(), None)
            if first is not None:
                raise SettingsError(
                    f"{self._place}: not empty and not a dataset of batchgen: {first.name};"
                    " expected a new directory"
                ) from None
            self._store.put(_HEAD, self._head)
            return
        if found != self._head:
            raise SettingsError(
                f"{self._place}: holds another dataset: {_differences(found, self._head)};"
                " expected a new directory"
            )

    def find(self, number: int) -> Part | None:
        """Return a part that was written completely and still has all of its files."""
        found = self._read(number)
        if found is None or not found.plan:
            return None
        for file in found.files:
            info = self._store.info(file.name)
            if info is None or info.bytes != file.bytes:
                return None
        return found

    def start(self, number: int, names: Iterable[str]) -> set[str]:
        """Record the files that a part is about to get; return those that it had and loses."""
        self._store.delete(CHECKSUMS)
        found = self._read(number)
        had = {file.name for file in found.files} if found is not None else set[str]()
        planned = sorted({*had, *names})
        files = tuple(PartFile(name=name, bytes=0, sha256="") for name in planned)
        self.finish(Part(number=number, plan="", files=files))
        return had - set(names)

    def finish(self, part: Part) -> None:
        """Record a part whose files are all written."""
        record = {"plan": part.plan, "files": [asdict(file) for file in part.files]}
        text = json.dumps(record, separators=(",", ":"), sort_keys=True)
        self._store.put(_name(part.number), f"{text}\n".encode())

    def drop_from(self, number: int) -> None:
        """Delete the parts from a number on, which are left from a larger dataset.

        They are listed: a killed call may have deleted the first ones.
        """
        for left in sorted(self._numbers()):
            found = self._read(left) if left >= number else None
            if found is not None:
                self._store.delete(CHECKSUMS)
                for file in found.files:
                    self._store.delete(file.name)
                self._store.delete(_name(left))

    def _numbers(self) -> Iterator[int]:
        """Yield the numbers of the parts that have a record."""
        for one in self._store.list(f"{_DIRECTORY}/"):
            if (record := _RECORD.fullmatch(one.name)) is not None:
                yield int(record["number"])

    def write_checksums(self, parts: int) -> None:
        """Write the checksums of all files, in the format of ``sha256sum``."""
        if self._store.info(CHECKSUMS) is None:
            self._store.put(CHECKSUMS, "".join(self._checksums(parts)).encode())

    def _checksums(self, parts: int) -> Iterator[str]:
        for number in range(parts):
            part = self._read(number)
            for file in part.files if part is not None else ():
                yield f"{file.sha256}  {file.name}\n"

    def _read(self, number: int) -> Part | None:
        name = _name(number)
        try:
            found = json.loads(self._store.read(name))
            files = tuple(PartFile(**file) for file in found["files"])
            return Part(number=number, plan=str(found["plan"]), files=files)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as exc:
            raise SettingsError(f"{self._place}/{name}: not a record of a part: {exc}") from exc


def _differences(found: bytes, wanted: bytes) -> str:
    """Return the fields in which two heads of datasets differ, each with both values."""
    ours = json.loads(wanted)
    try:
        theirs = json.loads(found)
        return ", ".join(
            f"{name} {json.dumps(theirs.get(name))} instead of {json.dumps(value)}"
            for name, value in ours.items()
            if theirs.get(name) != value
        )
    except (ValueError, AttributeError):
        return f"{_HEAD} was not written by batchgen"


def _name(number: int) -> str:
    return f"{_DIRECTORY}/{number:05d}.json"
