"""Requests as the API expects them, and responses that may contain anything."""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.requests import Request

from batchgen.http.request import ApiRequest
from batchgen.job import ImageRef, OptionValue
from batchgen.outcomes.classify import ErrorBody, Response
from batchgen.outcomes.exchange import Task
from batchgen.providers.adapters.images import build_request, read_response
from batchgen.providers.adapters.response_parsing import expiry_of
from tests.support.adapters import ATTEMPT, BASE, IMAGE, JOB, TEXT, URL, inline_image, sent


async def form_of(request: ApiRequest) -> list[tuple[str, str | tuple[str, str, bytes]]]:
    """The fields and files of a multipart body, read by a parser that is not ours."""
    body = await sent(request)
    headers = {name.lower(): value for name, value in request.body.headers.items()}
    scope = {
        "type": "http",
        "method": "POST",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    found: list[tuple[str, str | tuple[str, str, bytes]]] = []
    async with Request(scope, receive).form() as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                content = await value.read()
                found.append((name, (value.filename or "", value.content_type or "", content)))
            else:
                found.append((name, value))
    return found


# Requests


@pytest.mark.anyio
async def test_a_generation_is_the_exact_json() -> None:
    job = replace(JOB, options={"size": "1024x1024", "quality": "high", "output_compression": 80})
    request = build_request(job, ATTEMPT, BASE)
    assert (request.method, request.url) == ("POST", "https://api.example/v1/images/generations")
    assert request.headers == {"Idempotency-Key": ATTEMPT, "X-Client-Request-Id": ATTEMPT}
    assert request.body.headers["Content-Type"] == "application/json"
    assert json.loads(await sent(request)) == {
        "model": "gpt-image-2",
        "prompt": JOB.prompt,
        "n": 1,
        "size": "1024x1024",
        "quality": "high",
        "output_compression": 80,
    }


@pytest.mark.anyio
async def test_options_keep_their_types() -> None:
    options: dict[str, OptionValue] = {"seed": 2**70, "stream": False, "steps": 0.5, "user": "7"}
    found = json.loads(await sent(build_request(replace(JOB, options=options), ATTEMPT, BASE)))
    assert {name: found[name] for name in options} == options
    assert found["stream"] is False


@pytest.mark.anyio
async def test_a_body_can_be_sent_again(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    for job in (JOB, replace(JOB, images=(str(tmp_path / "a.png"),))):
        request = build_request(job, ATTEMPT, BASE)
        assert await sent(request) == await sent(request)


@pytest.mark.anyio
async def test_one_reference_is_sent_as_image(tmp_path: Path) -> None:
    photo = b"\xff\xd8\xff" + IMAGE
    (tmp_path / "Caf\u00e9 \u201cno. 1\u201d.JPG").write_bytes(photo)
    job = replace(
        JOB,
        images=(str(tmp_path / "Caf\u00e9 \u201cno. 1\u201d.JPG"),),
        options={"quality": "high", "output_compression": 80, "stream": True, "x": 0.5},
    )
    request = build_request(job, ATTEMPT, BASE)
    assert request.url == "https://api.example/v1/images/edits"
    assert request.headers == {
        "Idempotency-Key": ATTEMPT,
        "X-Client-Request-Id": ATTEMPT,
        "Accept": "text/event-stream, application/json",
    }
    assert await form_of(request) == [
        ("model", "gpt-image-2"),
        ("prompt", JOB.prompt),
        ("n", "1"),
        ("quality", "high"),
        ("output_compression", "80"),
        ("stream", "true"),
        ("x", "0.5"),
        ("image", ("reference-1.jpg", "image/jpeg", photo)),
    ]


@pytest.mark.anyio
async def test_several_references_and_a_mask_keep_their_order(tmp_path: Path) -> None:
    names = ("b.webp", "a.PNG", "c.jpeg", "no_ending", 'odd.p"ng')
    for name in (*names, "mask.png"):
        (tmp_path / name).write_bytes(name.encode() + b"\r\n--")
    job = replace(
        JOB,
        images=tuple(str(tmp_path / name) for name in names),
        mask=str(tmp_path / "mask.png"),
    )
    files = (await form_of(build_request(job, ATTEMPT, BASE)))[3:]
    assert files == [
        ("image[]", ("reference-1.webp", "image/webp", b"b.webp\r\n--")),
        ("image[]", ("reference-2.png", "image/png", b"a.PNG\r\n--")),
        ("image[]", ("reference-3.jpeg", "image/jpeg", b"c.jpeg\r\n--")),
        ("image[]", ("reference-4.png", "image/png", b"no_ending\r\n--")),
        ("image[]", ("reference-5.png", "image/png", b'odd.p"ng\r\n--')),
        ("mask", ("reference-6.png", "image/png", b"mask.png\r\n--")),
    ]


@pytest.mark.anyio
async def test_reference_is_named_by_its_content(
    tmp_path: Path,
) -> None:
    files = {"a.jpg": "webp", "b.webp": "png", "c.png": "jpeg", "d.jpeg": "jpeg", "e": "webp"}
    for name, kind in files.items():
        Image.new("RGB", (8, 8)).save(tmp_path / name, kind)
    job = replace(JOB, images=tuple(str(tmp_path / name) for name in files))
    sent_files = [value[:2] for _, value in (await form_of(build_request(job, ATTEMPT, BASE)))[3:]]
    assert sent_files == [
        ("reference-1.webp", "image/webp"),
        ("reference-2.png", "image/png"),
        ("reference-3.jpg", "image/jpeg"),
        ("reference-4.jpeg", "image/jpeg"),
        ("reference-5.webp", "image/webp"),
    ]


@pytest.mark.anyio
async def test_body_reads_its_files_for_each_attempt(tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    first.write_bytes(IMAGE)
    second.write_bytes(IMAGE[::-1])
    job = replace(JOB, images=(str(first), str(second)), mask=str(first))
    before = await form_of(build_request(job, ATTEMPT, BASE))
    second.write_bytes(IMAGE + IMAGE)
    after = await form_of(build_request(job, ATTEMPT, BASE))
    assert before[3:5] == [
        ("image[]", ("reference-1.png", "image/png", IMAGE)),
        ("image[]", ("reference-2.png", "image/png", IMAGE[::-1])),
    ]
    assert after[4] == ("image[]", ("reference-2.png", "image/png", IMAGE + IMAGE))
    assert after[5] == before[5] == ("mask", ("reference-3.png", "image/png", IMAGE))


@pytest.mark.fault("M23")
@pytest.mark.anyio
@given(prompt=st.text(alphabet=st.characters(exclude_categories=["Cs"])), content=st.binary())
async def test_any_prompt_and_any_file_arrive_as_they_are(
    prompt: str, content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    reference = tmp_path_factory.getbasetemp() / "reference.png"
    reference.write_bytes(content)
    edit = replace(JOB, prompt=prompt, images=(str(reference),))
    form = await form_of(build_request(edit, ATTEMPT, BASE))
    assert form[1] == ("prompt", prompt)
    name, sent_file = form[3]
    assert (name, sent_file[2]) == ("image", content)
    plain = build_request(replace(JOB, prompt=prompt), ATTEMPT, BASE)
    assert json.loads(await sent(plain))["prompt"] == prompt


def test_unreadable_reference_is_found_before_sending(tmp_path: Path) -> None:
    for image in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(OSError, match=str(image)):
            build_request(replace(JOB, images=(str(image),)), ATTEMPT, BASE)


# Responses


def read(document: object, **headers: str) -> Response:
    """Read a JSON document."""
    return read_response(json.dumps(document).encode(), headers)


def found_images(*items: object) -> tuple[ImageRef, ...]:
    """The images of a response with these items."""
    response = read({"created": 1, "data": items})
    assert response.readable
    assert response.error is None
    return response.images


INLINE = ImageRef(index=0)
LINKED = ImageRef(index=0, url=URL)


@pytest.mark.fault("B08", "B21")
@pytest.mark.parametrize(
    ("items", "found"),
    [
        pytest.param([{"url": URL}], (LINKED,), id="a URL"),
        pytest.param([{"url": f" {URL}\n"}], (LINKED,), id="a URL in spaces"),
        pytest.param([{"b64_json": TEXT}], (INLINE,), id="inline"),
        pytest.param([{"b64_json": TEXT, "url": URL}], (INLINE,), id="both"),
        pytest.param([{"b64_json": "", "url": URL}], (LINKED,), id="empty inline"),
        pytest.param([{"b64_json": None, "url": URL}], (LINKED,), id="null inline"),
        pytest.param([{"b64_json": 7, "url": URL}], (LINKED,), id="a number inline"),
        pytest.param([{"url": f"data:image/png;base64,{TEXT}"}], (INLINE,), id="data URL"),
        pytest.param([{"url": f"DATA:image/png;base64,{TEXT}"}], (INLINE,), id="DATA URL"),
        pytest.param([{"url": URL}, {"url": URL}], (LINKED, replace(LINKED, index=1)), id="two"),
        pytest.param([None, {"url": URL}], (replace(LINKED, index=1),), id="null and one"),
        pytest.param([], (), id="none"),
        pytest.param([{}], (), id="an empty item"),
        pytest.param([None], (), id="null"),
        pytest.param([7, True], (), id="no items"),
        pytest.param([7, [URL], True], (LINKED,), id="a list in the list"),
        pytest.param([7, URL], (replace(LINKED, index=1),), id="a text"),
        pytest.param(["https://x.example/a b", "no", "data:text/plain,no"], (), id="other texts"),
        pytest.param([{"url": None}], (), id="null URL"),
        pytest.param([{"url": "  "}], (), id="blank URL"),
        pytest.param([{"url": 7}], (), id="a number as URL"),
        pytest.param([{"url": {"url": URL}}], (LINKED,), id="a mapping as URL"),
    ],
)
def test_response_has_its_images(items: list[object], found: tuple[ImageRef, ...]) -> None:
    assert found_images(*items) == found


def test_data_may_be_a_single_item() -> None:
    assert read({"data": {"url": URL}}).images == (LINKED,)


def test_long_url_is_kept_whole() -> None:
    url = "https://images.example/1.png?sig=" + "a" * 6000
    assert found_images({"url": url}) == (ImageRef(index=0, url=url),)


def test_no_more_than_a_hundred_images_are_taken() -> None:
    assert len(found_images(*[{"url": URL}] * 5000)) == 100


@pytest.mark.fault("B04")
@pytest.mark.parametrize("data", [None, "x", 7, True, {}, [[]], {"url": None}])
def test_data_of_another_shape_holds_no_image(data: object) -> None:
    assert read({"data": data}) == Response(readable=True)


@pytest.mark.fault("B04")
@pytest.mark.parametrize("document", [[], [1], None, True, {}, {"created": 1}])
def test_json_of_another_shape_holds_nothing(document: object) -> None:
    assert read(document) == Response(readable=True)


def test_json_text_is_shown() -> None:
    assert read("size is wrong") == Response(readable=True, text="size is wrong")


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (
            {"error": {"code": "invalid_api_key", "type": "auth", "message": "No."}},
            ErrorBody(code="invalid_api_key", type="auth", message="No."),
        ),
        ({"error": {"message": "No.", "code": None}}, ErrorBody(message="No.")),
        ({"error": {"message": "No.", "code": 429}}, ErrorBody(code="429", message="No.")),
        (
            {"error": {"message": ["No.", "Never."], "type": "x"}},
            ErrorBody(type="x", message="No.; Never."),
        ),
        ({"error": "No."}, ErrorBody(message="No.")),
        ({"error": "No.", "code": "x"}, ErrorBody(code="x", message="No.")),
        ({"code": "x", "message": "No."}, ErrorBody(code="x", message="No.")),
        ({"code": 7, "message": "No.", "data": None}, ErrorBody(code="7", message="No.")),
        ({"code": 0, "message": "success", "data": None}, None),
        ({"code": False, "message": "success"}, None),
        ({"code": "success", "message": "", "data": []}, None),
        ({"message": "No."}, None),
        ({"error": None}, None),
        ({"error": ""}, None),
        ({"error": {}}, None),
        ({"error": []}, None),
        ({"error": {"message": "", "type": "", "param": "", "code": None}}, None),
    ],
)
def test_response_has_its_error(document: Mapping[str, object], error: ErrorBody | None) -> None:
    assert replace(read(document), text="") == Response(readable=True, error=error)


def test_error_next_to_an_image_does_not_hide_it() -> None:
    response = read({"data": [{"url": URL}], "error": {"message": "a warning"}})
    assert response.images == (LINKED,)
    assert response.error == ErrorBody(message="a warning")


def test_code_next_to_images_is_not_an_error() -> None:
    response = read({"code": "success", "message": "ok", "data": [{"url": URL}]})
    assert response == Response(readable=True, images=(LINKED,))


@pytest.mark.fault("B27")
def test_an_endless_message_is_cut() -> None:
    error = read({"error": {"message": "x" * 1_000_000}}).error
    assert error is not None
    assert len(error.message) == 4096


@pytest.mark.parametrize(("task", "found"), [("t-1", "t-1"), (17, "17"), (None, None), ("", None)])
def test_task_id_of_response_is_read(task: object, found: str | None) -> None:
    response = read({"task_id": task})
    assert response.task == (None if found is None else Task(id=found))


@pytest.mark.fault("B01", "B03")
@pytest.mark.parametrize(
    ("body", "kind", "html"),
    [
        (b"<!DOCTYPE html><p>502", "", True),
        (b" \r\n <html>", "text/plain", True),
        (b"Bad gateway", "text/html; charset=utf-8", True),
        (b"<?xml version='1.0'?><Error/>", "application/xml", True),
        (b"\0\1upstream timed out", "text/plain", False),
        (b"", "application/json", False),
        (b"{", "application/json", False),
        (b'{"data":[{"b64_json":"iVBO', "application/json", False),
        (b'{"data":[]}{"data":', "application/json", False),
        (bytes(range(256)), "image/png", False),
        (b"\xff\xfe", "", False),
        (codecs.BOM_UTF8, "", False),
    ],
)
def test_body_other_than_json_is_unreadable(body: bytes, kind: str, html: bool) -> None:
    response = read_response(body, {"content-type": kind})
    assert replace(response, text="") == Response(html=html)


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"<title>502 Bad\n gateway</title><h1>no</h1>", "text/html", "502 Bad gateway"),
        (b"<html><h1>Too <b>large</b> &amp; slow</h1>", "text/html", "Too large & slow"),
        (b"<html><title></title>nothing", "text/html", ""),
        (b"<?xml?><Error><Code>x</Code><Message>denied</Message></Error>", "", "denied"),
        (b"upstream\r\n timed out\n", "text/plain", "upstream timed out"),
        (b"", "application/json", ""),
        (b'{"data":[{"b64_json":"iVBO', "application/json", ""),
        (b"no\0image", "text/plain", ""),
        (b"caf\xe9", "text/plain", ""),
        (b"x" * 100_000, "text/plain", "x" * 500),
    ],
)
def test_page_title_or_plain_text_is_shown(body: bytes, kind: str, text: str) -> None:
    assert read_response(body, {"content-type": kind}).text == text


