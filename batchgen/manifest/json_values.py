"""Parse JSON without losing what common parsers drop: repeated keys and the digits of long numbers.

Data scripts also write NaN and Infinity, which are not JSON; they are null here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, NamedTuple

import orjson

_HUGE: Final = float(1 << 63)
"""The fast parser returns integers beyond 64 bits as floats, which are at least this large."""
_MAX_INTEGER_DIGITS: Final = 19
"""Every integer with at most this number of digits fits into 64 bits."""
_CONTAINERS: Final = frozenset({dict, list})


class RepeatedKeys(dict[str, object]):
    """An object in which a key occurs more than once."""

    def __init__(self, pairs: Sequence[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.pairs = tuple(pairs)


def json_object(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Return the object of these keys and values; a `RepeatedKeys` if a key is repeated."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else RepeatedKeys(pairs)


class Parsed(NamedTuple):
    """The value of a JSON text."""

    value: object
    may_repeat: bool
    """Whether an object in it may be a `RepeatedKeys`."""


def parse(data: bytes) -> Parsed:
    """Return the value of a JSON text. Raises orjson.JSONDecodeError.

    Integers beyond 64 bits stay text: as numbers they would lose digits, and two keys could become
    one. An object with a repeated key is a `RepeatedKeys`.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        if b"NaN" not in data and b"Infinity" not in data:
            raise
        return Parsed(_parse_exactly(data), True)
    if _is_exact(data, value):
        return Parsed(value, False)
    return Parsed(_parse_exactly(data), True)


def has_repeated_keys(value: object) -> bool:
    """Return whether an object inside of a value has a repeated key."""
    if isinstance(value, dict):
        return isinstance(value, RepeatedKeys) or any(map(has_repeated_keys, value.values()))
    return isinstance(value, list) and any(map(has_repeated_keys, value))


def _is_exact(data: bytes, value: object) -> bool:
    """Return whether the fast parser kept everything; parsing again costs ten times as much.

    A repeated key leaves one ``":`` more in the text than there are keys. Text may hold that too,
    and a space may be in front of the colon, so it may also return False for a text that was kept.
    """
    keys, has_huge = _counts(value)
    has_spaces = b" :" in data or b"\t:" in data or b"\n:" in data or b"\r:" in data
    return data.count(b'":') == keys and not has_spaces and not has_huge


def _counts(value: object) -> tuple[int, bool]:
    """Return the number of keys in a value, and whether it holds a float beyond 64 bits."""
    if isinstance(value, dict):
        keys, cells = len(value), list(value.values())
    elif isinstance(value, list):
        keys, cells = 0, value
    else:
        return 0, type(value) is float and abs(value) >= _HUGE
    kinds, has_huge = set(map(type, cells)), False
    if float in kinds:
        for one in cells:
            if type(one) is float and (one >= _HUGE or one <= -_HUGE):
                has_huge = True
    if not kinds.isdisjoint(_CONTAINERS):
        for one in cells:
            if type(one) in _CONTAINERS and one:
                more, inner_huge = _counts(one)
                keys += more
                has_huge = has_huge or inner_huge
    return keys, has_huge


def _parse_exactly(data: bytes) -> object:
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=json_object,
            parse_int=_integer,
            parse_constant=lambda name: None,
        )
    except json.JSONDecodeError as error:
        raise orjson.JSONDecodeError(error.msg, error.doc, error.pos) from None
    except (RecursionError, UnicodeDecodeError) as error:
        raise orjson.JSONDecodeError(str(error), "", 0) from None


def _integer(text: str) -> int | str:
    if len(text) <= _MAX_INTEGER_DIGITS:
        return int(text)
    if len(text) > _MAX_INTEGER_DIGITS + 2:
        return text
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 64 else text
