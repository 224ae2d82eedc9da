"""Decide which legacy encoding a text is in, but only if a single reading makes sense.

A wrong letter in a prompt is paid for, so a reading counts only if its words are words: letters of
one alphabet, capitals in front, no stray symbols. Alphabets are those of
https://en.wikipedia.org/wiki/List_of_Latin-script_alphabets.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_MAX_BAD: Final = 0.02
"""Share of words that may look wrong in the right encoding: names of brands and the like."""
_MIN_BAD: Final = 0.08
"""Share of words that look wrong in every other encoding that reads the text differently."""

_WESTERN: Final = (
    "àâæçéèêëîïôœùûüÿ",  # French
    "äöüßéèêàç",  # German, with French words
    "áéíóúüñçàèòï",  # Spanish, Catalan
    "áâãàçéêíóôõúü",  # Portuguese
    "àèéìòóùç",  # Italian
    "éèëïóöüáàêçûî",  # Dutch
    "åäöéüèàç",  # Swedish, Finnish
    "æøåéöäüèêòóâô",  # Danish, Norwegian
    "áðéíóúýþæö",  # Icelandic
    "éèêëàâçñïöüôîáóú",  # English, with words of all these
)
_CENTRAL: Final = (
    "ąćęłńóśźżéöü",  # Polish
    "áčďéěíňóřšťúůýžöüä",  # Czech
    "áäčďéíľňóôšťúýžöü",  # Slovak
    "áéíóöőúüű",  # Hungarian
    "čćđšžéöü",  # Croatian, Slovene
    "ăâîșțşţé",  # Romanian
)
_BALTIC: Final = ("ąčęėįšųūž", "āčēģīķļņšūž", "äöõüšž")
_TURKISH: Final = ("çğıöşüâîûé",)
_CYRILLIC: Final = (
    "абвгдежзийклмнопрстуфхцчшщъыьэюяё",  # Russian, Bulgarian
    "абвгдежзийклмнопрстуфхцчшщьюяіїєґ",  # Ukrainian
    "абвгдежзийклмнопрстуфхцчшыьэюяёіў",  # Belarusian
    "абвгдежзийклмнопрстуфхцчшђјљњћџѓќѕ",  # Serbian, Macedonian
)
_GREEK: Final = ("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋ",)
_SYMBOLS: Final = frozenset("–—‘’‚“”„•…€£¥§©®™°±²³·×¹º½¼¾«»‹›№´¿¡µ\xa0")  # noqa: RUF001
_BETWEEN_LETTERS: Final = "’‘–—\xa0"  # noqa: RUF001
_WORD: Final = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A reading of a text."""

    encoding: str
    example: str
    """A word with letters beyond ASCII, decoded."""


def _has_case_of_word(word: str) -> bool:
    return word.islower() or word.isupper() or (word[0].isupper() and word[1:].islower())


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def _of_alphabets(alphabets: Iterable[str]) -> Callable[[list[str]], int]:
    sets = [frozenset(alphabet) for alphabet in alphabets]

    def count_bad(tokens: list[str]) -> int:
        """Count the tokens that are bad in any alphabet, and those in the most fitting one."""
        bad, letters_of = 0, list[str]()
        for token in tokens:
            words = [word for word in _WORD.findall(token) if not word.isascii()]
            if _has_bad_symbol(token) or any(map(_is_bad_word, words)):
                bad += 1
            else:
                letters_of.append("".join(map(_letters_beyond_ascii, words)))
        return bad + min(sum(not letters.issuperset(own) for own in letters_of) for letters in sets)

    return count_bad


def _letters_beyond_ascii(word: str) -> str:
    """Return the letters that an alphabet must have, in lower case."""
    beyond = _beyond_ascii(word)
    if all(char in "ºª" for char in beyond):
        return ""
    # The dotted capital of Turkish is two characters in lower case, and in no list of alphabets.
    return "".join(char.lower() for char in beyond if char != "İ")


def _beyond_ascii(word: str) -> list[str]:
    return [char for char in word if char.isalpha() and not char.isascii()]


def _is_bad_word(word: str) -> bool:
    """Return whether a word with letters beyond ASCII cannot be one in any alphabet."""
    beyond = _beyond_ascii(word)
    if all(char in "ºª" for char in beyond):
        return False
    if len(word) == 1:
        return word.isupper()
    if not beyond[0].lower()[0] < "\u0250":  # Greek, Cyrillic: no ASCII letters between
        return len(beyond) < len(word) or not _has_case_of_word(word)
    too_many = len(beyond) * 4 > len(word) * 3 and len(word) > 3
    return too_many or not _has_case_of_word(word.replace("ß", "s"))


def _has_bad_symbol(token: str) -> bool:
    """Return whether a token has a symbol that is not of texts, or one between two letters."""
    for at, char in enumerate(token):
        if char.isascii() or char.isalpha():
            continue
        if unicodedata.category(char).startswith("M"):
            if at == 0 or token[at - 1].isascii():
                return True
            continue
        if char not in _SYMBOLS:
            return True
        between = token[at - 1 : at].isalpha() and token[at + 1 : at + 2].isalpha()
        if between and char not in _BETWEEN_LETTERS and token[at - 1 : at + 2].lower() != "l·l":
            return True
    return False


