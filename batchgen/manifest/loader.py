"""From the bytes of a manifest to a checked `Manifest`, or to all that is wrong with it at once.

Tables, templates and the environment are not looked at here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, NoReturn

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from batchgen.errors import Fault, ManifestError
from batchgen.manifest.error_messages import (
    NO_KEYS_HERE,
    Explanation,
    explain,
)
from batchgen.manifest.field_types import check_name
from batchgen.manifest.model import JobEntry, Manifest
from batchgen.manifest.positions import SECRET, Places, show_path
from batchgen.manifest.yaml_reader import LINE_BREAK, DocPath, line_and_column, scan
from batchgen.manifest.yaml_scalars import Value
from batchgen.text import closest_match

__all__ = [
    "BrokenManifestError",
    "DocPath",
    "LoadedManifest",
    "Places",
    "json_schema",
    "load_manifest",
    "parse_manifest",
    "show_path",
]
from batchgen.version import __version__

MAX_BYTES: Final = 64 << 20
MAX_FAULTS: Final = 100
SCHEMA_ID: Final = f"https://batchgen.invalid/manifest-{__version__}.schema.json"

_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_NO_TEXT_IN_ASCII: Final = re.compile("[^\t\n\r\x20-\x7e]")
_NO_TEXT: Final = (
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufdcf\ufdf0-\ufefe\uff00-\ufffd"
    "\U00010000-\U0010ffff]"
)
"""Control and reserved characters, and line breaks that only YAML takes for some: inside quotes
they would vanish, and every line number after them would be off. Compiling it takes 3 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedManifest:
    """A manifest that is right in itself; its tables and templates may still be wrong."""

    manifest: Manifest
    path: Path
    """Absolute."""
    base: Path
    """The directory that its relative paths start from."""
    name: str
    """The batch's name: as written, else the file's stem."""
    text: str
    sha256: str
    """Hex digest of the file's bytes."""
    places: Places
    copies: Mapping[str, Path] = field(default_factory=dict)
    """Local copies of tables in buckets, by their URLs."""


class BrokenManifestError(ManifestError):
    """A manifest with errors, and its sound part."""

    def __init__(self, faults: list[Fault], sound: LoadedManifest | None) -> None:
        super().__init__(faults)
        self.sound = sound
        """Without what is wrong, to check the rest of it; never to make anything. None if the rest
        says too little."""


def load_manifest(path: Path) -> LoadedManifest:
    """Read a manifest file. Raises ManifestError with all its faults."""
    return parse_manifest(_read(path), file=str(path), path=path)


EXTENSION: Final = "x-"
"""How keys at the top begin that only hold anchors, as in Docker Compose:
https://docs.docker.com/reference/compose-file/extension/."""


def parse_manifest(data: bytes, *, file: str, path: Path) -> LoadedManifest:
    """Read a manifest's bytes; ``file`` is its name in messages, ``path`` its location.

    Raises ManifestError with all its faults, or the first hundred.
    """
    text = _decode(data, file)
    places = Places(file, text)
    document, findings = scan(text)
    faults = [places.fault_at(*finding) for finding in findings]
    faults += _secrets(text, places)
    if document is None:
        raise ManifestError(_at_most(faults))
    for key in [key for key in document if key.startswith(EXTENSION)]:
        del document[key]
    # What the reader left out would seem to be missing.
    errors = [] if findings else list(_missing(document))
    manifest: Manifest | None = None
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        errors += map(explain, error.errors(include_url=False))
    name = (manifest and manifest.name) or path.stem
    try:
        check_name(name)
    except ValueError as error:
        if not errors:
            message = f"set name:, because the name of the file cannot be used: {error}"
            faults.append(places.fault(("name",), message))
    faults += _located(errors, places)
    path = path.absolute()
    if errors:
        from batchgen.manifest.valid_part import sound_part  # few manifests have errors

        sound = sound_part(document, [error.path for error in errors])
        manifest = sound and sound.manifest
        places = Places(file, text, renamed=sound.renamed if sound else {})
    if manifest is None:
        raise BrokenManifestError(_at_most(faults), None)
    loaded = LoadedManifest(
        manifest=manifest,
        path=path,
        base=path.parent,
        name=name,
        text=text,
        sha256=sha256(data).hexdigest(),
        places=places,
    )
    if faults:
        raise BrokenManifestError(_at_most(faults), loaded)
    return loaded


