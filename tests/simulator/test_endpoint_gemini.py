"""Native Gemini of the local endpoint: responses, references, refusals and bill."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchgen.providers.crazyrouter import PRICES
from batchgen.simulator.errors import ApiError
from batchgen.simulator.models import gemini
from tests.support import rig
from tests.support.endpoint import KEY, error_of, image_file


def inline(content: bytes, mime_type: str = "image/png") -> dict[str, Any]:
    """A reference part."""
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(content).decode()}}


def ask(
    endpoint: rig.Endpoint,
    *parts: dict[str, Any],
    model: str = "nano-banana-2",
    prompt: str = "A mug",
    config: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    root = endpoint.base_url.removesuffix("/v1")
    contents = [{"role": "user", "parts": [{"text": prompt}, *parts]}]
    return httpx.post(
        f"{root}/v1beta/models/{model}:generateContent",
        json={"contents": contents, "generationConfig": config or {}},
        headers=KEY if headers is None else headers,
        timeout=60,
    )


def part_of(response: httpx.Response) -> dict[str, Any]:
    """The one part of the one candidate."""
    (candidate,) = response.json()["candidates"]
    assert candidate["finishReason"] == "STOP"
    (part,) = candidate["content"]["parts"]
    found: dict[str, Any] = part
    return found


def size_of(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image.size


SIZES: list[tuple[str, dict[str, str], tuple[int, int]]] = [
    ("nano-banana", {}, (1024, 1024)),
    ("nano-banana", {"aspectRatio": "16:9"}, (1376, 768)),
    ("nano-banana-2", {"aspectRatio": "4:5", "imageSize": "2K"}, (1856, 2304)),
    ("nano-banana-2", {"imageSize": "4K"}, (4096, 4096)),
    ("nano-banana-pro", {"imageSize": "1K"}, (1024, 1024)),
]


@pytest.mark.parametrize(("model", "image_config", "size"), SIZES)
def test_image_comes_inside_the_response_at_its_size_and_price(
    model: str, image_config: dict[str, str], size: tuple[int, int], served: rig.Endpoint
) -> None:
    config = {"responseModalities": ["IMAGE"], "imageConfig": image_config}
    response = ask(served, model=model, config=config)
    data = part_of(response)["inlineData"]
    assert data["mimeType"] == "image/png"
    assert size_of(base64.b64decode(data["data"])) == size
    usage = response.json()["usageMetadata"]
    assert usage["candidatesTokenCount"] > 1000
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"]
    row = served.bill()[-1]
    assert (row["model"], row["prompt"], row["n"]) == (model, "A mug", 1)
    resolution = image_config.get("imageSize", "1K")
    assert row["micros"] == PRICES.price(model, {"resolution": resolution}, 0)


def test_image_may_come_as_a_data_uri_in_a_text(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"gemini-response": "data-uri"})
    match = re.fullmatch(r"!\[image\]\(data:image/png;base64,(.+)\)", part_of(ask(tuned))["text"])
    assert match is not None
    assert size_of(base64.b64decode(match[1])) == (1024, 1024)


def test_image_may_come_as_a_url_in_a_text(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"gemini-response": "url"})
    match = re.fullmatch(r"!\[image\]\((http://[^)]+)\)", part_of(ask(tuned))["text"])
    assert match is not None
    assert size_of(httpx.get(match[1]).content) == (1024, 1024)


def test_references_are_looked_at_and_counted(served: rig.Endpoint) -> None:
    one = inline(image_file())
    response = ask(served, one, inline(image_file(file_format="JPEG"), "image/jpeg"))
    details = response.json()["usageMetadata"]["promptTokensDetails"]
    assert {"modality": "IMAGE", "tokenCount": 2 * 258} in details
    assert served.bill()[-1]["micros"] == 36_850
    # Clients that write protobuf's names are understood too.
    data = {"mime_type": "image/png", "data": one["inlineData"]["data"]}
    assert ask(served, {"inline_data": data}).status_code == 200


@pytest.mark.parametrize(
    ("part", "code"),
    [
        (inline(image_file()[:60]), "invalid_image_file"),
        (inline(b"no image"), "invalid_image_file"),
        (inline(image_file(), "application/pdf"), "unsupported_file_mimetype"),
        ({"inlineData": {"mimeType": "image/png", "data": "#"}}, "invalid_value"),
        ({"inlineData": "mug.png"}, "invalid_type"),
    ],
)
def test_an_unfit_reference_is_refused_and_free(
    part: dict[str, Any], code: str, served: rig.Endpoint
) -> None:
    before = len(served.bill())
    assert error_of(ask(served, part)) == (400, code)
    assert len(served.bill()) == before


def test_more_references_than_the_model_takes_are_refused(served: rig.Endpoint) -> None:
    parts = [inline(image_file())] * 15
    assert error_of(ask(served, *parts)) == (400, "invalid_value")
    assert ask(served, *parts[:14]).status_code == 200


@pytest.mark.parametrize(
    "config",
    [
        {"imageConfig": {"aspectRatio": "7:5"}},
        {"imageConfig": {"imageSize": "2k"}},
        {"imageConfig": "2K"},
        {"responseModalities": ["TEXT"]},
        {"responseModalities": "IMAGE"},
    ],
)
def test_a_wrong_configuration_is_refused_and_free(
    config: dict[str, Any], served: rig.Endpoint
) -> None:
    before = len(served.bill())
    assert ask(served, config=config).status_code == 400
    assert len(served.bill()) == before


def test_a_blocked_prompt_has_no_candidates_and_is_free(tuned: rig.Endpoint) -> None:
    before = len(tuned.bill())
    by_word = ask(tuned, prompt="a forbidden-word here")
    tuned.judge("faults", {"block": 1})
    by_chance = ask(tuned)
    for response in (by_word, by_chance):
        assert response.status_code == 200
        assert "candidates" not in response.json()
        assert response.json()["promptFeedback"] == {"blockReason": "PROHIBITED_CONTENT"}
    assert len(tuned.bill()) == before


def test_the_images_route_blocks_by_chance_in_its_own_words(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"block": 1})
    fields = {"model": "nano-banana-2", "prompt": "A mug"}
    refused = httpx.post(f"{tuned.base_url}/images/generations", json=fields, headers=KEY)
    assert error_of(refused) == (400, "moderation_blocked")


def test_response_without_an_image_says_why_and_is_billed(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"bill-empty": 1})
    (candidate,) = ask(tuned).json()["candidates"]
    assert candidate["finishReason"] == "NO_IMAGE"
    assert "content" not in candidate
    assert tuned.bill()[-1]["fault"] == "bill-empty"


def test_keys_and_models_are_checked(served: rig.Endpoint) -> None:
    assert error_of(ask(served, headers={})) == (401, "")
    assert error_of(ask(served, model="gpt-image-2")) == (503, "model_not_found")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["parts", "text", "inlineData", "data", "mimeType", "imageConfig"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(contents=JSON, config=JSON)
def test_any_body_makes_a_request_or_an_error(contents: object, config: object) -> None:
    fields = {"contents": contents, "generationConfig": config}
    try:
        wanted = gemini.read("nano-banana", fields, block_word="never")
    except ApiError as refused:
        status = refused.status
    else:
        status = 200
        assert wanted.prompt
    assert status in (200, 400)