def test_image_file_as_body_is_the_image() -> None:
    headers = {"content-type": "image/png", "content-length": str(len(IMAGE))}
    assert read_response(IMAGE, headers) == Response(readable=True, images=(INLINE,))
    assert inline_image(IMAGE, headers, 0) == IMAGE
    assert read_response(IMAGE[:-1], headers) == Response()


@pytest.mark.fault("B25")
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"data":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 100_000,
        b'{"data":[],"usage":' + b"9" * 5000 + b"}",
    ],
    ids=["deep lists", "deep mappings", "unclosed", "a number of 5,000 digits"],
)
def test_json_bombs_do_not_go_off(body: bytes) -> None:
    response = read_response(body, {})
    assert response.images == ()


CARELESS = [
    pytest.param(codecs.BOM_UTF8 + json.dumps({"data": [{"b64_json": TEXT}]}).encode(), id="bom"),
    pytest.param(json.dumps({"data": [{"b64_json": TEXT}]}).encode("utf-16"), id="UTF-16"),
    pytest.param(b'{"data":[{"b64_json":"%s","cost":NaN}]}' % TEXT.encode(), id="NaN"),
    pytest.param(b'{"data":[{"b64_json":"%s","p":"\xff"}]}' % TEXT.encode(), id="broken UTF-8"),
    pytest.param(b'{"data":[],"data":[{"b64_json":"%s"}]}' % TEXT.encode(), id="a key twice"),
    pytest.param(b'{"data":[{"b64_json":"%s","p":"\\ud800"}]}' % TEXT.encode(), id="surrogate"),
    pytest.param(
        b'{"usage":%s,"data":[{"b64_json":"%s"}]}' % (b"9" * 300, TEXT.encode()), id="huge number"
    ),
]