def _of_script(name: str, *, final_forms: str = "") -> Callable[[list[str]], int]:
    """Return a counter for a script without case; ``final_forms`` occur at the end of words."""
    not_inside = re.compile(f"[{final_forms}](?=[^\\W\\d_])") if final_forms else None

    def is_bad(token: str) -> bool:
        if _has_bad_symbol(token) or (not_inside and not_inside.search(token)):
            return True
        return any(
            any(_script(char) != name for char in word)
            for word in _WORD.findall(token)
            if not word.isascii()
        )

    return lambda tokens: sum(map(is_bad, tokens))


_CJK_SYMBOLS: Final = re.compile(
    "[\u3000-\u303f\u30fb\u30fc\uff01-\uff65\uffe0-\uffe6\u2000-\u22ff]"
)


def _of_japanese(tokens: list[str]) -> int:
    """Count tokens with a kanji beyond JIS level 1; all, if there are no kana."""
    text = "".join(tokens)
    beyond = [char for char in text if not char.isascii()]
    kana = sum("\u3040" <= char <= "\u30fe" for char in beyond)
    if kana * 20 < len(beyond):
        return len(tokens)
    return sum(not all(map(_is_common_japanese, token)) for token in tokens)


def _is_common_japanese(char: str) -> bool:
    if char.isascii() or "\u3040" <= char <= "\u30fe" or _CJK_SYMBOLS.match(char):
        return True
    lead = char.encode("euc_jp", "replace")[0]
    return 0xB0 <= lead <= 0xCF


def _of_chinese(tokens: list[str]) -> int:
    """Count tokens with a character beyond level 1 of GB 2312; all, if none is in its last rows.

    Korean text has no bytes of these rows, and would pass otherwise.
    """
    leads = [
        char.encode("gb2312", "replace")[0]
        for token in tokens
        for char in token
        if not char.isascii() and not _CJK_SYMBOLS.match(char)
    ]
    if sum(0xC9 <= lead <= 0xD7 for lead in leads) * 20 < len(leads):
        return len(tokens)
    return sum(not all(map(_is_common_chinese, token)) for token in tokens)


def _is_common_chinese(char: str) -> bool:
    if char.isascii() or _CJK_SYMBOLS.match(char):
        return True
    return 0xB0 <= char.encode("gb2312", "replace")[0] <= 0xD7


def _of_korean(tokens: list[str]) -> int:
    def is_common(char: str) -> bool:
        return char.isascii() or "\uac00" <= char <= "\ud7a3" or bool(_CJK_SYMBOLS.match(char))

    return sum(not all(map(is_common, token)) for token in tokens)


_count_bad_western: Final = _of_alphabets(_WESTERN)
_count_bad_central: Final = _of_alphabets(_CENTRAL)
_count_bad_cyrillic: Final = _of_alphabets(_CYRILLIC)

_JUDGES: Final[Mapping[str, Callable[[list[str]], int]]] = {
    "cp1252": _count_bad_western,
    "cp1250": _count_bad_central,
    "cp1257": _of_alphabets(_BALTIC),
    "cp1254": _of_alphabets(_TURKISH),
    "iso8859-2": _count_bad_central,
    "iso8859-15": _count_bad_western,
    "mac_roman": _count_bad_western,
    "cp850": _count_bad_western,
    "cp852": _count_bad_central,
    "cp1251": _count_bad_cyrillic,
    "koi8-r": _count_bad_cyrillic,
    "cp866": _count_bad_cyrillic,
    "cp1253": _of_alphabets(_GREEK),
    "cp1255": _of_script("HEBREW", final_forms="ךםןףץ"),
    "cp1256": _of_script("ARABIC"),
    "cp874": _of_script("THAI"),
    "cp932": _of_japanese,
    "euc_jp": _of_japanese,
    "gb18030": _of_chinese,
    "euc_kr": _of_korean,
}
"""Counters of tokens that do not look like words, by encoding; more common encodings first."""


def plausible_readings(tokens: list[bytes]) -> list[Candidate]:
    """Return the encodings in which these tokens are words, without those that read them equally.

    Each token holds a byte beyond ASCII. One candidate means that the encoding is known.
    """
    if not tokens:
        return []
    read: dict[tuple[str, ...], tuple[float, str]] = {}
    judged: set[tuple[Callable[[list[str]], int], tuple[str, ...]]] = set()
    for encoding, count_bad in _JUDGES.items():
        try:
            texts = [token.decode(encoding) for token in tokens]
        except UnicodeDecodeError:
            continue
        reading = tuple(texts)
        if (count_bad, reading) in judged:
            continue  # the more common encoding of the same alphabets counts for both
        judged.add((count_bad, reading))
        share = count_bad(texts) / len(texts)
        known = read.get(reading)
        if known is None or share < known[0]:
            read[reading] = (share, encoding)
    best = min((share for share, _ in read.values()), default=1.0)
    bar = _MIN_BAD if best <= _MAX_BAD else _MIN_BAD * 2
    found = sorted(
        (share, encoding, texts) for texts, (share, encoding) in read.items() if share < bar
    )
    return [Candidate(encoding, texts[0]) for _, encoding, texts in found]
