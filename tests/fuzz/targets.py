"""Parsers of foreign bytes, each as a function that fails if a rule is broken."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import tempfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard

from batchgen.errors import ManifestError, SettingsError
from batchgen.http.content_coding import BadCoding, ContentDecoder
from batchgen.images.base64_scanner import (
    Base64Decoder,
    Base64Scanner,
    Kind,
    unpack_base64,
)
from batchgen.images.formats import BadImage
from batchgen.images.inspect import MAX_PIXELS, decode, inspect
from batchgen.images.mp4 import inspect_mp4
from batchgen.job import Billed, Outcome
from batchgen.manifest.loader import parse_manifest
from batchgen.manifest.rows import open_rows
from batchgen.manifest.sandbox import MAX_CHARS, TemplateError
from batchgen.manifest.table import RowsFault
from batchgen.manifest.template import compile_expression, compile_template
from batchgen.outcomes.classify import Exchange, Failure, Reach, classify
from batchgen.outcomes.retry_after import MAX_WAIT_S, retry_after
from batchgen.planning.naming import NamingError, checked_key, output_path, safe_path
from batchgen.providers.adapters.error_objects import error_of
from batchgen.providers.adapters.find_images import MAX_IMAGES, find_images
from batchgen.providers.adapters.registry import ADAPTERS
from batchgen.providers.adapters.response_parsing import parse_document
from batchgen.providers.adapters.tasks import find_task
from batchgen.providers.adapters.video import read_state
from batchgen.providers.usage_log import UsageLogError, read_exported_log
from batchgen.session.settings import Environment
from batchgen.spool.redaction import Redactor
from batchgen.text import slug
from batchgen.urls import check_base_url
from tests.support.canary import CANARY, is_in
from tests.support.images import HEIC, HEIC_ALPHA, SMALL
from tests.support.manifests import NIGHTLY, SHORT
from tests.support.naming import assert_safe
from tests.support.price_list import check as check_prices
from tests.support.sse import COMPLETED, PARTIAL, stream

TABLES: Final = ("csv", "tsv", "jsonl", "json", "txt", "csv.gz", "jsonl.zst")
ROUTES: Final = tuple(ADAPTERS)
CODINGS: Final = ("gzip", "deflate", "br", "zstd", "")
KINDS: Final = ("application/json", "text/event-stream", "text/html")
WAITS: Final = ("retry-after", "retry-after-ms", "x-ratelimit-reset-requests", "ratelimit", "date")
VALUES: Final = {"a": "x", "b": 2, "c": ["p", "q"], "d": {"e": None}, "row": {"a": "x"}}


@dataclass(frozen=True, slots=True)
class Target:
    """A reader and what to begin with. Its first octet often chooses between kinds."""

    read: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


@functools.cache
def _directory() -> Path:
    """A directory of this process, gone with it."""
    place = tempfile.TemporaryDirectory(prefix="fuzz-")
    _KEPT.append(place)
    return Path(place.name)


_KEPT: Final[list[tempfile.TemporaryDirectory[str]]] = []


def read_manifest(data: bytes) -> None:
    """A manifest is read, or refused with faults that fit a terminal."""
    try:
        parse_manifest(data, file="m.yaml", path=Path("m.yaml"))
    except ManifestError as error:
        faults = error.faults
    else:
        return
    assert faults
    for fault in faults:
        assert fault.line >= 1
        assert fault.column >= 1
        assert str(fault).isprintable(), fault


def read_table(data: bytes) -> None:
    """A table gives rows with a cell per column, or an error."""
    name = f"t.{TABLES[data[0] % len(TABLES)]}" if data else "t.csv"
    content = data[1:]
    if name.endswith(".gz") and not content.startswith(b"\x1f\x8b"):
        content = gzip.compress(content, mtime=0)
    (_directory() / name).write_bytes(content)
    with suppress(RowsFault), closing(open_rows(name, _directory())) as table:
        for number, row in enumerate(table, 1):
            assert row.number >= 1
            assert len(row.names) == len(row.cells) == len(set(row.names))
            assert row.line == 0 or row.line >= number
        assert all(notice.message.isprintable() for notice in table.reading.notices)


def read_template(data: bytes) -> None:
    """A template renders to a bounded text or is refused; an expression is true or false."""
    text = data.decode("utf-8", "ignore")
    with suppress(TemplateError):
        assert len(compile_template(text).render(VALUES)) <= MAX_CHARS
    with suppress(TemplateError):
        compile_expression(text).is_true(VALUES)


def read_response(data: bytes) -> None:
    """A response of any route is one, with a classification that fits its bill."""
    if len(data) < 2:
        return
    adapter = ADAPTERS[ROUTES[data[0] % len(ROUTES)]]
    headers = {"content-type": KINDS[data[1] % len(KINDS)]}
    body = data[2:]
    response = adapter.read_response(body, headers)
    for image in response.images:
        if image.url is None:
            with suppress(ValueError):
                unpack_base64(adapter.inline_base64(body, headers, image.index))
    if response.images:
        adapter.partial_images(body, headers)
    for http_status in (200, 404):
        with suppress(ValueError):
            read_state(body, http_status=http_status, url="https://api.example/tasks/t1")
    for status in (200, 400, 503):
        exchange = Exchange(
            reach=Reach.COMPLETE, failure=Failure.NONE, status=status, headers=headers
        )
        classification = classify(exchange, response)
        assert classification.message.isprintable()
        assert classification.code.isprintable()
        if classification.outcome is Outcome.OK:
            assert status == 200
            assert response.images
            assert classification.billed is not Billed.NO


def find_any_images(data: bytes) -> None:
    """Images are found at distinct indexes; next to an error only those that are image data."""
    with suppress(ValueError):
        document = parse_document(data)
        found = find_images(document)
        assert len({one.index for one in found}) == len(found) <= MAX_IMAGES
        assert all((one.url is None) != (one.base64 is None) for one in found)
        assert all(one.url is None or one.url.strip() for one in found)
        if isinstance(document, dict):
            error_of(document)
            find_task(document, {})
            unsure = {**document, "data": None, "error": {"message": "no"}}
            assert all(one.url is None for one in find_images(unsure, is_error=True))


def read_pieces(data: bytes) -> None:
    """A body loses nothing with its images, in whichever pieces (parted by 0xfe) it arrives.

    0xff is replaced by a long base64.
    """
    scan, body, shown, encoded = Base64Scanner(), b"", b"", b""
    decoder = Base64Decoder()
    for piece in data.replace(b"\xff", b"QUFB" * 1500).split(b"\xfe"):
        body += piece
        for kind, part in scan.feed(piece):
            shown += part
            with suppress(ValueError):
                if kind is Kind.BASE64:
                    encoded += base64.b64encode(decoder.feed(part))
                elif kind is Kind.END:
                    encoded += base64.b64encode(decoder.end())
                    assert shown.endswith(encoded)
            if kind is Kind.END:
                decoder, encoded = Base64Decoder(), b""
    assert shown + scan.rest() == body


def read_headers(data: bytes) -> None:
    """A wait that a server asks for is absent or bounded."""
    lines = data.decode("latin-1").split("\n")
    seconds = retry_after(dict(zip(WAITS, lines, strict=False)))
    assert seconds is None or 0 < seconds <= MAX_WAIT_S


def read_image(data: bytes) -> None:
    """An image or video is judged; what passes as an image has pixels within the cap."""
    with suppress(BadImage):
        inspect_mp4(data)
    try:
        info = inspect(data)
    except BadImage:
        return
    assert 0 < info.width * info.height <= MAX_PIXELS
    path = _directory() / "image"
    path.write_bytes(data)
    with suppress(BadImage):
        decode(path)


def read_coding(data: bytes) -> None:
    """A body is passed on, decompressed up to its limit, or refused."""
    decoder = ContentDecoder(CODINGS[data[0] % len(CODINGS)] if data else "", max_expansion=20)
    size = 0
    with suppress(BadCoding):
        for piece in decoder.feed(data[1:]):
            size += len(piece)
            assert len(piece) <= 8 << 20
        for piece in decoder.end():
            size += len(piece)
    assert size <= max(9 << 20, 20 * len(data))


def read_key(data: bytes) -> None:
    """A text shows the key in none of its forms, and stays as it is without it."""
    redactor = Redactor(CANARY)
    found = redactor.data(data)
    assert not is_in(found)
    if not any(mark in data for mark in (b"%", b"\\", b"&#")) and CANARY.encode()[:2] not in data:
        assert redactor.data(found) == found


def read_name(data: bytes) -> None:
    """A name stays below its directory on every system, and is its own safe name."""
    text = data.decode("utf-8", "surrogateescape" if data[:1] == b"!" else "ignore")
    path = safe_path(text)
    assert_safe(path)
    assert safe_path(path) == path
    with suppress(NamingError):
        assert_safe(output_path(text))
    with suppress(NamingError):
        assert checked_key(text).strip()
    slug(text, 40)


def read_prices(data: bytes) -> None:
    """A price list prices nothing as free, or is refused."""
    check_prices(data, {}, 0)


def read_log(data: bytes) -> None:
    """An exported log is charges or an error."""
    with suppress(UsageLogError):
        assert all(charge.amount >= 0 for charge in read_exported_log(data).charges)


def read_settings(data: bytes) -> None:
    """A ``.env`` and a URL are read or refused."""
    (_directory() / ".env").write_bytes(data)
    with suppress(SettingsError):
        found = Environment.load(_directory())
        found.key("CANARY_KEY")
    with suppress(ValueError):
        check_base_url(data.decode("utf-8", "replace"))


TARGETS: Final[Mapping[str, Target]] = {
    "manifest": Target(read_manifest, (SHORT.encode(), NIGHTLY.encode())),
    "table": Target(
        read_table,
        (
            b"\0a,b\n1,2\n",
            b'\1a\tb\n"x\ty"\t2\n',
            b'\2{"a": 1}\n{"a": null}\n',
            b'\3[{"a": "b"}]',
            b"\4a cat\na dog\n",
            b"\4sku|title|sku\n1|Mug\n",
            b"\5sep=;\na;b\n1;\\N\n",
            b'\0a;b\ncaf\xe9;""\n',
            b"\0" + "a\tb\r\n1\t2".encode("utf-16"),
            b'\2{"a": 12345678901234567890123, "a": NaN}\n',
            b'\3{"a": {"0": 1}, "b": {"0": 2}}',
            b"\4TemplateType=x\tVersion=1\nA\tB\na\tb\n1\t2\n",
            b'\0a,b\n1,"x \\" y"\n',
        ),
    ),
    "template": Target(
        read_template,
        (b"A {{ a }} of {{ b }}", b"{% for x in c %}{{ x | upper }}{% endfor %}", b"a == 'x'"),
    ),
    "response": Target(
        read_response,
        (
            b'\0\0{"created": 1, "data": [{"url": "https://a.example/1.png", "b64_json": ""}]}',
            b'\0\0{"error": {"code": "x", "type": "y", "message": "z"}}',
            b"\0\1" + stream(PARTIAL, COMPLETED),
            b'\1\0{"candidates": [{"content": {"parts": [{"inlineData": {"data": "aGk="}}]}}]}',
            b'\2\0{"code": "success", "data": {"task_id": "t", "status": "SUCCESS", "url": "u"}}',
        ),
    ),
    "find_images": Target(
        find_any_images,
        tuple(
            json.dumps(document).encode()
            for document in (
                {"images": [{"url": "https://a.example/1.png"}], "status": "done"},
                {"data": {"data": [{"b64_json": "iVBORw0KGgoAAAANSUhEUg=="}]}, "code": 200},
                {"choices": [{"message": {"content": "![a](https://a.example/1.png) no"}}]},
                {"output": [{"type": "image_generation_call", "result": "/9j/4AAQSkZJRgABAQ=="}]},
                {"id": "1", "status": "queued", "polling_url": "/t/1", "urls": {"get": "x"}},
                {"errors": [{"message": "a"}], "detail": [{"loc": ["body", "x"], "msg": "b"}]},
            )
        ),
    ),
    "pieces": Target(
        read_pieces,
        (
            b'{"data": [{"b64_json": "\xff"}, {"url": "data:image/png;base64,\xff"}]}',
            b'{"a": "\\"\xff", "b": "\xff\xfe\xff\xfe"}',
        ),
    ),
    "headers": Target(read_headers, (b"7", b"\n1500\n1m30s\nMon, 02 Nov 2026 02:00:00 GMT")),
    "image": Target(read_image, (*(image for _, image in SMALL.values()), HEIC, HEIC_ALPHA)),
    "coding": Target(
        read_coding,
        (
            b"\0" + gzip.compress(b'{"a": 1}' * 9, mtime=0),
            b"\1" + zlib.compress(b'{"a": 1}' * 9),
            bytes.fromhex("02 1b4700 44 05 13 16 c8 22 c2 07"),
            b"\3" + zstandard.compress(b'{"a": 1}' * 9),
            b'\2{"a": 1}',
        ),
    ),
    "key": Target(
        read_key,
        (CANARY.encode(), base64.b64encode(b"a" + CANARY.encode()), b"%73k\\u002d&#45;sk-C"),
    ),
    "name": Target(read_name, (b"../../etc/passwd", b"COM1/nul.png", "Café/\u202egpj".encode())),
    "prices": Target(
        read_prices, (b'{"data": [{"model_name": "m", "quota_type": 1, "model_price": 0.1}]}',)
    ),
    "log": Target(
        read_log, (b"created_at,model_name,quota,request_id\n1790000000,gpt-image-2,18850,r1\n",)
    ),
    "settings": Target(read_settings, (b"export CANARY_KEY='x' # y\n", b"https://a.example/v1/")),
}
