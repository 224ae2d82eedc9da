"""Response framing: what common clients read is read, and a cut response is never complete."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.http.response_parser import MAX_HEAD_BYTES, MalformedResponse, ResponseParser

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = b"2\r\nhe\r\n3;note=x\r\nllo\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Read:
    """The result of parsing a response to its end."""

    status: int | None
    body: bytes
    is_complete: bool
    keep_alive: bool
    has_surplus: bool
    headers: dict[str, str]


def read(data: bytes, sizes: tuple[int, ...] = (), *, eof: bool = True) -> Read:
    """Parse a response that arrives in pieces of these sizes, and then the rest."""
    parser, body, at = ResponseParser(), b"", 0
    for size in (*sizes, len(data)):
        parser.feed(memoryview(data)[at : at + size])
        body += b"".join(parser.take_body())
        at += size
    if eof:
        parser.feed_eof()
        body += b"".join(parser.take_body())
    headers = {name.decode().lower(): value.decode() for name, value in parser.headers}
    return Read(
        parser.status, body, parser.is_complete, parser.keep_alive, parser.has_surplus, headers
    )


WHOLE = {
    "length": OK + b"Content-Length: 5\r\n\r\nhello",
    "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "chunks and a length": OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "a length and chunks": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n" + CHUNKS,
    "chunked twice": OK
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNKS,
    "equal lengths": OK + b"Content-Length: 5\r\nX: y\r\ncontent-length: 5\r\n\r\nhello",
    "a list of equal lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "equal lengths in other digits": OK + b"Content-Length: 5, 05\r\n\r\nhello",
    "lines before equal lengths": b"\r\n\n" + OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "a line after an interim response": b"HTTP/1.1 100 Continue\r\n\r\n\r\n"
    + OK
    + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "length with a space": OK + b"Content-Length : 5\r\n\r\nhello",
    "identity": OK + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 5\nX: y\n\nhello",
    "bare LF in chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    "trailers": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "until closed": OK + b"Connection: close\r\n\r\nhello",
    "interim responses": b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
    "a line before it": b"\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
    "folded header": OK + b"X: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
    "header in UTF-8": OK + "X: \u00e9\r\nContent-Length: 5\r\n\r\nhello".encode(),
    "upgrade offered": OK + b"Upgrade: h2\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("response", WHOLE.values(), ids=WHOLE)
def test_framing_of_common_servers_is_read(response: bytes, size: int) -> None:
    found = read(response, (size,) * (len(response) // size))
    assert (found.status, found.body, found.is_complete) == (200, b"hello", True)
    assert not found.has_surplus


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.integers(1, 40), max_size=8))
def test_pieces_of_any_size_give_the_same_response(which: str, sizes: list[int]) -> None:
    assert read(WHOLE[which], tuple(sizes)) == read(WHOLE[which])


UNTIL_CLOSED = {"HTTP/1.0", "until closed"}


@pytest.mark.parametrize("which", sorted(WHOLE.keys() - UNTIL_CLOSED))
def test_a_cut_response_is_never_complete(which: str) -> None:
    response = WHOLE[which]
    for length in range(len(response)):
        assert not read(response[:length]).is_complete, response[:length]


@pytest.mark.parametrize("which", sorted(UNTIL_CLOSED))
def test_a_body_without_framing_lasts_until_the_end(which: str) -> None:
    head, _, body = WHOLE[which].partition(b"\r\n\r\n")
    assert not read(head).is_complete
    for length in range(len(body) + 1):
        response = head + b"\r\n\r\n" + body[:length]
        assert not read(response, eof=False).is_complete
        assert read(response).is_complete
        assert not read(response).keep_alive


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_is_complete_at_once(status: int) -> None:
    found = read(b"HTTP/1.1 %d Some\r\nContent-Length: 5\r\n\r\n" % status, eof=False)
    assert (found.status, found.body, found.is_complete) == (status, b"", True)


@pytest.mark.parametrize("which", ["length", "chunks", "trailers", "bare LF"])
@pytest.mark.parametrize("surplus", [b"x", b"\r\n\r\nx", b"HTTP/1.1 500 No\r\n\r\n"])
def test_surplus_bytes_change_nothing_and_are_noted(which: str, surplus: bytes) -> None:
    for sizes in ((), (len(WHOLE[which]),)):
        found = read(WHOLE[which] + surplus, sizes)
        assert (found.status, found.body, found.is_complete) == (200, b"hello", True)
        assert found.has_surplus


def test_trailers_are_no_headers() -> None:
    assert "x-sum" not in read(WHOLE["trailers"]).headers


def test_interim_headers_are_forgotten() -> None:
    assert read(WHOLE["interim responses"]).headers == {"content-length": "5"}


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"Content-Length: 0\r\n", True),
        (b"Content-Length: 0\r\nConnection: close\r\n", False),
        (b"Content-Length: 0\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_keep_alive_follows_the_connection_header(head: bytes, keeps: bool) -> None:
    assert read(OK + head + b"\r\n").keep_alive is keeps


MALFORMED = {
    "banner": b"220 mail.example ESMTP ready\r\n",
    "binary": bytes(range(256)),
    "lengths that differ": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a list of lengths": OK + b"Content-Length: 5, 6\r\n\r\nhello!",
    "an empty list of lengths": OK + b"Content-Length: ,\r\n\r\nhello",
    "negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "length in words": OK + b"Content-Length: five\r\n\r\nhello",
    "chunk size in words": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nxx",
    "an endless head": OK + b"X: " + b"x" * MAX_HEAD_BYTES,
    "a long head": OK + b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
}


@pytest.mark.parametrize("response", MALFORMED.values(), ids=MALFORMED)
def test_what_no_client_reads_is_malformed(response: bytes) -> None:
    with pytest.raises(MalformedResponse):
        read(response)


@given(st.binary(max_size=300), st.lists(st.integers(1, 60), max_size=5))
def test_any_bytes_give_a_result_or_are_malformed(data: bytes, sizes: list[int]) -> None:
    for start in (
        b"",
        OK,
        OK + b"Content-Length: 5\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
    ):
        try:
            found = read(start + data, tuple(sizes))
        except MalformedResponse:
            continue
        assert found.is_complete <= (found.status is not None)
