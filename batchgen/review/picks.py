"""Decisions from a file: the picks of a gallery, or decisions that were exported."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from batchgen.console.csv_cells import as_written
from batchgen.errors import SettingsError
from batchgen.ledger.decisions import NewDecision
from batchgen.ledger.newest_decisions import Decision

_YES: Final = frozenset({"1", "yes", "true", "x", "♥"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One row of the file."""

    line: int
    key: str
    path: str
    """Path of the image below its output directory; empty where the row does not say it."""
    sha256: str
    """Of the image that the person saw; empty where the row does not say it."""
    decision: Decision
    note: str
    prompt: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The saved image of a job, and the decision that counts for it."""

    image: int
    key: str
    path: str
    sha256: str
    decision: str | None
    note: str | None
    prompt: str | None


def read_picks(data: bytes, name: str) -> list[Pick]:
    """Read CSV or JSON lines with ``key`` and either ``heart`` and ``comment`` or ``decision``.

    A heart accepts an image; a comment without a heart asks for a redo; a row with neither says
    nothing. Raises SettingsError with the line.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{name}: not UTF-8 text: byte {exc.start}") from exc
    rows = _json_rows if text.lstrip().startswith("{") else _csv_rows
    picks = (_pick(row, line, name) for line, row in rows(text, name))
    return [pick for pick in picks if pick is not None]


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_columns(rows.fieldnames or (), f"{name}:1")
        for row in rows:
            # Python uses the key None for cells beyond the header, and None for missing cells.
            yield (
                rows.line_num,
                {key: as_written(cell) for key, cell in row.items() if key and cell},
            )
    except csv.Error as exc:
        raise SettingsError(f"{name}:{rows.line_num}: not CSV: {exc}") from exc


def _json_rows(text: str, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    for line, written in enumerate(text.split("\n"), 1):
        if not written.strip():
            continue
        try:
            row = orjson.loads(written)
        except orjson.JSONDecodeError as exc:
            raise SettingsError(f"{name}:{line}: not JSON: {exc}") from exc
        if not isinstance(row, dict):
            raise SettingsError(f"{name}:{line}: not a JSON object; expected one on each line")
        _check_columns(row, f"{name}:{line}")
        yield line, {key: str(cell) for key, cell in row.items() if cell is not None}


def _check_columns(columns: Collection[str], place: str) -> None:
    found = set(columns)
    if "key" not in found or not found & {"heart", "decision"}:
        raise SettingsError(
            f"{place}: columns are {', '.join(sorted(found)) or 'missing'}; expected key"
            " and either heart or decision"
        )


def _pick(row: Mapping[str, str], line: int, name: str) -> Pick | None:
    def cell(*names: str) -> str:
        return next((found.strip() for one in names if (found := row.get(one))), "")

    written, note = cell("decision").lower(), cell("comment", "note")
    if written and written not in list(Decision):
        expected = ", ".join(Decision)
        raise SettingsError(f"{name}:{line}: decision: got {written!r}; expected one of {expected}")
    if not written:
        is_accepted = cell("heart").lower() in _YES
        written = Decision.ACCEPT if is_accepted else Decision.REDO if note else ""
    if not written:
        return None
    decision = Decision(written)
    return Pick(
        line=line,
        key=cell("key"),
        path=cell("file", "path"),
        sha256=cell("sha256").lower(),
        decision=decision,
        note=note,
        prompt=(cell("prompt") or None) if decision is Decision.REDO else None,
    )


@dataclass(frozen=True, slots=True)
class Matched:
    """What an import would record."""

    decisions: list[NewDecision]
    unknown: list[Pick]
    """Rows whose key is not in the batch, or whose image was replaced since."""
    same: int
    """Rows that say what the ledger has already."""


def match(picks: Sequence[Pick], targets: Sequence[Target]) -> Matched:
    """Find the image of each row."""
    by_key = dict[str, list[Target]]()
    for one in targets:
        by_key.setdefault(one.key, []).append(one)
    decisions, unknown, same = dict[int, NewDecision](), list[Pick](), 0
    for pick in picks:
        candidates = by_key.get(pick.key, []) if pick.key else targets
        target = next(_fitting(pick, candidates), None)
        if target is None:
            unknown.append(pick)
        elif (target.decision, target.note or "", target.prompt) == (
            pick.decision,
            pick.note,
            pick.prompt,
        ):
            same += 1
        else:
            decisions[target.image] = NewDecision(
                image=target.image,
                sha256=target.sha256,
                decision=pick.decision,
                note=pick.note,
                prompt=pick.prompt,
            )
    return Matched(list(decisions.values()), unknown, same)


def _fitting(pick: Pick, targets: Sequence[Target]) -> Iterator[Target]:
    """Yield the images that a row may be about: by its sha256, else by its path or its key."""
    for target in targets:
        if pick.sha256:
            if target.sha256.startswith(pick.sha256):
                yield target
        elif pick.key and (pick.path in ("", target.path) or len(targets) == 1):
            yield target
