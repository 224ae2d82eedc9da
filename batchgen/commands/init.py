"""`batchgen init` and `schema`: write a first manifest, and the JSON Schema for editors."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchgen.console.ask import ask
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, SettingsError
from batchgen.providers.local import LOCAL
from batchgen.providers.registry import PROFILES
from batchgen.system.shell_command import shell_command
from batchgen.text import cause_of, closest_match

PROVIDERS: Final = (LOCAL.name, *sorted(PROFILES.keys() - {LOCAL.name}))
SCHEMA_NAME: Final = "batchgen.schema.json"
_KEYS: Final = ("key", "id", "sku", "handle")
_TITLES: Final = ("title", "name", "product", "prompt", "text", "description")
_HEAD: Final = """\
# yaml-language-server: $schema={schema}
# Run it:            batchgen run {file}
# Show what it does: batchgen plan {file}
provider: {provider:<12}       # {note}
model: gpt-image-2
options: {{size: 1024x1024, quality: high, output_format: png}}
limits: {{max_cost: 5.00}}     # dollars per run
"""
_LIST: Final = """\
jobs:
  - A clean product photo of a ceramic coffee mug on a white background
  - key: tote                # the file name; without it, words of the prompt
    prompt: A linen tote bag on a wooden hook, morning light
    count: 2                 # images of this prompt
"""
_TABLE: Final = """\
rows: {rows}                 # one image per row; columns: {columns}
key: "{{{{ {key} }}}}"
prompt: "A clean product photo of {{{{ {title} }}}} on a white background"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a first manifest is for."""

    provider: str
    rows: str | None
    """Path of a table relative to the manifest; None for a list of prompts."""


def init(
    path: Path, *, provider: str | None = None, rows: str | None = None, as_json: bool = False
) -> ExitCode:
    """Write a first manifest and, next to it, the JSON Schema that editors check it with.

    At a terminal, asks for what is not given; elsewhere the provider is local and the manifest a
    list of prompts. Raises SettingsError if the file exists.
    """
    if path.exists():
        raise SettingsError(f"{path}: exists already, and is not overwritten")
    choices = _choices(provider, rows, is_asking=not as_json)
    text = _text(path, choices)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        schema_path = path.with_name(SCHEMA_NAME)
        schema_path.write_text(_schema_text() + "\n", encoding="utf-8")
    except FileExistsError:
        raise SettingsError(f"{path}: exists already, and is not overwritten") from None
    except OSError as exc:
        raise SettingsError(f"{path}: can't be written: {cause_of(exc)}") from exc
    if as_json:
        record = {"manifest": str(path), "schema": str(schema_path), "provider": choices.provider}
        write_line(sys.stdout, json.dumps(record | {"rows": choices.rows}))
    else:
        write_line(sys.stdout, f"wrote {path}, and {schema_path} for editors")
        plan, run = shell_command("plan", path), shell_command("run", path)
        write_line(sys.stdout, f"next: {plan}   # free; then: {run}")
    return ExitCode.DONE


def _choices(provider: str | None, rows: str | None, *, is_asking: bool) -> Choices:
    """Return the given choices, and ask for the others if a person can be asked."""
    if is_asking and provider is None and rows is None:
        question = f"Provider: {', '.join(PROVIDERS)}"
        while (provider := ask(question, PROVIDERS[0])) not in PROVIDERS:
            write_line(sys.stderr, _unknown_provider(provider))
        rows = ask("Table with a row per image, such as products.csv (empty: list prompts)", "")
    name = provider or PROVIDERS[0]
    if name not in PROVIDERS:
        raise SettingsError(f"--provider: {_unknown_provider(name)}")
    return Choices(provider=name, rows=rows or None)


def _unknown_provider(name: str) -> str:
    near = closest_match(name, PROVIDERS)
    hint = f"; did you mean {near!r}?" if near else ""
    return f"{name!r}; expected one of {', '.join(PROVIDERS)}{hint}"


def _text(path: Path, choices: Choices) -> str:
    head = _HEAD.format(
        schema=SCHEMA_NAME,
        file=shlex.quote(str(path)),
        provider=choices.provider,
        note=_provider_note(choices.provider),
    )
    if choices.rows is None:
        return head + _LIST
    columns = _columns(path.absolute().parent, choices.rows)
    key = _first(_KEYS, columns)
    title = _first([*_TITLES, *(one for one in columns if one != key)], columns)
    return head + _TABLE.format(
        rows=json.dumps(choices.rows), columns=", ".join(columns[:8]), key=key, title=title
    )


def _provider_note(name: str) -> str:
    """Return the comment on the provider of a new manifest."""
    if name == LOCAL.name:
        return f"the local endpoint: no key, no cost; later: {' or '.join(PROVIDERS[1:])}"
    return f"needs {PROFILES[name].key_variable}"


def _columns(base: Path, rows: str) -> Sequence[str]:
    """Return the columns of a table under their names in templates. Raises SettingsError."""
    from batchgen.manifest.rows import open_rows
    from batchgen.manifest.table import RowsFault

    try:
        for row in open_rows(rows, base):
            return list(row.values)
    except RowsFault as exc:
        raise SettingsError(f"{exc.file}: {exc.message}") from exc
    raise SettingsError(f"{rows}: the table has no rows")


def _first(wanted: Iterable[str], columns: Sequence[str]) -> str:
    """Return the first wanted column that exists, or the first of all."""
    return next((one for one in wanted if one in columns), columns[0])


def schema() -> ExitCode:
    """Print the JSON Schema of a manifest."""
    write_line(sys.stdout, _schema_text())
    return ExitCode.DONE


def _schema_text() -> str:
    from batchgen.manifest.loader import json_schema

    return json.dumps(json_schema(), indent=2)
