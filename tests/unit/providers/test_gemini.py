"""Native generateContent: its request, and the many shapes of its responses."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import Billed, ImageRef, OptionValue, Outcome
from batchgen.outcomes.classify import Classification, Exchange, Reach, classify
from batchgen.providers.adapters import gemini
from batchgen.providers.adapters.gemini import build_request, read_response
from tests.support.adapters import ATTEMPT, BASE, IMAGE, JOB, TEXT, URL, inline_image, sent

MODEL = "nano-banana-2"


def response(*parts: dict[str, Any], **candidate: Any) -> bytes:
    """A body of one candidate with these parts."""
    content = {"role": "model", "parts": list(parts)}
    return json.dumps({"candidates": [{"content": content, **candidate}]}).encode()


def classify_document(document: Any, status: int = 200) -> Classification:
    """What an attempt with this response is."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    exchange = Exchange(reach=Reach.COMPLETE, status=status, headers={})
    return classify(exchange, read_response(body, {}))


@pytest.mark.anyio
async def test_prompt_and_settings_are_in_gemini_fields() -> None:
    options: dict[str, OptionValue] = {"aspect_ratio": "16:9", "resolution": "2K"}
    options["temperature"] = 0.5
    request = build_request(replace(JOB, model=MODEL, options=options), ATTEMPT, BASE)
    assert request.url == f"https://api.example/v1beta/models/{MODEL}:generateContent"
    assert json.loads(await sent(request)) == {
        "contents": [{"role": "user", "parts": [{"text": JOB.prompt}]}],
        "generationConfig": {
            "responseModalities": ["TEXT", "IMAGE"],
            "temperature": 0.5,
            "imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"},
        },
    }


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 2, 3, 255 * 1024 * 3 + 1])
async def test_references_go_along_as_base64_of_any_length(tmp_path: Path, size: int) -> None:
    first, second = tmp_path / "a.jpg", tmp_path / "b.webp"
    first.write_bytes(bytes(size))
    second.write_bytes(IMAGE)
    job = replace(JOB, model=MODEL, images=(str(first), str(second)))
    request = build_request(job, ATTEMPT, BASE)
    for _ in range(2):
        parts = json.loads(await sent(request))["contents"][0]["parts"]
        assert [part["inlineData"]["mimeType"] for part in parts[1:]] == [
            "image/jpeg",
            "image/png",
        ]
        data = [base64.b64decode(part["inlineData"]["data"]) for part in parts[1:]]
        assert data == [bytes(size), IMAGE]


@pytest.mark.parametrize(
    "part",
    [
        {"inlineData": {"mimeType": "image/png", "data": TEXT}},
        {"inline_data": {"mime_type": "image/png", "data": TEXT}},
        {"text": f"Here it is:\n![mug](data:image/png;base64,{TEXT})"},
        {"text": f"data:image/png;base64,{TEXT}"},
    ],
)
def test_image_is_found_in_each_shape(part: dict[str, Any]) -> None:
    body = response({"text": "Certainly."}, part, finishReason="STOP")
    assert read_response(body, {}).images == (ImageRef(index=0),)
    assert inline_image(body, {}, 0, gemini) == IMAGE


@pytest.mark.parametrize("text", [f"![mug]({URL})", f"Look: {URL}", f"<{URL}>"])
def test_url_in_the_text_is_found(text: str) -> None:
    assert read_response(response({"text": text}), {}).images == (ImageRef(index=0, url=URL),)


def test_thoughts_are_no_images() -> None:
    thought = {"thought": True, "inlineData": {"mimeType": "image/png", "data": TEXT}}
    assert read_response(response(thought), {}).images == ()
    assert read_response(response({"thought": True, "text": URL}), {}).images == ()


def test_usage_is_read() -> None:
    body = json.dumps({"candidates": [], "usageMetadata": {"totalTokenCount": 5}}).encode()
    assert read_response(body, {}).usage == {"totalTokenCount": 5}


@pytest.mark.parametrize(
    ("document", "outcome", "code"),
    [
        ({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, "blocked", "content_filter"),
        ({"candidates": [{"finishReason": "IMAGE_SAFETY"}]}, "blocked", "content_filter"),
        ({"candidates": [{"finishReason": "STOP", "content": {}}]}, "spoiled", "no_image"),
        ({"candidates": []}, "spoiled", "no_image"),
        ({"error": {"code": "get_channel_failed", "message": "no"}}, "ambiguous", None),
    ],
)
def test_response_without_an_image_says_why(
    document: dict[str, Any], outcome: str, code: str | None
) -> None:
    found = classify_document(document)
    assert found.outcome is Outcome(outcome)
    assert code is None or found.code == code


def test_errors_in_the_form_of_gemini_are_classified() -> None:
    error = {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}
    found = classify_document({"error": error}, status=400)
    assert (found.outcome, found.billed) == (Outcome.REFUSED, Billed.NO)


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.text(max_size=30) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "candidates",
                        "content",
                        "parts",
                        "text",
                        "inlineData",
                        "data",
                        "promptFeedback",
                    ]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=12,
    ).map(lambda document: json.dumps(document).encode())
)
def test_any_bytes_are_a_response(body: bytes) -> None:
    for image in read_response(body, {}).images:
        if image.url is None:
            try:
                inline_image(body, {}, image.index, gemini)
            except ValueError:
                continue
