"""Write a manifest of single jobs, to be fixed by hand and run again under the same keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from batchgen.job import EXT_PLACEHOLDER, OptionValue

_TEMPLATE_MARKS: Final = re.compile(r"\{\{|\{%|\{#")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenJob:
    """A job as the ledger knows it, with what is wrong with it."""

    key: str
    why: str
    """A comment above it: state, reason, and where it came from."""
    model: str
    prompt: str
    options: Mapping[str, OptionValue]
    images: tuple[str, ...]
    mask: str | None
    root: str
    path: str
    output: Mapping[str, object]
    """The settings of its output that are not the defaults; without its directory and path."""
    tags: tuple[str, ...]
    is_whole: bool = True
    """Whether it is known whole; a job whose row is at fault is not, and is a comment only."""


def partial_manifest(
    name: str, settings: Mapping[str, object], jobs: Iterable[WrittenJob]
) -> Iterator[str]:
    """Yield the text of a manifest with ``partial``: jobs that are not listed keep their state.

    ``settings`` are those of the manifest that hold for all jobs; empty ones are left out.
    """
    yield f"# Jobs of {name} that need a decision. Fix them, run this file, and fix their source:\n"
    yield "# the next run of the whole manifest plans them as the source says.\n"
    kept = {key: _quoted(value) for key, value in settings.items() if value}
    yield _dump({"name": _quoted(name), "partial": True, **kept})
    yield "jobs:\n"
    for job in jobs:
        if not job.is_whole:
            yield f"  # {job.key}: fix its row, then run the whole manifest\n"
        yield from (f"  # {line}\n" for line in job.why.splitlines())
        if not job.is_whole:
            continue
        entry = _dump([_entry(job)])
        yield "".join(f"  {line}\n" for line in entry.splitlines())


def _entry(job: WrittenJob) -> dict[str, Any]:
    found: dict[str, Any] = {
        "key": _quoted(_literal(job.key)),
        "prompt": _quoted(_literal(job.prompt)),
        "model": _quoted(job.model),
    }
    if job.options:
        found["options"] = {name: _quoted(value) for name, value in job.options.items()}
    if job.images:
        found["images"] = [_quoted(_literal(image)) for image in job.images]
    if job.mask:
        found["mask"] = _quoted(_literal(job.mask))
    path = _literal(job.path.replace(EXT_PLACEHOLDER, "\0")).replace("\0", "{{ ext }}")
    found["output"] = {"dir": _quoted(job.root), "path": _quoted(path), **_quoted(dict(job.output))}
    if job.tags:
        found["tags"] = _quoted(list(job.tags))
    return found


def _literal(text: str) -> str:
    """Return a template that renders to this text."""
    if not _TEMPLATE_MARKS.search(text):
        return text
    return _TEMPLATE_MARKS.sub(lambda mark: "{{ '" + mark[0] + "' }}", text)


class _Text(str):
    """Written in quotes, so that no YAML reader takes it for a number, a date or a boolean."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Plain YAML with quoted texts."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: readers that limit expansion, ours among them, refuse aliases."""
        return True


_Dumper.add_representer(
    _Text,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"'),
)


def _quoted(value: Any) -> Any:
    if isinstance(value, str):
        return _Text(value)
    if isinstance(value, dict):
        return {name: _quoted(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_quoted(inner) for inner in value]
    return value


def _dump(value: object) -> str:
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, indent=2
    )
