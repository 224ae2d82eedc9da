"""A row of the table of error codes and phrases."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The meaning of a code or phrase."""

    MONEY = "out of money, credits, quota or budget"
    ACCESS = "wrong key, missing permission, locked account"
    STOP = "no request of this run can succeed: model, route, daily quota"
    BLOCKED = "refused by a safety system"
    THROTTLED = "too many requests, or overloaded"
    REFUSED = "this request is invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Codes, types and phrases of one provider with the same meaning."""

    kind: Kind
    family: str
    source: str
    """A public URL, or a note on who reported it."""
    names: tuple[str, ...] = ()
    """Codes or types as the provider spells them. ``A`` also covers ``A.B``."""
    phrases: tuple[str, ...] = ()
    """English phrases match whole words in lower case, with an optional final s. Chinese phrases
    match anywhere."""


def row(kind: Kind, family: str, source: str, *, names: str = "", phrases: str = "") -> Row:
    """Create a row from comma-separated names and phrases."""
    return Row(kind=kind, family=family, source=source, names=_list(names), phrases=_list(phrases))


def _list(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))
