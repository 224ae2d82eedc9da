"""Cells of a CSV file that a person may open in a spreadsheet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Start of text that a spreadsheet computes: owasp.org, "CSV Injection".

Apostrophes before it count too, so that `as_written` removes ours and no other.
"""
_NUMBER: Final = re.compile(r"'*[+-]?[0-9]+(\.[0-9]+)?")


def without_formulas(row: Mapping[str, object]) -> dict[str, object]:
    """Return a row in which a spreadsheet computes nothing.

    An apostrophe comes before text that begins like a formula. Numbers stay as they are, and so do
    values that are not text.
    """
    return {name: _escaped(value) for name, value in row.items()}


def as_written(cell: str) -> str:
    """Return the text of a cell that `without_formulas` wrote."""
    return cell[1:] if cell.startswith("'") and _is_computed(cell[1:]) else cell


def _escaped(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and _is_computed(value) else value


def _is_computed(text: str) -> bool:
    return _FORMULA.match(text) is not None and not _NUMBER.fullmatch(text)