def _located(found: Iterable[Explanation], places: Places) -> Iterator[Fault]:
    for path, message, at_key in found:
        yield places.fault(path, message, at_key=at_key)


def _at_most(faults: list[Fault]) -> list[Fault]:
    """Return the different faults in order; a last one counts those beyond MAX_FAULTS."""
    found = sorted(set(faults))
    if len(found) <= MAX_FAULTS:
        return found
    first = found[MAX_FAULTS]
    rest = f"{len(found) - MAX_FAULTS:,} more faults after this line"
    return [*found[:MAX_FAULTS], Fault(first.file, first.line, first.column, "", rest)]


# The file


def _read(path: Path) -> bytes:
    """Return the bytes of a regular file; never wait for a pipe. Raises ManifestError."""

    def refuse(message: str) -> NoReturn:
        raise ManifestError([Fault(str(path), 0, 0, "", message)])

    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as stream:  # noqa: PTH123  # Path.open takes no descriptor
            if not S_ISREG(os.fstat(descriptor).st_mode):
                refuse("not a regular file; expected the path of a manifest")
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        refuse("file not found")
    except IsADirectoryError:
        refuse("is a directory; name the manifest in it")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        refuse(f"cannot be read: {reason}")
    if len(data) > MAX_BYTES:
        refuse(
            f"is larger than {MAX_BYTES >> 20} MiB; put the jobs into a table (csv, jsonl) and"
            " name it with rows:"
        )
    return data


def _decode(data: bytes, file: str) -> str:
    """Return the text of a manifest. Raises ManifestError with the offset of the first bad byte."""

    def refuse(offset: int, message: str) -> NoReturn:
        line, column = line_and_column(data[:offset].decode(errors="replace"), offset)
        raise ManifestError([Fault(file, line, column, "", f"{message} (byte {offset:,})")])

    if data.startswith(_UTF16_MARKS):
        refuse(0, "is UTF-16; save the file as UTF-8")
    start = len(_UTF8_MARK) if data.startswith(_UTF8_MARK) else 0
    try:
        text = data[start:].decode()
    except UnicodeDecodeError as error:
        offset = start + error.start
        refuse(offset, f"byte 0x{data[offset]:02x} is not UTF-8; save the file as UTF-8")
    if wrong := re.search(_NO_TEXT_IN_ASCII if text.isascii() else _NO_TEXT, text):
        offset = start + len(text[: wrong.start()].encode())
        refuse(
            offset,
            f"the character U+{ord(wrong[0]):04X} is not allowed in a manifest; remove it, or write"
            " it as an escape in double quotes",
        )
    return text


def _secrets(text: str, places: Places) -> Iterator[Fault]:
    """Yield a fault for each API key, in comments too: the ledger stores the whole text."""
    if SECRET.search(text):
        for number, line in enumerate(LINE_BREAK.split(text), start=1):
            for found in SECRET.finditer(line):
                yield places.fault_at(number, found.start() + 1, (), NO_KEYS_HERE)


# Keys that need each other


def _missing(document: dict[str, Value]) -> Iterator[Explanation]:
    """Yield what a manifest lacks; a misspelled key counts as the one that was meant."""
    given = {closest_match(key, Manifest.model_fields) or key for key in document}
    if given.isdisjoint({"jobs", "rows", "matrix", "prompt"}):
        yield Explanation((), "nothing to make: write jobs: and below it '- a prompt'")
    if "prompt" in given:
        return
    jobs = document.get("jobs")
    for source in ("rows",) if jobs else ("rows", "matrix"):
        if source in given:
            yield Explanation((source,), "needs prompt: next to it, the template of its jobs")
    for number, job in enumerate(jobs if isinstance(jobs, list) else ()):
        if (
            isinstance(job, dict)
            and "prompt" not in job
            and job.keys() <= JobEntry.model_fields.keys()
        ):
            yield Explanation(("jobs", number), "has no prompt:, nor is there one for all jobs")


# For editors


class _Schema(GenerateJsonSchema):
    """Schemas without null where it only means that a key was left out."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a manifest."""
    schema = Manifest.model_json_schema(schema_generator=_Schema)
    return {
        "$schema": _Schema.schema_dialect,
        "$id": SCHEMA_ID,
        **schema,
        "patternProperties": {f"^{EXTENSION}": {}},
        "title": "batchgen manifest",
    }