@pytest.mark.fault("B25", "B26")
@pytest.mark.parametrize("body", CARELESS)
def test_a_carelessly_written_response_loses_no_image(body: bytes) -> None:
    response = read_response(body, {})
    assert response.images == (INLINE,)
    assert inline_image(body, {}, 0) == IMAGE


@pytest.mark.fault("B26")
def test_broken_utf8_in_a_message_is_shown_with_replacement() -> None:
    response = read_response(b'{"error":{"message":"caf\xe9 closed"}}', {})
    assert response.error == ErrorBody(message="caf\ufffd closed")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["data", "error", "url", "b64_json", "code", "message", "type", "task_id", "x"]
            ),
            children,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(st.binary(max_size=300), st.text(max_size=30))
def test_any_bytes_are_a_response(body: bytes, kind: str) -> None:
    assert isinstance(read_response(body, {"content-type": kind}), Response)


@given(JSON)
def test_any_json_is_a_response_whose_images_are_found_again(document: object) -> None:
    body = json.dumps(document).encode()
    response = read_response(body, {})
    assert response.readable
    for image in response.images:
        if image.url is None:
            try:
                assert isinstance(inline_image(body, {}, image.index), bytes)
            except ValueError as exc:
                assert "contains no image" not in str(exc)  # noqa: PT017  # one of two ways


