"""Streamed responses as gateways send them: complete, cut, or with errors inside."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import Billed, ImageRef, Outcome
from batchgen.outcomes.classify import Classification, Exchange, Failure, Reach, classify
from batchgen.providers.adapters.images import partial_images, read_response
from tests.support.adapters import inline_image
from tests.support.sse import COMPLETED, IMAGE, PARTIAL, TEXT, USAGE, stream

STREAM = {"content-type": "text/event-stream; charset=utf-8"}


def classify_body(body: bytes, *, reach: Reach = Reach.COMPLETE) -> Classification:
    """What an attempt with this streamed body is."""
    failure = Failure.NONE if reach is Reach.COMPLETE else Failure.NETWORK
    exchange = Exchange(reach=reach, failure=failure, status=200, headers=STREAM)
    return classify(exchange, read_response(body, STREAM))


@pytest.mark.parametrize(
    "body",
    [
        stream(COMPLETED),
        stream(COMPLETED, named=False),
        stream(": ping\n\n", PARTIAL, ": ping\n\n", COMPLETED),
        stream(COMPLETED, end=""),
        stream(COMPLETED, end="").rstrip(b"\n"),
        stream(COMPLETED).replace(b"\n", b"\r\n"),
        stream({"type": "image_edit.completed", "url": f"data:image/png;base64,{TEXT}"}),
        stream({"created": 1, "data": [{"b64_json": TEXT}]}),
    ],
    ids=["plain", "unnamed", "pings", "no end", "cut at its end", "crlf", "data URL", "one event"],
)
def test_the_finished_image_is_found(body: bytes) -> None:
    response = read_response(body, STREAM)
    assert response.images == (ImageRef(index=0),)
    assert inline_image(body, STREAM, 0) == IMAGE
    assert classify_body(body).outcome is Outcome.OK


def test_url_may_replace_the_image() -> None:
    completed = {"type": "image_generation.completed", "url": "https://images.example/1.png"}
    response = read_response(stream(completed, end=""), STREAM)
    assert response.images == (ImageRef(index=0, url="https://images.example/1.png"),)


def test_usage_and_partial_images_are_read() -> None:
    body = stream(PARTIAL, {**PARTIAL, "partial_image_index": 1, "b64_json": "%"}, COMPLETED)
    assert read_response(body, STREAM).usage == USAGE
    assert partial_images(body, STREAM) == [IMAGE]


@pytest.mark.fault("H29")
def test_a_stream_without_its_type_is_known_by_its_looks() -> None:
    body = stream(COMPLETED)
    assert read_response(body, {}).images
    assert inline_image(body, {}, 0) == IMAGE


def test_line_of_twelve_megabytes_is_read() -> None:
    data = base64.b64encode(bytes(12_000_000)).decode()
    body = stream({**COMPLETED, "b64_json": data})
    assert len(inline_image(body, STREAM, 0)) == 12_000_000


@pytest.mark.parametrize(
    ("event", "outcome", "code"),
    [
        (
            {"type": "error", "error": {"code": "image_generation_failed", "message": "no"}},
            Outcome.AMBIGUOUS,
            "image_generation_failed",
        ),
        (
            {"type": "error", "error": {"code": "moderation_blocked", "message": "no"}},
            Outcome.BLOCKED,
            "moderation_blocked",
        ),
        (
            {"type": "upstream_error", "code": "insufficient_user_quota", "message": "none left"},
            Outcome.STOP,
            "no_money",
        ),
        ({"error": "it broke"}, Outcome.AMBIGUOUS, "error_in_success"),
    ],
)
def test_error_in_mid_stream_is_classified_as_any_other(
    event: dict[str, Any], outcome: Outcome, code: str
) -> None:
    found = classify_body(stream(PARTIAL, event, end=""))
    assert (found.outcome, found.code) == (outcome, code)


def test_image_takes_precedence_over_a_later_error() -> None:
    assert (
        classify_body(stream(COMPLETED, {"type": "error", "error": "late"})).outcome is Outcome.OK
    )


@pytest.mark.fault("H29")
def test_stream_that_ends_without_its_image_is_uncertain() -> None:
    for body in (stream(PARTIAL), stream(), b": ping\n\n"):
        found = classify_body(body)
        assert (found.outcome, found.billed) == (Outcome.AMBIGUOUS, Billed.MAYBE)
        assert found.code == "stream_ended"


def test_stream_cut_at_any_byte_is_an_image_or_uncertain() -> None:
    body = stream(PARTIAL, COMPLETED)
    whole = body.index(TEXT.encode(), body.index(b".completed")) + len(TEXT)
    for end in range(len(body)):
        found = classify_body(body[:end], reach=Reach.HEADERS)
        if found.outcome is Outcome.OK:
            assert end > whole
            assert inline_image(body[:end], STREAM, 0) == IMAGE
        else:
            assert (found.outcome, found.billed) == (Outcome.AMBIGUOUS, Billed.MAYBE)
    assert classify_body(body[:-1], reach=Reach.HEADERS).outcome is Outcome.OK


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"data: {text}".encode()))
def test_any_bytes_are_a_response(body: bytes) -> None:
    response = read_response(body, STREAM)
    for image in response.images:
        if image.url is None:
            try:
                inline_image(body, STREAM, image.index)
            except ValueError:
                continue
