"""A body without its long texts reads as the body does, and gives the same bytes."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.lean import LeanAnswer, LeanScan, lean

PICTURE = random.Random(7).randbytes(3_000_000)
TEXT = base64.b64encode(PICTURE).decode()


def taken(body: bytes, name: str = "b64_json") -> bytes:
    slim = lean(body)
    return unpacked(slim, json.loads(slim.text)["data"][0][name], body)


def unpacked(slim: LeanAnswer, text: str, body: bytes) -> bytes:
    return b"".join(slim.decoded(text, lambda begin, end: body[begin:end]))


def test_a_picture_of_megabytes_is_left_out_and_found_again() -> None:
    body = json.dumps({"data": [{"b64_json": TEXT, "revised_prompt": 'a "mug"'}]}).encode()
    assert len(lean(body).text) < 200
    assert taken(body) == PICTURE
    assert json.loads(lean(body).text)["data"][0]["revised_prompt"] == 'a "mug"'


@pytest.mark.parametrize(
    "text",
    [
        TEXT.rstrip("=") if TEXT.endswith("=") else base64.b64encode(PICTURE[:-1]).decode()[:-1],
        base64.urlsafe_b64encode(PICTURE).decode(),
        f" {TEXT} ",
        TEXT.replace("/", "\\/"),
    ],
    ids=["no padding", "url-safe", "blanks around", "escaped"],
)
def test_other_spellings_are_understood(text: str) -> None:
    body = f'{{"data": [{{"b64_json": "{text}"}}]}}'.encode()
    assert taken(body)[:1_000_000] == PICTURE[:1_000_000]


def test_an_address_keeps_what_it_says_of_itself() -> None:
    body = json.dumps({"data": [{"url": f"data:image/png;base64,{TEXT}"}]}).encode()
    url = json.loads(lean(body).text)["data"][0]["url"]
    assert url.startswith("data:image/png;base64,")
    assert len(url) < 200
    assert unpacked(lean(body), url.partition(",")[2], body) == PICTURE


def test_what_is_no_base64_raises() -> None:
    broken = TEXT[:2_000_000] + "!" + TEXT[2_000_001:]
    with pytest.raises(ValueError, match=r"base64|[Ii]ncorrect|[Nn]on"):
        taken(json.dumps({"data": [{"b64_json": broken}]}).encode())


def test_a_word_that_looks_like_ours_is_not_taken_for_it() -> None:
    slim = lean(b"{}")
    with pytest.raises(ValueError, match=r"base64|[Ii]ncorrect|[Nn]on"):
        unpacked(slim, "00000000000000000000000000000000:0", b"{}")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(TEXT[:5000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def restored(value: Any, slim: LeanAnswer, body: bytes) -> Any:
    """A document with the bytes of its pictures in their place."""
    if isinstance(value, dict):
        return {name: restored(item, slim, body) for name, item in value.items()}
    if isinstance(value, list):
        return [restored(item, slim, body) for item in value]
    if isinstance(value, str) and ":" in value:
        try:
            return base64.b64encode(unpacked(slim, value, body)).decode()
        except ValueError:
            return value
    return value


@given(VALUES, st.booleans())
def test_any_document_reads_the_same(document: Any, escaped: bool) -> None:
    body = json.dumps(document, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    if escaped or body.decode("utf-8", "replace").encode() == body:
        slim = lean(body)
        assert restored(json.loads(slim.text), slim, body) == document
        assert len(slim.text) <= len(body)


@given(st.binary(max_size=400), st.integers(0, 400))
def test_bytes_of_any_kind_are_kept_as_they_are(noise: bytes, at: int) -> None:
    body = noise[:at] + b'"' + TEXT[:5000].encode() + b'"' + noise[at:]
    slim = lean(body)
    assert len(slim.text) in (len(body), len(body) - 5000 + 34)
    assert lean(noise).text == noise


@given(st.lists(VALUES, min_size=1, max_size=4), st.lists(st.integers(1, 9000), min_size=1))
def test_it_is_the_same_however_it_arrives(documents: list[Any], sizes: list[int]) -> None:
    body = json.dumps(documents).encode()
    scan, at = LeanScan(), 0
    while at < len(body):
        size = sizes[at % len(sizes)]
        scan.feed(body[at : at + size])
        at += size
    found = scan.result()
    assert found is not None
    assert restored(json.loads(found.text), found, body) == documents


def test_a_picture_that_arrives_in_pieces_is_never_carried_along() -> None:
    body = json.dumps({"data": [{"b64_json": TEXT}], "created": 1}).encode()
    scan = LeanScan()
    for at in range(0, len(body), 100_000):
        scan.feed(body[at : at + 100_000])
    found = scan.result()
    assert found == LeanAnswer(text=lean(body).text, spans=lean(body).spans)


def test_a_text_without_end_leaves_nothing_out() -> None:
    scan = LeanScan()
    scan.feed(b'{"data": [{"b64_json": "' + TEXT.encode())
    assert scan.result() is None
    assert lean(b'{"data": "' + TEXT.encode()).text.endswith(TEXT[-99:].encode())
