"""Text that looks like an image's base64 in a response is recognized, and decoded without loss."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.images.base64_scanner import Base64Decoder, Base64Scanner, Kind, Piece, unpack_base64

IMAGE = random.Random(7).randbytes(300_001)
TEXT = base64.b64encode(IMAGE).decode()


def scanned(body: bytes, size: int = 1 << 20) -> list[Piece]:
    scan = Base64Scanner()
    pieces = [
        piece for at in range(0, len(body), size) for piece in scan.feed(body[at : at + size])
    ]
    return [*pieces, (Kind.TEXT, scan.rest())]


def joined(pieces: list[Piece]) -> bytes:
    return b"".join(data for _, data in pieces)


def texts(pieces: list[Piece]) -> list[bytes]:
    """The long texts that were found."""
    found = [b""]
    for kind, data in pieces:
        if kind is Kind.BASE64:
            found[-1] += data
        elif kind is Kind.END:
            found.append(b"")
    return [text for text in found if text]


@pytest.mark.parametrize("size", [1, 7, 5000, 1 << 20])
def test_image_is_found_however_it_arrives(size: int) -> None:
    document = {"data": [{"b64_json": TEXT[:20_000], "revised_prompt": 'a "mug"'}] * 2}
    body = json.dumps(document).encode()
    pieces = scanned(body, size)
    assert texts(pieces) == [TEXT[:20_000].encode()] * 2
    assert joined(pieces) == body


def test_data_url_keeps_its_prefix() -> None:
    body = json.dumps({"data": [{"url": f"data:image/png;base64,{TEXT}"}]}).encode()
    (kind, text), *_ = scanned(body)
    assert kind is Kind.TEXT
    assert text.endswith(b'"data:image/png;base64,')
    assert texts(scanned(body)) == [TEXT.encode()]


def test_events_of_a_stream_are_looked_at_too() -> None:
    body = b"".join(b'data: {"b64_json": "%s"}\n\n' % TEXT.encode() for _ in range(3))
    assert texts(scanned(body, 65_536)) == [TEXT.encode()] * 3


@pytest.mark.parametrize(
    "text", ["a short one", TEXT[:4000], "x y " * 2000, 'a \\" quote ' * 900], ids=len
)
def test_other_texts_are_text(text: str) -> None:
    body = f'{{"prompt": "{text}", "n": 1}}'.encode()
    assert [kind for kind, data in scanned(body) if data] in ([Kind.TEXT], [Kind.TEXT] * 2)


def test_string_without_end_is_carried_only_to_a_limit() -> None:
    scan = Base64Scanner()
    held = 0
    for _ in range(100):
        shown = scan.feed(b'" ' + b"x " * 5000)
        held = max(held, len(scan._carried))
        assert all(kind is Kind.TEXT for kind, _ in shown)
    assert held <= 300_000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(TEXT[:5000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(VALUES, min_size=1, max_size=4), st.integers(1, 9000))
def test_all_pieces_together_are_the_body(documents: list[Any], size: int) -> None:
    body = json.dumps(documents).encode()
    pieces = scanned(body, size)
    assert joined(pieces) == body
    assert b"".join(texts(pieces)).count(TEXT[:5000].encode()) == body.count(TEXT[:5000].encode())


@given(st.binary(max_size=400), st.integers(0, 400), st.integers(1, 6000))
def test_bytes_of_any_kind_are_kept_as_they_are(noise: bytes, at: int, size: int) -> None:
    body = noise[:at] + b'"' + TEXT[:5000].encode() + b'"' + noise[at:]
    assert joined(scanned(body, size)) == body


# Decoding


def decoded(text: bytes, size: int) -> bytes:
    decoder = Base64Decoder()
    data = b"".join(decoder.feed(text[at : at + size]) for at in range(0, len(text), size))
    return data + decoder.end()


@given(st.binary(max_size=60), st.integers(1, 90))
def test_base64_is_decoded_in_any_pieces(data: bytes, size: int) -> None:
    assert decoded(base64.b64encode(data), size) == data


@given(st.binary(max_size=40) | st.text("AB/+=-_ \n", max_size=24).map(str.encode), st.data())
def test_what_is_decoded_can_be_written_again_letter_by_letter(
    text: bytes, data: st.DataObject
) -> None:
    """Where it can't be, what was decoded and what is held are the text."""
    decoder = Base64Decoder()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    out = b""
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        try:
            out += decoder.feed(text[begin:end])
        except ValueError:
            assert base64.b64encode(out) + decoder.held == text[:end]
            return
    try:
        out += decoder.end()
    except ValueError:
        assert base64.b64encode(out) + decoder.held == text
    else:
        assert base64.b64encode(out) == text


@pytest.mark.parametrize(
    "text", [b"AB==", b"QQ==QQ==", b"AAA", b"AA-_", b"AA\nAA", b"AAA ", b"A=BC", b"=AAA"]
)
def test_base64_in_a_way_of_its_own_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"base64|[Ii]ncorrect|[Nn]on"):
        decoded(text, 3)


@pytest.mark.parametrize(
    "text",
    [
        TEXT.rstrip("="),
        base64.urlsafe_b64encode(IMAGE).decode(),
        f" {TEXT} ",
        "\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
    ],
    ids=["no padding", "url-safe", "blanks around", "lines"],
)
def test_other_spellings_are_understood(text: str) -> None:
    assert unpack_base64(text) == IMAGE


def test_invalid_base64_raises() -> None:
    with pytest.raises(ValueError, match=r"base64|[Ii]ncorrect|[Nn]on"):
        unpack_base64(TEXT[:200_000] + "!" + TEXT[200_001:])


def test_base64_is_unpacked_as_servers_write_it() -> None:
    image = bytes(range(256)) * 4
    text = base64.b64encode(image).decode()
    percent = text.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    for written in (f"base64,{text}", f"b'{text}'", f'"{text}"', percent, text.replace("+", " ")):
        assert unpack_base64(written) == image, written[:20]
