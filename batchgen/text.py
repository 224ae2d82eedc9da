"""Text rules that manifests, keys and reports share."""

from __future__ import annotations

import re
import unicodedata


def slug(text: str, max_chars: int | None = None) -> str:
    """Words in lower case joined by dashes: ``Blue Mug, 0.3 l`` is ``blue-mug-0-3-l``.

    Letters of every script stay. With ``max_chars`` it ends with a whole word, if one fits.
    """
    text = unicodedata.normalize("NFC", text.lower())
    if max_chars is not None:
        # Enough for the cut below even when each word stands among a lot of punctuation.
        text = text[: max_chars * 20]
    if text.isascii():
        words = re.sub("[^a-z0-9]+", "-", text).strip("-")
    else:
        # A mark belongs to the letter before it: vowel signs in Hindi, tone marks in Vietnamese.
        kept = (char if char.isalnum() or _is_mark(char) else "-" for char in text)
        words = re.sub("--+", "-", "".join(kept)).strip("-")
    if max_chars is None or len(words) <= max_chars:
        return words
    cut = words[: max_chars + 1]
    return cut.rpartition("-")[0] if "-" in cut else cut[:max_chars]


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 request``, ``2 requests``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
