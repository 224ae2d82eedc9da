"""Bodies are decompressed by what they are, piece by piece and with a limit."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from batchgen.http import decompressors
from batchgen.http.content_coding import MAX_EXPANSION, BadCoding, ContentDecoder
from tests.support.images import SMALL

KINDS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}
DOCUMENTS = st.builds(
    lambda noise, times: (
        json.dumps(
            {"data": [{"url": "https://a.example/1.png", "k": base64.b64encode(noise).decode()}]}
        ).encode()
        * times
    ),
    st.binary(max_size=300),
    st.integers(1, 30),
)


def decoded(coding: str, data: bytes, *cuts: int, limit: int | None = None) -> bytes:
    decoder, found, begin = ContentDecoder(coding, max_expansion=limit), b"", 0
    for cut in [*sorted(cuts), len(data)]:
        found += b"".join(decoder.feed(data[begin : max(begin, cut)]))
        begin = max(begin, cut)
    found += b"".join(decoder.end())
    decoder.refuse_unsupported()
    return found


@pytest.mark.parametrize("kind", KINDS)
@given(document=DOCUMENTS, cuts=st.lists(st.integers(0, 500), max_size=5))
def test_document_is_decoded_in_any_pieces(kind: str, document: bytes, cuts: list[int]) -> None:
    assert decoded(kind, KINDS[kind](document), *cuts) == document
    assert decoded(kind, document, *cuts) == document, "the header is not trusted"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SMALL)
def test_image_is_decoded_or_passed_on(kind: str, name: str) -> None:
    data = SMALL[name][1]
    assert decoded(kind, data) == data
    assert decoded(kind, KINDS[kind](data)) == data


@pytest.mark.parametrize("kind", ["gzip", "br", "zstd"])
@given(document=DOCUMENTS, share=st.floats(0.1, 0.95))
def test_cut_body_is_never_taken_for_a_whole_one(kind: str, document: bytes, share: float) -> None:
    packed = KINDS[kind](document)
    try:
        found = decoded(kind, packed[: int(len(packed) * share)])
    except BadCoding:
        return
    assert found != document


@pytest.mark.parametrize("kind", KINDS)
def test_bomb_is_given_in_small_pieces_and_stopped(kind: str) -> None:
    bomb = KINDS[kind](bytes(64 << 20))
    decoder, sizes = ContentDecoder(kind), [0]
    for piece in decoder.feed(bomb):
        sizes.append(len(piece))
        if sum(sizes) > 20 << 20:
            break
    assert sum(sizes) > 20 << 20
    assert max(sizes) <= 8 << 20
    with pytest.raises(BadCoding, match="expands more than 20-fold"):
        decoded(kind, bomb, limit=MAX_EXPANSION)


@pytest.mark.parametrize("kind", ["gzip", "br", "zstd"])
def test_broken_data_is_reported_after_its_start(kind: str) -> None:
    body = bytes(range(256)) * 4000
    packed = KINDS[kind](body)
    broken = packed[: len(packed) // 2] + bytes(len(packed) // 2)
    with pytest.raises(BadCoding, match=r"broken|cut off"):
        decoded(kind, broken)


@pytest.mark.parametrize("text", [b"Bad gateway", b"!\0", b"", b"no"])
def test_text_under_a_brotli_header_is_passed_on(text: bytes) -> None:
    assert decoded("br", text) == text


def test_brotli_that_begins_like_another_coding_is_read() -> None:
    """Its first bytes are arbitrary: some streams begin like JSON, HTML or gzip."""
    bodies = (b'{"n": %d}' % number * 40 for number in range(4000))
    streams = {packed[:1]: (body, packed) for body in bodies for packed in [brotli.compress(body)]}
    for body, packed in streams.values():
        assert decoded("br", packed) == body
    for size, start in ((121, b"\x0b<"), (183, b"\x0b["), (247, b"\x0b{")):
        body = random.Random(size).randbytes(size)
        assert brotli.compress(body).startswith(start)
        assert decoded("br", brotli.compress(body)) == body


def test_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompressors, "_brotli", lambda: None)
    with pytest.raises(BadCoding, match=r"compressed with br, .*pip install 'brotli>=1\.2'"):
        decoded("br", brotli.compress(b'{"a": "b"}' * 50))
    assert decoded("br", b'{"a": "b"}') == b'{"a": "b"}'


def test_old_brotli_without_a_limit_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        class Decompressor:
            def process(self, data: bytes) -> bytes:
                return data

    def found(name: str) -> object:
        if name == "brotli":
            return Old
        raise ImportError(name)

    monkeypatch.setattr(decompressors, "import_module", found)
    decompressors._brotli.cache_clear()
    try:
        assert decompressors.missing_library("br")
    finally:
        decompressors._brotli.cache_clear()