PLAIN_TEXTS = st.sampled_from(
    ["https://h/x.png", " https://h/x ", "HTTP://h", "https:///x", "https://h /x", "//h/x", "h.png"]
) | st.sampled_from(["data:image/png;base64,AA", "", "\ud800h", "https://h/\ud800", "iVBORw0KGgo="])
PLAIN_ITEMS = st.fixed_dictionaries(
    {"url": PLAIN_TEXTS | st.none() | st.just(1)},
    optional={"b64_json": PLAIN_TEXTS | st.none(), "revised_prompt": PLAIN_TEXTS},
)
PLAIN_DOCUMENTS = st.fixed_dictionaries(
    {"data": st.lists(PLAIN_ITEMS, max_size=2) | PLAIN_ITEMS},
    optional={"created": st.integers(), "usage": st.just({"total_tokens": 3}) | st.text()},
)


@given(PLAIN_DOCUMENTS)
def test_a_plain_response_is_read_as_any_other(document: dict[str, object]) -> None:
    """A field that says nothing keeps a response from being read in the short way."""
    long_way = {**document, "nothing": None}
    assert read_response(json.dumps(document).encode(), {}) == read_response(
        json.dumps(long_way).encode(), {}
    )


# Inline images


def inline(text: str, name: str = "b64_json") -> bytes:
    """Take an image out of a response that holds this text."""
    return inline_image(json.dumps({"data": [{name: text}]}).encode(), {}, 0)


