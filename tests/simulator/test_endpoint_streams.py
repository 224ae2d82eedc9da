"""Streamed images of the embedded endpoint: its events, its faults, and what they cost."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource
from PIL import Image

from batchgen.simulator.models.rules import ImageRequest, Reference
from batchgen.simulator.models.tokens import usage
from tests.support import rig
from tests.support.endpoint import KEY, PNG

SMALL = {"model": "gpt-image-2", "prompt": "A mug", "size": "1024x640", "stream": True}


SWITCHES = ()


@contextmanager
def asking(endpoint: rig.Endpoint, **body: Any) -> Iterator[httpx.Response]:
    url = f"{endpoint.base_url}/images/generations"
    with httpx.stream("POST", url, json={**SMALL, **body}, headers=KEY, timeout=60) as response:
        yield response


def events(endpoint: rig.Endpoint, **body: Any) -> list[Any]:
    """Return all events of one generation, each with the type in its `event:` line."""
    with asking(endpoint, **body) as response:
        return read(response)


def read(response: httpx.Response) -> list[Any]:
    found: list[Any] = []
    for sent in EventSource(response).iter_sse():
        if sent.data == "[DONE]":
            found.append(sent.data)
        else:
            document = json.loads(sent.data)
            assert sent.event == document["type"]
            found.append(document)
    return found


def types(found: list[Any]) -> list[str]:
    return [event if event == "[DONE]" else event["type"] for event in found]


def opened(b64_json: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(b64_json)))
    image.load()
    return image


PARTIAL, COMPLETED = "image_generation.partial_image", "image_generation.completed"


def test_partial_images_precede_the_image_and_get_finer(
    served: rig.Endpoint,
) -> None:
    before = len(served.bill())
    found = events(served, partial_images=3, quality="high", output_format="webp")
    assert types(found) == [PARTIAL] * 3 + [COMPLETED, "[DONE]"]
    assert [event["partial_image_index"] for event in found[:3]] == [0, 1, 2]
    for event in found[:-1]:
        assert (event["size"], event["quality"], event["background"]) == (
            "1024x640",
            "high",
            "auto",
        )
        assert event["output_format"] == "webp"
        assert isinstance(event["created_at"], int)
    colours = []
    for event in found[:3]:
        image = opened(event["b64_json"])
        assert (image.format, image.size) == ("WEBP", (1024, 640))
        colours.append(len(image.convert("RGB").getcolors(1024 * 640) or []))
    assert colours == sorted(set(colours))
    data = httpx.get(found[3]["url"]).content
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("WEBP", (1024, 640))
    (row,) = served.bill()[before:]
    assert (row["micros"], row["status"], row["fault"]) == (rig.PRICE, 200, None)


def test_stream_has_an_image_in_the_form_of_plain_responses(tuned: rig.Endpoint) -> None:
    completed, _ = events(tuned)
    assert "b64_json" not in completed
    tuned.judge("faults", {"response": "b64_json"})
    completed, _ = events(tuned)
    assert "url" not in completed
    assert opened(completed["b64_json"]).size == (1024, 640)


def test_several_images_have_an_event_each_and_one_charge(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"fast-images": True})
    found = events(tuned, n=2, partial_images=1)
    assert types(found) == [PARTIAL] * 2 + [COMPLETED] * 2 + ["[DONE]"]
    assert found[2]["url"] != found[3]["url"]
    row = tuned.bill()[-1]
    assert (row["n"], row["micros"]) == (2, 2 * rig.PRICE)


def test_a_stream_of_an_edit_says_so_and_counts_its_references(served: rig.Endpoint) -> None:
    with httpx.stream(
        "POST",
        f"{served.base_url}/images/edits",
        data={"model": "gpt-image-2", "prompt": "A mug", "stream": "true", "partial_images": "1"},
        files=[("image[]", PNG)] * 2,
        headers=KEY,
        timeout=60,
    ) as response:
        found = read(response)
    assert types(found) == ["image_edit.partial_image", "image_edit.completed", "[DONE]"]
    assert found[1]["usage"]["input_tokens_details"]["image_tokens"] == 2 * 16


def test_a_stream_that_takes_long_is_kept_alive_by_pings(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"latency": 0.5, "ping-interval": 0.1})
    with asking(tuned) as response:
        text = response.read().decode()
    assert response.headers["content-type"].startswith("text/event-stream")
    assert text.startswith(": ping\n\n")
    assert text.count(": ping\n\n") == 5
    assert text.endswith("data: [DONE]\n\n")


def test_who_hangs_up_in_mid_stream_is_billed_all_the_same(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"latency": 0.3})
    before = len(tuned.bill())
    with asking(tuned, partial_images=1) as response:
        assert next(response.iter_raw()).startswith(b": ping")
    assert len(tuned.bill()) == before
    tuned.wait_until_idle()
    assert len(tuned.bill()) == before + 1


def test_what_is_refused_is_refused_before_the_stream_opens(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"throttle": 1})
    with asking(tuned) as response:
        assert response.status_code == 429
    tuned.judge("faults", {"bill-gateway-timeout": 1})
    with asking(tuned) as response:
        assert response.status_code == 504
        assert response.headers["content-type"].startswith("text/html")


def test_a_stream_can_be_ignored_and_is_billed(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"stream-ignore": 1})
    with asking(tuned, partial_images=2) as response:
        response.read()
    assert response.headers["content-type"] == "application/json"
    assert response.json()["data"][0]["url"]
    assert tuned.bill()[-1]["fault"] == "stream-ignore"


@pytest.mark.parametrize(("fault", "charges"), [("stream-error", 0), ("bill-stream-error", 1)])
@pytest.mark.parametrize("bill_at", ["work", "body"])
def test_an_error_in_mid_stream_is_the_last_event(
    bill_at: str, fault: str, charges: int, tuned: rig.Endpoint
) -> None:
    before = len(tuned.bill())
    tuned.judge("faults", {fault: 1, "bill-at": bill_at})
    found = events(tuned, partial_images=2)
    assert types(found) == [PARTIAL, PARTIAL, "error"]
    assert found[-1]["error"]["code"] == "image_generation_failed"
    assert [row["status"] for row in tuned.bill()[before:]] == [200] * charges


def test_a_connection_cut_after_the_partial_images_is_billed(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"bill-stream-cut": 1})
    with pytest.raises(httpx.TransportError):
        events(tuned, partial_images=1)
    row = tuned.bill()[-1]
    assert (row["status"], row["fault"], row["micros"]) == ("dropped", "bill-stream-cut", rig.PRICE)


def received_before_the_cut(endpoint: rig.Endpoint) -> bytes:
    received = b""
    with asking(endpoint, partial_images=1) as response, suppress(httpx.TransportError):
        for chunk in response.iter_raw():
            received += chunk
    return received


def test_cut_without_reset_lets_the_partial_images_arrive(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"bill-stream-cut": 1, "fast-images": True})
    received = [received_before_the_cut(tuned) for _ in range(16)]  # the seed resets some
    assert any(b"image_generation.partial_image" in part for part in received)
    assert not any(b"image_generation.completed" in part for part in received)


def test_faults_of_streams_leave_plain_requests_alone(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"stream-error": 0.5, "bill-stream-cut": 0.5})
    with asking(tuned, stream=False) as response:
        assert response.status_code == 200
        response.read()
    assert tuned.bill()[-1]["fault"] is None


def test_stream_without_an_image_is_billed(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"bill-empty": 1})
    assert events(tuned) == ["[DONE]"]
    assert tuned.bill()[-1]["fault"] == "bill-empty"


def wanted(quality: str, width: int, height: int, **more: Any) -> ImageRequest:
    return ImageRequest(
        model="gpt-image-2",
        prompt="A mug",
        n=1,
        width=width,
        height=height,
        quality=quality,
        output_format="png",
        output_compression=None,
        **more,
    )


@pytest.mark.parametrize(
    ("quality", "width", "height", "tokens"),
    [
        ("low", 1024, 1024, 196),
        ("medium", 1024, 1024, 1756),
        ("high", 1024, 1536, 5488),
        ("medium", 2048, 1152, 1413),
        ("high", 3840, 2160, 13342),
    ],
)
def test_tokens_are_counted_as_the_carrier_counts_them(
    quality: str, width: int, height: int, tokens: int
) -> None:
    assert usage(wanted(quality, width, height))["output_tokens"] == tokens
    with_partials = usage(wanted(quality, width, height, partial_images=3))
    assert with_partials["output_tokens"] == tokens + 300


def test_large_reference_costs_at_most_the_maximum_patches() -> None:
    references = (Reference(digest="", width=4096, height=4096),)
    counted = usage(wanted("low", 1024, 1024, references=references))
    assert counted["input_tokens_details"] == {"text_tokens": 8, "image_tokens": 1536}
