"""Parse JSON without losing what common parsers drop: repeated keys and the digits of long numbers.

Data scripts also write NaN and Infinity, which are not JSON; they are null here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

import orjson

_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")
_MAX_INTEGER_DIGITS: Final = 19
"""Every integer of so many digits fits into 64 bits."""
_CONTAINERS: Final = (dict, list)


class RepeatedKeys(dict[str, object]):
    """An object in which a key occurs more than once."""

    def __init__(self, pairs: Sequence[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.pairs = tuple(pairs)


def parse(data: bytes) -> object:
    """Return the value of a JSON text. Raises orjson.JSONDecodeError.

    Integers beyond 64 bits stay text: as numbers they would lose digits, and two keys could become
    one. An object with a repeated key is a `RepeatedKeys`.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        if b"NaN" not in data and b"Infinity" not in data:
            raise
        return _parse_exactly(data)
    return value if _is_exact(data, value) else _parse_exactly(data)


def has_repeated_keys(value: object) -> bool:
    """Return whether an object inside of a value has a repeated key."""
    if isinstance(value, dict):
        return isinstance(value, RepeatedKeys) or any(map(has_repeated_keys, value.values()))
    return isinstance(value, list) and any(map(has_repeated_keys, value))


def _is_exact(data: bytes, value: object) -> bool:
    """Return whether the fast parser kept everything; parsing again costs ten times as much."""
    strings, floats = _counts(value)
    quotes = data.count(b'"')
    if quotes != strings * 2 and b'\\"' in data:
        # Without escaped backslashes, each escaped quote is one.
        quotes = data.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')
    return quotes == strings * 2 and not (floats and _LONG_NUMBER.search(data))


def _counts(value: object) -> tuple[int, bool]:
    """Return the number of strings in a value, keys included, and whether it holds a float."""
    if isinstance(value, dict):
        strings, inner = len(value), list(value.values())
    elif isinstance(value, list):
        strings, inner = 0, value
    else:
        return int(isinstance(value, str)), isinstance(value, float)
    floats = False
    for one in inner:
        kind = type(one)
        if kind is str:
            strings += 1
        elif kind is float:
            floats = True
        elif kind in _CONTAINERS:
            more, has_float = _counts(one)
            strings += more
            floats = floats or has_float
    return strings, floats


def _parse_exactly(data: bytes) -> object:
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_constant=lambda name: None,
        )
    except json.JSONDecodeError as error:
        raise orjson.JSONDecodeError(error.msg, error.doc, error.pos) from None
    except (RecursionError, UnicodeDecodeError) as error:
        raise orjson.JSONDecodeError(str(error), "", 0) from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else RepeatedKeys(pairs)


def _integer(text: str) -> int | str:
    if len(text) <= _MAX_INTEGER_DIGITS:
        return int(text)
    if len(text) > _MAX_INTEGER_DIGITS + 2:
        return text
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 64 else text
