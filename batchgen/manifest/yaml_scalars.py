"""What an unquoted YAML scalar means: as in YAML 1.2, with what readers disagree on set apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeAlias, Union


@dataclass(frozen=True, slots=True)
class Null:
    """``null``, ``~`` or nothing at all, written where a value could be."""


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """``NO``, ``12:30``, ``010``: one reader's text is another one's number, truth or date."""

    text: str


Scalar: TypeAlias = str | bool | int | Decimal | Null | Ambiguous
Value: TypeAlias = Union[Scalar, "list[Value]", "dict[str, Value]"]

NULL: Final = Null()

_WORDS: Final[dict[str, Scalar]] = {
    "": NULL,
    "~": NULL,
    **dict.fromkeys(("null", "Null", "NULL"), NULL),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_LONGEST_WORD: Final = 5
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
"""Up to 18 digits, which every reader of JSON and SQL takes."""
_DECIMAL: Final = re.compile(r"(?!-0\.0*\Z)-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
_AMBIGUOUS: Final = re.compile(
    r"""
      y | n | yes | no | on | off | true | false | null | = | <<
    | [-+]? [0-9] [0-9_]* (?: \. [0-9_]* )? (?: e [-+]? [0-9]+ )?
    | [-+]? \. [0-9] [0-9_]* (?: e [-+]? [0-9]+ )?
    | [-+]? 0 [box] [0-9a-f_]+
    | [-+]? [0-9] [0-9_]* (?: : [0-9]+ )+ (?: \. [0-9_]* )?
    | [-+]? \. inf | \. nan
    | [0-9]{4} - [0-9]{1,2} - [0-9]{1,2} (?: (?: t | [ \t]+ ) [0-9]{1,2} : [0-9]{2} .* )?
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
"""All that YAML 1.1 or 1.2 reads as something other than text. Wider in one point: ``12:75`` is not
a number of base 60, but ``12:30`` is, and users should not need to know the difference."""


def resolve(text: str) -> Scalar:
    """Return the value of an unquoted scalar; a number that loses digits is ambiguous."""
    if len(text) > _LONGEST_WORD and text[0] not in "+-.0123456789":
        return text
    word = _WORDS.get(text)
    if word is not None:
        return word
    if _INTEGER.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return Decimal(text)
    return Ambiguous(text) if _AMBIGUOUS.fullmatch(text) else text