@pytest.mark.fault("B19", "B21")
@given(st.binary(min_size=1, max_size=400), st.data())
def test_base64_is_understood_as_servers_write_it(image: bytes, data: st.DataObject) -> None:
    encode = data.draw(st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]))
    text = encode(image).decode()
    if data.draw(st.booleans()):
        text = text.rstrip("=")
    width = data.draw(st.integers(1, 80))
    space = data.draw(st.sampled_from(["", "\n", "\r\n", " ", "\t"]))
    text = space.join(text[i : i + width] for i in range(0, len(text), width)) + space
    head = data.draw(st.sampled_from(["", "data:image/png;base64,", "DATA:;base64,"]))
    assert inline(head + text) == image
    if head:
        assert inline(head + text, "url") == image


def test_base64_that_begins_with_slashes_is_not_a_url() -> None:
    assert inline("//8A") == b"\xff\xff\x00"
    assert inline("//////8=") == b"\xff\xff\xff\xff\xff"


@pytest.mark.fault("B20")
@pytest.mark.parametrize("text", ["iVBO*", "a", "a===b", "\u00e9", "iVBO\x00", "%3Csvg%3E"])
def test_invalid_base64_is_reported(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        inline(text)


@pytest.mark.parametrize(
    ("document", "index"),
    [
        ({"data": [{"b64_json": TEXT}]}, 1),
        ({"data": [{"url": URL}]}, 0),
        ({"data": ["x"]}, 0),
        ({"data": None}, 0),
        ({}, 0),
        ([], 0),
    ],
)
def test_missing_image_is_reported(document: object, index: int) -> None:
    with pytest.raises(ValueError, match=f"contains no image {index}"):
        inline_image(json.dumps(document).encode(), {}, index)


def test_the_image_of_a_place_is_the_one_of_its_item() -> None:
    other = base64.b64encode(b"other").decode()
    body = json.dumps({"data": [None, {"b64_json": TEXT}, {"b64_json": other}]}).encode()
    assert [inline_image(body, {}, index) for index in (1, 2)] == [IMAGE, b"other"]
    assert inline_image(json.dumps({"data": {"b64_json": TEXT}}).encode(), {}, 0) == IMAGE


# Expiry of a URL

NOON = datetime(2026, 6, 6, 12, tzinfo=UTC)
EVENING = datetime(2026, 6, 6, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "end"),
    [
        ({"X-Amz-Date": "20260606T120000Z", "X-Amz-Expires": "21600"}, EVENING),
        ({"x-amz-date": "20260606T120000Z", "x-amz-expires": "21600"}, EVENING),
        ({"X-Goog-Date": "20260606T120000Z", "X-Goog-Expires": "21600"}, EVENING),
        ({"x-oss-date": "20260606T120000Z", "x-oss-expires": "21600"}, EVENING),
        ({"X-Tos-Date": "20260606T120000Z", "X-Tos-Expires": "21600"}, EVENING),
        ({"Expires": str(int(EVENING.timestamp())), "Signature": "x"}, EVENING),
        ({"se": "2026-06-06T18:00:00Z", "sig": "x"}, EVENING),
        ({"se": "2026-06-06T20:00:00+02:00"}, EVENING),
        ({"se": "2026-06-06T18:00:00"}, EVENING),
        ({}, None),
        ({"X-Amz-Expires": "21600"}, None),
        ({"X-Amz-Date": "20260606T120000Z"}, None),
        ({"X-Amz-Date": "today", "X-Amz-Expires": "21600"}, None),
        ({"X-Amz-Date": "20260606T120000Z", "X-Amz-Expires": "soon"}, None),
        ({"X-Amz-Date": "20260606T120000Z", "X-Amz-Expires": "9" * 30}, None),
        ({"Expires": "soon"}, None),
        ({"Expires": "9" * 30}, None),
        ({"Expires": "-" + "9" * 30}, None),
        ({"Expires": "9" * 5000}, None),
        ({"se": "soon"}, None),
        ({"se": "9999-12-31T23:59:59-05:00"}, None),
        ({"se": ""}, None),
    ],
)
def test_signed_url_has_its_end(query: dict[str, str], end: datetime | None) -> None:
    assert expiry_of(f"https://images.example/1.png?{urlencode(query)}") == end


@given(
    st.text(max_size=60)
    | st.tuples(
        st.sampled_from(["X-Amz-Date=20260606T120000Z&X-Amz-Expires", "Expires", "se", "-expires"]),
        st.text(max_size=20),
    ).map(lambda pair: f"https://images.example/?{pair[0]}={pair[1]}")
)
def test_any_text_for_a_url_has_an_end_or_none(url: str) -> None:
    end = expiry_of(url)
    assert end is None or end.tzinfo is UTC


def test_half_a_surrogate_pair_in_a_url_can_be_encoded() -> None:
    response = read_response(b'{"data": [{"url": "https://host/\\ud800.png"}]}', {})
    (image,) = response.images
    assert image.url is not None
    assert image.url.encode() == b"https://host/?.png"
