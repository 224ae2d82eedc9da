"""Cells of a CSV file that a person may open in a spreadsheet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_FORMULA: Final = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""First characters after which a spreadsheet computes a cell: owasp.org, "CSV Injection"."""
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def without_formulas(row: Mapping[str, object]) -> dict[str, object]:
    """Return a row in which a spreadsheet computes nothing.

    An apostrophe comes before text that begins like a formula. Numbers stay as they are, and so do
    values that are not text.
    """
    return {name: _escaped(value) for name, value in row.items()}


def _escaped(value: object) -> object:
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
