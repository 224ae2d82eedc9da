"""The meanings of providers' error codes, types and phrases: one table, each row with its source.

The same rows apply to HTTP errors, errors inside a 200 and failed tasks. A name must equal a whole
code or type; a phrase may occur anywhere in a message. Both ignore case, white space and the
spelling of dashes and quotes. For messages that no row covers, the progress guard stops a run.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from batchgen.outcomes.account_errors import ACCESS_ROWS, MONEY_ROWS, STOP_ROWS
from batchgen.outcomes.error_row import Kind, Row
from batchgen.outcomes.request_errors import BLOCKED_ROWS, REFUSED_ROWS, THROTTLED_ROWS

TABLE: Final = (
    *MONEY_ROWS,
    *ACCESS_ROWS,
    *STOP_ROWS,
    *BLOCKED_ROWS,
    *THROTTLED_ROWS,
    *REFUSED_ROWS,
)

HTTP_NAMES: Final = MappingProxyType({"401": Kind.ACCESS, "402": Kind.MONEY, "429": Kind.THROTTLED})
"""HTTP statuses as codes in the error of a 200
(https://openrouter.ai/docs/api/reference/errors-and-debugging)."""

_URL: Final = re.compile(r"https?://\S+")
_JOINS: Final = re.compile(r"[\s_\u2010-\u2015\u2212-]+")
_APOSTROPHES: Final = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'"})
_NO_NAME: Final = re.compile(r"[^\w.]+|_+")


def plain(text: str) -> str:
    """Return a text without URLs, normalized for the comparison of phrases."""
    folded = unicodedata.normalize("NFKC", _URL.sub(" ", text).translate(_APOSTROPHES)).casefold()
    folded = unicodedata.normalize("NFKC", folded)
    visible = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    return _JOINS.sub(" ", visible).strip()


def kind_of_name(name: str) -> Kind | None:
    """Return the meaning of a code or type; None if it is unknown."""
    key = _name_key(name)
    while key:
        if (kind := _NAMES.get(key.replace(".", ""))) is not None:
            return kind
        key = key.rpartition(".")[0]
    return None


def says(kind: Kind, message: str, *, prompt: str = "") -> bool:
    """Return whether a message contains a phrase of this kind.

    Phrases that the prompt contains are ignored: some providers repeat it in their errors.
    """
    ours = plain(prompt)
    found = _pattern(kind).finditer(plain(message))
    return any(match.group() not in ours for match in found)


def words() -> Iterator[tuple[Row, str]]:
    """Yield every name and phrase of the table, with its row."""
    for row in TABLE:
        for word in (*row.names, *row.phrases):
            yield row, word


def _name_key(name: str) -> str:
    return _NO_NAME.sub("", unicodedata.normalize("NFKC", name).casefold()).strip(".")


def _all_names() -> Mapping[str, Kind]:
    found: dict[str, Kind] = {}
    for row in TABLE:
        for name in row.names:
            key = _name_key(name).replace(".", "")
            if found.setdefault(key, row.kind) is not row.kind:
                raise AssertionError(f"{name!r} has two meanings")
    return MappingProxyType(found)


_NAMES: Final = _all_names()


@cache
def _pattern(kind: Kind) -> re.Pattern[str]:
    phrases = {phrase for row in TABLE if row.kind is kind for phrase in row.phrases}
    # The longest first, so that the longest phrase matches.
    ordered = sorted(phrases, key=lambda phrase: (-len(phrase), phrase))
    whole = [re.escape(phrase) for phrase in ordered if phrase.isascii()]
    parts = [re.escape(phrase) for phrase in ordered if not phrase.isascii()]
    english = rf"(?<![a-z0-9])(?:{'|'.join(whole)})s?(?![a-z0-9])" if whole else ""
    return re.compile("|".join(filter(None, (english, *parts))) or r"(?!)")
