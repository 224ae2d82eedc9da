"""Paid images in responses of unknown shape, and what must not be taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchgen.job import ImageRef
from batchgen.providers.adapters.images import read_response
from batchgen.providers.adapters.video import TaskState, read_state
from tests.support.adapters import IMAGE, TEXT, URL, inline_image

DATA_URL = f"data:image/png;base64,{TEXT}"
PLAIN_URL = "https://images.example/x/7f3a"


def read(document: object) -> tuple[ImageRef, ...]:
    return read_response(json.dumps(document).encode(), {}).images


@pytest.mark.parametrize(
    "document",
    [
        {"url": URL},
        {"image_url": PLAIN_URL},
        {"imageUrl": PLAIN_URL, "id": "1"},
        {"result_url": PLAIN_URL, "task_id": "1", "status": "completed"},
        {"data": {"response": {"resultUrls": [PLAIN_URL]}}},
        {"urls": [URL]},
        {"image_list": [{"link": PLAIN_URL}]},
        {"data": [{"download_url": PLAIN_URL}]},
        {"data": [{"url": [URL]}]},
        {"data": {"data": {"data": [{"url": URL}]}}},
        {"images": {"0": {"url": URL}}},
        {"statusCode": 200, "body": json.dumps({"data": [{"url": URL}]})},
        json.dumps({"data": [{"url": URL}]}),
        URL,
        {"data": [{"url": f'"{URL}"'}]},
        {"data": [{"url": f"![image]({URL})"}]},
        {"data": [{"url": URL.replace("/", "\\/")}]},
        {"request": {"image": "https://x.example/in.png"}, "link": PLAIN_URL},
    ],
)
def test_url_is_found_wherever_it_is(document: object) -> None:
    (image,) = read(document)
    assert image.url in (URL, PLAIN_URL)


@pytest.mark.parametrize(
    "document",
    [
        {"b64_json": TEXT},
        {"photo": TEXT},
        TEXT,
        {"reply": {"drawn": DATA_URL}},
        {"message": {"parts": [{"source": None, "bytes": TEXT}]}},
    ],
)
def test_inline_image_is_found_wherever_it_is(document: object) -> None:
    assert read(document) == (ImageRef(index=0),)
    assert inline_image(json.dumps(document).encode(), {}, 0) == IMAGE


@pytest.mark.parametrize(
    ("items", "url"),
    [
        ({"images": [{"url": "/files/1.png"}]}, "/files/1.png"),
        ({"images": ["files/1.png?sig=a"]}, "files/1.png?sig=a"),
        ({"data": [{"image_url": "/files/1.webp"}]}, "/files/1.webp"),
    ],
)
def test_relative_path_of_an_image_file_is_a_url(items: object, url: str) -> None:
    assert read(items) == (ImageRef(index=0, url=url),)


NO_IMAGES: dict[str, Any] = {
    "a task": {"task_id": "1", "url": PLAIN_URL},
    "an id with a link": {"id": "1", "url": PLAIN_URL},
    "a polling URL": {"id": "1", "status": "succeeded", "polling_url": PLAIN_URL},
    "a running task inside": {"response": {"status": "queued", "image_url": URL}},
    "the URLs of a prediction": {
        "id": "1",
        "status": "succeeded",
        "output": None,
        "urls": {"get": PLAIN_URL, "cancel": PLAIN_URL, "web": PLAIN_URL},
    },
    "the request": {"input": {"image_url": URL}, "prompt": URL},
    "the references": {"reference_images": [URL], "init_image": TEXT, "mask": DATA_URL},
    "links to pages": {"documentation_url": URL, "help": URL, "message": "see " + PLAIN_URL},
    "a small preview": {"thumbnail_url": URL, "preview": TEXT},
    "a word": {"image": "none", "url": "n/a", "result": "no image"},
}


@pytest.mark.parametrize("document", NO_IMAGES.values(), ids=NO_IMAGES.keys())
def test_other_urls_are_not_images(document: object) -> None:
    assert read(document) == ()


def test_result_of_a_task_is_found_wherever_it_is() -> None:
    found = {"status": "completed", "data": {"response": {"resultUrls": [PLAIN_URL]}}}
    assert read_state(json.dumps(found).encode()) == TaskState(url=PLAIN_URL)


def test_wide_and_deep_documents_are_read() -> None:
    deep: dict[str, Any] = {"url": URL}
    for _ in range(100):
        deep = {"a": deep}
    assert read(deep) == ()
    assert len(read({"photos": [f"{PLAIN_URL}{i}" for i in range(5000)]})) == 100


LINE = json.dumps({"created": 1, "data": [{"url": URL}]})


@pytest.mark.parametrize(
    "body",
    [
        f'{{"status": "started"}}\n{LINE}\n',
        f'{{"progress": 10}}\n{{"url": "{URL}"}}\n',
        f"{LINE}\n\n[DONE]",
        f"{LINE}\0",
        LINE * 2,
        f")]}}',\n{LINE}",
        f"<br />\n<b>Warning</b>: no locale in /www/api.php on line 1<br />\n{LINE}",
        LINE.replace('"url"', '"revised_prompt": "a\nb", "url"'),
        f"\n{URL}\n",
        f"![image]({URL})",
        f": ping\n\ndata: {LINE}\n\n",
        f"\ufeffdata: {LINE}\n\n",
        f"\n\ndata: {LINE}\n\n",
    ],
)
def test_body_that_is_not_plain_json_is_read(body: str) -> None:
    assert read_response(body.encode(), {}).images == (ImageRef(index=0, url=URL),)


@pytest.mark.parametrize("body", [TEXT, DATA_URL, f"{TEXT[:76]}\r\n{TEXT[76:]}\r\n"])
def test_body_that_is_base64_is_read(body: str) -> None:
    assert read_response(body.encode(), {}).images == (ImageRef(index=0),)
    assert inline_image(body.encode(), {}, 0) == IMAGE


@pytest.mark.parametrize(
    "payload",
    [
        {"data": {"url": URL}},
        {"images": [{"url": URL}]},
        {"status": "succeeded", "output": [URL]},
        {"progress": 100, "results": [{"url": URL}]},
        [{"url": URL}],
    ],
)
def test_event_with_another_form_of_image_is_read(payload: object) -> None:
    events = f'data: {{"status": "processing"}}\n\ndata: {json.dumps(payload)}\n\n'
    found = read_response(events.encode(), {"content-type": "Text/Event-Stream"})
    assert found.images == (ImageRef(index=0, url=URL),)


def test_json_with_the_type_of_events_is_read() -> None:
    found = read_response(LINE.encode(), {"content-type": "text/event-stream"})
    assert found.images == (ImageRef(index=0, url=URL),)


@pytest.mark.parametrize(
    "body",
    [
        f"{LINE[:-3]}",
        f'{{\n  "data": [\n    {{"url": "{URL}"}}',
        f"<html>\n<script>\n{LINE}\n</script></html>",
        f"The image failed, see {URL}",
        '{"progress": 10}\n{"progress": 20}\n',
    ],
)
def test_cut_or_foreign_body_has_no_image(body: str) -> None:
    assert read_response(body.encode(), {}).images == ()
