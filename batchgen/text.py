"""Text functions shared by manifests, keys and error messages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import PurePath
from typing import Final

_MAX_COMPARED_CHARS: Final = 100


def cause_of(error: Exception) -> str:
    """Return why a file could not be used, in words: no number, and no path a second time."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}"
    return getattr(error, "strerror", None) or str(error)


def names_html(path: PurePath) -> bool:
    """Return whether the name of a file says that it is an HTML page."""
    return path.suffix.lower() in (".html", ".htm")


def slug(text: str, max_chars: int | None = None) -> str:
    """Return the words of a text in lower case, joined by dashes.

    ``Blue Mug, 0.3 l`` becomes ``blue-mug-0-3-l``. Letters of every script are kept. A result
    longer than ``max_chars`` is cut after a whole word, if one fits.
    """
    text = unicodedata.normalize("NFC", text.lower())
    if max_chars is not None:
        # Enough for the cut below even if there is a lot of punctuation around each word.
        text = text[: max_chars * 20]
        start = text[: max_chars * 2]
        if start.isascii() and len(words := _NO_WORDS.sub("-", start).strip("-")) > max_chars:
            return _cut(words, max_chars)  # what follows makes no difference
    if text.isascii():
        words = _NO_WORDS.sub("-", text).strip("-")
    else:
        # Keep combining marks with their letter: vowel signs in Hindi, tone marks in Vietnamese.
        kept = (char if char.isalnum() or _is_mark(char) else "-" for char in text)
        words = re.sub("--+", "-", "".join(kept)).strip("-")
    return words if max_chars is None else _cut(words, max_chars)


_NO_WORDS: Final = re.compile("[^a-z0-9]+")


def _cut(words: str, max_chars: int) -> str:
    if len(words) <= max_chars:
        return words
    cut = words[: max_chars + 1]
    return cut.rpartition("-")[0] if "-" in cut else cut[:max_chars]


def closest_match(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that a misspelt one resembles most, ignoring case.

    None if no word is similar enough for a "did you mean" hint.
    """
    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(word[:_MAX_COMPARED_CHARS].lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def known_names_hint(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: its closest match, or the names that exist."""
    names = list(known)
    if close := closest_match(name, names):
        return f"did you mean {close!r}?"
    if not names:
        return "none exist"
    shown = ", ".join(names[:20])
    return f"there are: {shown}, ..." if len(names) > 20 else f"there are: {shown}"


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 request``, ``2 requests``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float, *, whole: bool = False) -> str:
    """Return a duration such as ``1h 05m``, ``2m 08s``, ``42s`` or ``1.7s``.

    With ``whole``, seconds have no decimals.
    """
    rounded = round(seconds)
    hours, rest = divmod(rounded, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours:,}h {minutes:02d}m"
    if minutes:
        return f"{minutes}m {left:02d}s"
    return f"{seconds:.1f}s" if seconds < 10 and not whole else f"{left}s"


def file_size(size: int) -> str:
    """Return a size in decimal units such as ``48 kB`` or ``1.2 MB``."""
    if size < 1_000:
        return f"{size} bytes" if size != 1 else "1 byte"
    if size < 1_000_000:
        return f"{size / 1_000:.0f} kB"
    if size < 1_000_000_000:
        return f"{size / 1_000_000:.1f} MB"
    return f"{size / 1_000_000_000:,.1f} GB"
