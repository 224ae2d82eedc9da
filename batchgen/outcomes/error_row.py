"""A row of the table of error codes and phrases."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a code or phrase says."""

    MONEY = "out of money, credits, quota or budget"
    ACCESS = "wrong key, missing permission, locked account"
    STOP = "no other request of this run can succeed: model, route, quota of the day"
    BLOCKED = "refused by a safety system"
    THROTTLED = "too many requests, or overloaded"
    REFUSED = "a fault of this one request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Codes, types and phrases of one provider that mean the same."""

    kind: Kind
    family: str
    source: str
    """A public URL, or who reported it."""
    names: tuple[str, ...] = ()
    """Codes or types as the provider writes them. ``A`` covers ``A.B`` too."""
    phrases: tuple[str, ...] = ()
    """Whole words in English, in lower case; a final s is optional. Any run of characters in
    Chinese."""


def row(kind: Kind, family: str, source: str, *, names: str = "", phrases: str = "") -> Row:
    """Make a row of names and phrases that are separated by commas."""
    return Row(kind=kind, family=family, source=source, names=_list(names), phrases=_list(phrases))


def _list(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))
