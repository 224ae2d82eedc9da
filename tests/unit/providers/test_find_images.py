"""Images wherever gateways put them, and errors that must never look like one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import ImageRef, Outcome
from batchgen.outcomes.classify import Exchange, Reach, classify
from batchgen.providers.adapters.find_images import IMAGES_API, TABLE, find_images
from batchgen.providers.adapters.images import read_response
from batchgen.providers.adapters.registry import ADAPTERS
from tests.support.adapters import IMAGE, TEXT, URL, inline_image
from tests.support.sse import stream

DATA_URL = f"data:image/png;base64,{TEXT}"


def nested(path: str, value: object) -> dict[str, Any]:
    """Build a document with one value at a path of the table."""
    for step in reversed(path.split(".")):
        value = {step.removesuffix("[]"): [value] if step.endswith("[]") else value}
    assert isinstance(value, dict)
    return value


def read(document: object) -> tuple[ImageRef, ...]:
    return read_response(json.dumps(document).encode(), {}).images


def inline(document: object, index: int = 0) -> bytes:
    return inline_image(json.dumps(document).encode(), {}, index)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.path)
@pytest.mark.parametrize("wrapper", ["", "data", "result", "output"])
def test_every_path_is_read_with_one_wrapper(row: Any, wrapper: str) -> None:
    for value in ({"b64_json": TEXT}, {"image_url": {"url": DATA_URL}}, DATA_URL):
        if value == DATA_URL and row.path == "response.resultImageUrl":
            continue
        document = nested(row.path, value)
        document = {"code": 200, "msg": "ok", wrapper: document} if wrapper else document
        assert read(document) == (ImageRef(index=0),), document
        assert inline(document) == IMAGE


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.path)
def test_every_path_may_contain_a_url(row: Any) -> None:
    value = f"![mug]({URL})" if row.is_prose else URL
    assert read(nested(row.path, value)) == (ImageRef(index=0, url=URL),)


def test_sources_are_public_urls() -> None:
    assert all(row.source.startswith("https://") for row in TABLE)
    assert len({row.path for row in TABLE}) == len(TABLE)


SHAPES: dict[str, Any] = {
    "texts in data": {"data": [URL]},
    "image in data": {"data": [{"image": TEXT}]},
    "a list": [{"url": URL}],
    "wrapped twice by the same name": {"data": {"created": 1, "data": [{"b64_json": TEXT}]}},
    "MiniMax": {"data": {"image_urls": [URL]}, "base_resp": {"status_code": 0}},
    "Zhipu code": {"code": "10000", "message": "Success", "images": [{"url": URL}]},
    "fal": {"images": [{"url": URL, "content_type": "image/png"}], "has_nsfw_concepts": [False]},
    "A1111": {"images": [TEXT], "parameters": {}, "info": "{}"},
    "Stability": {"artifacts": [{"base64": TEXT, "finishReason": "SUCCESS"}]},
    "Stability v2": {"image": TEXT, "finish_reason": "SUCCESS", "seed": 1},
    "Nova, some blocked": {
        "images": [TEXT],
        "error": "Some of the generated images have been blocked by our content filters.",
    },
    "Replicate": {"status": "succeeded", "input": {"image": "https://x.example/"}, "output": URL},
    "Responses": {
        "output": [
            {"type": "reasoning", "summary": []},
            {"type": "image_generation_call", "status": "completed", "result": TEXT},
        ]
    },
    "DashScope task": {"output": {"task_status": "SUCCEEDED", "results": [{"url": URL}]}},
    "DashScope": {"output": {"choices": [{"message": {"content": [{"image": URL}]}}]}},
    "OpenRouter": {
        "choices": [
            {"message": {"images": [{"type": "image_url", "image_url": {"url": DATA_URL}}]}}
        ]
    },
    "Markdown": {"choices": [{"message": {"content": f"Done.\n![image]({URL})\n[more](https://x)"}}]},
    "Markdown data": {"choices": [{"message": {"content": f"![image]({DATA_URL})"}}]},
    "data URL in a text": {"choices": [{"message": {"content": f"here: {DATA_URL}"}}]},
    "file URL in a text": {
        "choices": [{"message": {"content": "see https://images.example/1.png?sig=a%2Fb now"}}]
    },
    "Imagen": {"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": TEXT}]},
    "Gemini": {
        "candidates": [
            {"content": {"parts": [{"text": "a"}, {"inlineData": {"mimeType": "x", "data": TEXT}}]}}
        ]
    },
    "genai": {"generatedImages": [{"image": {"imageBytes": TEXT, "mimeType": "image/png"}}]},
    "BFL": {"id": "x", "status": "Ready", "result": {"sample": URL, "prompt": "a mug"}},
    "URL in b64_json": {"data": [{"b64_json": URL}]},
    "base64 in url": {"data": [{"url": TEXT}]},
}  # fmt: skip


@pytest.mark.parametrize("document", SHAPES.values(), ids=SHAPES.keys())
def test_shape_of_a_gateway_is_read(document: Any) -> None:
    (image,) = read(document)
    if image.url is None:
        assert inline(document, image.index) == IMAGE
    else:
        assert image.url == URL


def test_indexes_of_several_images_are_stable() -> None:
    document = {"choices": [{"message": {"images": [{"url": URL}, "no", {"url": DATA_URL}]}}]}
    assert read(document) == (ImageRef(index=0, url=URL), ImageRef(index=1))
    assert inline(document, 1) == IMAGE
    with pytest.raises(ValueError, match="contains no image 0"):
        inline(document, 0)


def test_streamed_chat_is_read() -> None:
    half = len(URL) // 2
    pieces = [
        {"choices": [{"delta": {"content": part}}]}
        for part in ("![a](", URL[:half], URL[half:], ")")
    ]
    assert read_response(stream(*pieces), {}).images == (ImageRef(index=0, url=URL),)
    image = {"choices": [{"delta": {"images": [{"image_url": {"url": DATA_URL}}]}}]}
    assert inline_image(stream(image), {}, 0) == IMAGE


def test_streamed_response_is_read() -> None:
    item = {"type": "image_generation_call", "result": TEXT}
    body = stream(
        {"type": "response.created", "response": {"output": []}},
        {"type": "response.image_generation_call.partial_image", "partial_image_b64": "x"},
        {"type": "response.completed", "response": {"output": [item]}},
    )
    assert inline_image(body, {}, 0) == IMAGE


CONTENT_FILTER: dict[str, list[dict[str, Any]]] = {
    "finish_reason": [{"choices": [{"delta": {"content": ""}, "finish_reason": "content_filter"}]}],
    "finish_reason after the text": [
        {"choices": [{"delta": {"content": "no"}}]},
        {"choices": [{"delta": {}, "finish_reason": "content_filter"}]},
    ],
    "refusal of a chat": [
        {"choices": [{"delta": {"refusal": "I can't "}}]},
        {"choices": [{"delta": {"refusal": "help."}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    ],
    "failed response": [
        {"type": "response.created", "response": {"output": [], "error": None}},
        {
            "type": "response.failed",
            "response": {"output": [], "error": {"code": "content_filter", "message": "no"}},
        },
    ],
    "incomplete response": [
        {
            "type": "response.incomplete",
            "response": {"output": [], "incomplete_details": {"reason": "content_filter"}},
        },
    ],
    "refusal of a response": [
        {"type": "response.refusal.delta", "delta": "I can't"},
        {"type": "response.refusal.done", "refusal": "I can't help."},
    ],
    "last event without an error object": [
        {"type": "progress", "message": "working"},
        {"code": "content_filter", "message": "no"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("events", CONTENT_FILTER.values(), ids=CONTENT_FILTER.keys())
def test_streamed_refusal_is_a_content_filter(events: list[dict[str, Any]]) -> None:
    response = read_response(stream(*events), {})
    assert response.images == ()
    assert response.error is not None
    assert response.error.code == "content_filter"
    exchange = Exchange(reach=Reach.COMPLETE, status=200, headers={})
    assert classify(exchange, response).outcome is Outcome.BLOCKED


def test_incomplete_response_is_a_content_filter() -> None:
    document = {"output": [], "incomplete_details": {"reason": "content_filter"}}
    error = read_response(json.dumps(document).encode(), {}).error
    assert error is not None
    assert error.code == "content_filter"


def test_finished_item_of_a_cut_response_is_read() -> None:
    item = {"type": "image_generation_call", "result": TEXT}
    created = {"type": "response.created", "response": {"output": []}}
    body = stream(created, {"type": "response.output_item.done", "item": item}, end="")
    assert inline_image(body, {}, 0) == IMAGE


NO_IMAGES: dict[str, Any] = {
    "a refusal with a link": {
        "choices": [{"message": {"content": "Sorry, see https://openai.com/policies/usage-policies"}}]
    },
    "a refusal as Markdown": {
        "choices": [{"message": {"content": "[policy](https://x.example/policy)"}}]
    },
    "a link alone": {"choices": [{"message": {"content": "https://status.example"}}]},
    "an error with a link": {"images": [URL], "error": {"message": "failed", "code": "x"}},
    "an error of a gateway": {"code": "Failed", "message": "no", "images": [{"url": URL}]},
    "a failed prediction": {"status": "failed", "output": [URL], "error": None},
    "a queued task": {"status": "queued", "images": [URL], "id": "1"},
    "no success": {"success": False, "images": [URL]},
    "a text in data": {"data": ["The prompt was blocked."]},
    "a text in images": {"images": ["The prompt was blocked."]},
    "a text as result": {"output": [{"type": "image_generation_call", "result": "failed"}]},
    "base64 of a text": {"images": ["VGhlIHByb21wdCB3YXMgYmxvY2tlZC4gVGhlIHByb21wdCB3YXM="]},
    "a page in a data URL": {"images": ["data:text/html;base64,PGh0bWw+"]},
    "a page as an image": {"images": ["data:image/png;base64,PGh0bWw+bm8="]},
    "a thought": {
        "candidates": [{"content": {"parts": [{"thought": True, "inlineData": {"data": TEXT}}]}}]
    },
    "an input image": {"output": [{"type": "input_image", "image_url": URL}]},
    "a sentence as URL": {"data": [{"url": "Image generation failed."}]},
    "a word as URL": {"data": [{"url": "failed"}]},
    "an error item": {"data": [{"error": {"code": "x", "message": "blocked"}}]},
}  # fmt: skip


@pytest.mark.parametrize("document", NO_IMAGES.values(), ids=NO_IMAGES.keys())
def test_error_does_not_look_like_an_image(document: Any) -> None:
    assert read(document) == ()


_ERRORS = st.sampled_from(
    [
        "Your request was rejected by the safety system.",
        "see https://status.example and https://help.example/errors",
        "Error: data:text/plain,no",
        "[retry](https://x.example/retry)",
        "data: image not available",
        "iVBOR is not valid base64",
        "/9j",
        "",
    ]
) | st.text(
    alphabet=st.characters(exclude_characters="/:.", exclude_categories=["Cs"]), max_size=60
)


@given(st.sampled_from(TABLE), _ERRORS, st.sampled_from(["", "data", "output", "result"]))
def test_text_of_an_error_is_never_an_image(row: Any, text: str, wrapper: str) -> None:
    for value in (
        text,
        {"text": text},
        {"image": text},
        {"result": text},
        {"image_url": {"url": text}},
    ):
        document = nested(row.path, value)
        assert find_images({wrapper: document} if wrapper else document) == []


@given(
    st.sampled_from([row for row in TABLE if row is not IMAGES_API]),
    st.sampled_from(
        [
            {"error": {"message": "no"}},
            {"error": "no"},
            {"code": "x", "message": "no"},
            {"success": False, "message": "no"},
            {"base_resp": {"status_code": 1026, "status_msg": "no"}},
            {"status": "FAILED"},
        ]
    ),
)
def test_url_next_to_an_error_is_not_an_image(row: Any, error: dict[str, Any]) -> None:
    value = f"![mug]({URL})" if row.is_prose else {"url": URL}
    assert read({**nested(row.path, value), **error}) == ()


_NAMES = st.sampled_from(
    sorted(
        {part.removesuffix("[]") for row in TABLE for part in row.path.split(".")}
        | {"url", "b64_json", "image_url", "result", "error", "status", "message", "code", "text"}
    )
)
_VALUES = (
    _ERRORS | st.sampled_from([URL, TEXT, DATA_URL, f"![a]({URL})"]) | st.integers() | st.none()
)
_DOCUMENTS = st.recursive(
    _VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=20,
)


@given(_DOCUMENTS, st.integers(300, 599))
def test_error_status_is_never_an_image(document: object, status: int) -> None:
    response = read_response(json.dumps(document).encode(), {})
    exchange = Exchange(reach=Reach.COMPLETE, status=status, headers={})
    assert classify(exchange, response).outcome is not Outcome.OK


@given(_DOCUMENTS)
def test_found_images_are_read_again_by_index(document: object) -> None:
    body = json.dumps(document).encode()
    for adapter in ADAPTERS.values():
        response = adapter.read_response(body, {})
        indexes = [image.index for image in response.images]
        assert len(set(indexes)) == len(indexes)
        for image in response.images:
            if image.url is None and image.task is None:
                assert isinstance(adapter.inline_base64(body, {}, image.index), str)
