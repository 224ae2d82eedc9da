"""Redaction hides a secret wherever the stream is split."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from html import unescape
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.spool.redaction import PlainRedaction, Redactor, TextRedaction

SECRETS = [b"sk-ab", b"aab", b"a-a-a", b"-x", b"aXb_-"]
"""With and without a non-base64 character, at several indexes; some overlap with themselves."""


def redacted(secret: bytes, pieces: list[bytes]) -> bytes:
    redaction = PlainRedaction(secret)
    return b"".join([*(redaction.filter(piece) for piece in pieces), redaction.flush()])


@given(secret=st.sampled_from(SECRETS), data=st.data())
def test_redaction_is_independent_of_chunking(secret: bytes, data: st.DataObject) -> None:
    letters = st.sampled_from([bytes([letter]) for letter in set(secret) | set(b"z")])
    text = st.lists(letters | st.just(secret), max_size=12).map(b"".join)
    pieces = data.draw(st.lists(text, max_size=6))
    assert redacted(secret, pieces) == b"".join(pieces).replace(secret, b"***")


@pytest.mark.parametrize("secret", SECRETS)
def test_secret_split_in_three_is_redacted(secret: bytes) -> None:
    whole = b"before " + secret + b" after"
    for first in range(len(whole)):
        for second in range(first, len(whole)):
            pieces = [whole[:first], whole[first:second], whole[second:]]
            assert redacted(secret, pieces) == b"before *** after"


def test_only_a_possible_start_is_held_back() -> None:
    redaction = PlainRedaction(b"sk-abc")
    assert redaction.filter(b"AAAAsAAA") == b"AAAAsAAA"
    assert redaction.filter(b"AAAAsk") == b"AAAA"
    assert redaction.filter(b"y") == b"sky"
    assert redaction.flush() == b""


KEY = "sk-Ab9/x+Zy7_0123456789-cdefGHI"
KEYS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=16, max_size=60)
ECHOES: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper case": str.upper,
    "lower case": str.lower,
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 after one byte": lambda key: base64.b64encode(f"a{key}b".encode()).decode(),
    "base64 after two": lambda key: base64.b64encode(f"a:{key}".encode()).decode(),
    "base64 of a header": lambda key: base64.urlsafe_b64encode(
        f"Bearer {key}\r\n".encode()
    ).decode(),
    "base64 in JSON": lambda key: base64.b64encode(key.encode()).decode().replace("/", "\\/"),
    "base64 in a URL": lambda key: quote(base64.b64encode(key.encode()), safe=""),
    "hex": lambda key: key.encode().hex(),
    "hex in upper case": lambda key: key.encode().hex().upper(),
    "URL": lambda key: quote(key, safe=""),
    "URL, every character": lambda key: "".join(f"%{ord(char):02x}" for char in key),
    "URL, twice": lambda key: quote(quote(key, safe=""), safe=""),
    "JSON": lambda key: json.dumps(key)[1:-1],
    "JSON, every character": lambda key: "".join(f"\\u{ord(char):04X}" for char in key),
    "JSON in JSON": lambda key: json.dumps(json.dumps(key.replace("-", "\\u002d")))[3:-3],
    "a literal of Python": lambda key: "".join(f"\\x{ord(char):02x}" for char in key),
    "HTML": lambda key: "".join(f"&#{ord(char)};" for char in key),
    "HTML in hex": lambda key: "".join(f"&#x{ord(char):x};" for char in key),
}
"""Ways in which servers repeat a key."""


def secrets_of(key: str, text: bytes) -> list[bytes]:
    """Return what of the key is left in a text in which every form is undone."""
    plain = key.encode()
    undone = [text, unquote_to_bytes(text), unquote_to_bytes(unquote_to_bytes(text))]
    undone.append(unescape(text.decode("latin-1")).encode("latin-1", "replace"))
    readable = re.sub(
        rb"\\+(?:u00|x)([0-9a-fA-F]{2})", lambda found: bytes.fromhex(found[1].decode()), text
    )
    undone += [readable, readable.replace(b"\\", b"")]
    found = [one for one in undone if plain.lower() in one.lower()]
    for run in re.findall(rb"[A-Za-z0-9+/_-]{12,}", b"\n".join(undone)):
        for begin in range(4):
            piece = run[begin:].translate(bytes.maketrans(b"-_", b"+/"))
            data = base64.b64decode(piece[: len(piece) // 4 * 4])
            found += [run] if plain[2:-2] in data else []
    for run in re.findall(rb"[0-9a-fA-F]{12,}", text):
        found += [run] if plain.hex().encode() in run.lower() else []
    return found


@pytest.mark.parametrize("echo", ECHOES)
def test_echo_of_the_key_is_hidden_in_any_form(echo: str) -> None:
    text = f'{{"message": "no access for {ECHOES[echo](KEY)} here"}}'
    assert secrets_of(KEY, text.encode()), "the test does not undo this form"
    shown = Redactor(KEY).text(text)
    assert secrets_of(KEY, shown.encode()) == []
    assert shown.startswith('{"message": "no access for ')
    assert shown.endswith(' here"}')
    assert "***" in shown


@given(
    key=KEYS,
    echo=st.sampled_from(sorted(ECHOES)),
    around=st.tuples(st.text(max_size=40), st.text(max_size=40)),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_any_key_is_hidden_wherever_a_text_is_split(
    key: str, echo: str, around: tuple[str, str], cuts: list[int]
) -> None:
    whole = f"{around[0]} {ECHOES[echo](key)} {around[1]}".encode()
    redaction = TextRedaction(Redactor(key))
    found, begin = b"", 0
    for cut in [*sorted(cuts), len(whole)]:
        found += redaction.filter(whole[begin : max(begin, cut)])
        begin = max(begin, cut)
    found += redaction.flush()
    assert secrets_of(key, found) == []
    assert b"***" in found


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=4))
def test_text_without_the_key_stays_as_it_is(data: bytes, cuts: list[int]) -> None:
    redaction = TextRedaction(Redactor(KEY))
    found, begin = b"", 0
    for cut in [*sorted(cuts), len(data)]:
        found += redaction.filter(data[begin : max(begin, cut)])
        begin = max(begin, cut)
    assert found + redaction.flush() == data


def test_text_that_is_not_unicode_stays_as_it_is() -> None:
    text = "a\udcff\ud800b"
    assert Redactor(KEY).text(text) == text
    assert Redactor(KEY).text(f"{text}{KEY}") == f"{text}***"


def test_short_keys_are_no_secrets() -> None:
    assert Redactor.of("none") is None
    assert Redactor.of(None) is None
    assert Redactor.of(KEY) is not None
    assert KEY not in repr(Redactor.of(KEY))
