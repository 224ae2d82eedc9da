"""Find the encoding of a text table: declared, marked, UTF-8, or a legacy one that is certain."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

from batchgen.manifest.lines import BadByte, first_bad_byte
from batchgen.manifest.table import RowsFault
from batchgen.manifest.table_bytes import TableFile

_CHUNK_BYTES: Final = 1 << 20
_MAX_TOKENS: Final = 20_000
_MAX_TOKEN_BYTES: Final = 400
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT_CODECS: Final = frozenset(
    {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7", "mbcs", "oem"}
)
_TOKEN: Final = re.compile(rb"[^\s\"',;<>=/()!?.:*+-]+")
"""None of the separators is the second byte of a character in any encoding that is looked for."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding, and the notice that it was guessed; empty if it was not."""

    name: str
    notice: str = ""


def check_encoding(name: str) -> str:
    """Return the name of a text encoding of Python. Raises ValueError."""
    try:
        found = codecs.lookup(name)
        "".encode(name)
    except (LookupError, ValueError):
        found = None
    if found is None or found.name.replace("_", "-") in _NO_TEXT_CODECS:
        raise ValueError(
            f"unknown encoding {name[:40]!r}; expected a name such as utf-8, windows-1252, cp1251,"
            " shift_jis or utf-16"
        )
    return name


def find_encoding(table: TableFile, declared: str | None) -> Encoding:
    """Find the encoding of a table. Raises RowsFault if it is not certain."""
    with table.open() as stream:
        head = stream.read(4096)
    mark = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if declared is not None:
        is_marked_utf8 = mark == "utf-8-sig" and codecs.lookup(declared).name == "utf-8"
        return Encoding("utf-8-sig" if is_marked_utf8 else declared)
    if mark is not None:
        return Encoding(mark)
    if unmarked := _unmarked_utf16(head):
        return Encoding(unmarked)
    if (bad := first_bad_byte(table, "utf-8")) is None:
        return Encoding("utf-8")
    return _legacy_encoding(table, bad)


def _unmarked_utf16(head: bytes) -> str | None:
    """Return UTF-16 if half of the bytes are zero; text in other encodings has none."""
    even, odd, pairs = head[::2].count(0), head[1::2].count(0), len(head) // 2
    if pairs >= 2 and odd * 10 >= pairs * 9 and even == 0:
        return "utf-16-le"
    if pairs >= 2 and even * 10 >= pairs * 9 and odd == 0:
        return "utf-16-be"
    return None


def _legacy_encoding(table: TableFile, bad: BadByte) -> Encoding:
    # Imported here: most tables are UTF-8.
    from batchgen.manifest.legacy_encodings import plausible_readings

    candidates = plausible_readings(_tokens(table))
    problem = f"not UTF-8: byte 0x{bad.value:02x} at offset {bad.offset:,}"
    if len(candidates) == 1:
        found = candidates[0]
        return Encoding(
            found.encoding,
            f"{problem}; read as {found.encoding}, the only encoding in which its words make sense"
            f" ({found.example!r}); set rows: {{encoding: {found.encoding}}} to be sure",
        )
    shown = " or ".join(f"{one.encoding} ({one.example!r})" for one in candidates[:4])
    hint = f", such as {shown}" if shown else ""
    raise RowsFault(
        f"{problem}; expected UTF-8, or rows: {{encoding: NAME}}{hint}",
        file=table.label,
        line=bad.line,
    )


def _tokens(table: TableFile) -> list[bytes]:
    """Return different words with bytes beyond ASCII, in their order."""
    found: dict[bytes, None] = {}
    with table.open() as stream:
        while line := stream.readline(_CHUNK_BYTES):
            if line.isascii():
                continue
            for token in _TOKEN.findall(line):
                if not token.isascii() and len(token) <= _MAX_TOKEN_BYTES:
                    found[token] = None
            if len(found) >= _MAX_TOKENS:
                break
    return list(found)
