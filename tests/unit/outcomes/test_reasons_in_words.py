"""What a provider says next to no image decides and is reported, in any field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchgen.job import Billed, Outcome
from batchgen.outcomes.classify import Classification, Exchange, Reach, classify
from batchgen.outcomes.retry_after import is_wait_header, retry_after
from batchgen.providers.adapters.images import read_response

SAFETY = "Your request was rejected as a result of our safety system."


def classified(body: Any, status: int = 200, prompt: str = "") -> Classification:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    exchange = Exchange(reach=Reach.COMPLETE, status=status, headers={})
    return classify(exchange, read_response(raw, {}), prompt=prompt)


def chat(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}}]}


@pytest.mark.parametrize(
    "body",
    [
        {"data": [], "message": SAFETY},
        {"status": "failed", "reason": SAFETY},
        {"images": [], "errmsg": SAFETY},
        chat(SAFETY),
    ],
)
def test_refusal_in_words_of_a_success_is_blocked(body: Any) -> None:
    found = classified(body)
    assert (found.outcome, found.billed) == (Outcome.BLOCKED, Billed.MAYBE)
    assert (found.code, found.message) == ("no_image", SAFETY)


@pytest.mark.parametrize(
    "body",
    [
        b"Insufficient balance",
        {"data": [], "msg": "Not enough credits"},
        chat("Insufficient balance"),
    ],
)
def test_money_in_words_of_a_success_stops(body: Any) -> None:
    """A run stops for this code; whether the text was paid for is unknown."""
    found = classified(body)
    assert (found.outcome, found.billed) == (Outcome.AMBIGUOUS, Billed.MAYBE)
    assert found.code == "no_money"


def test_words_of_the_prompt_are_not_a_reason() -> None:
    found = classified(chat("a poster: content policy"), prompt="a poster: content policy")
    assert (found.outcome, found.billed) == (Outcome.SPOILED, Billed.YES)


def test_success_without_an_image_is_reported_with_its_words() -> None:
    found = classified(chat("I'm sorry, but I can't draw this."))
    assert found.message == "HTTP 200 without an image: I'm sorry, but I can't draw this."


def test_status_in_an_error_is_not_its_type() -> None:
    error = {"code": "content_filter", "message": "no", "status": 400}
    assert classified({"error": error}, 400).message == "no"


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "slow", "retry_after": 7}},
        {"error": {"message": "slow"}, "retry_after": 7.0},
        {"error": {"message": "slow"}, "parameters": {"retryAfter": "7s"}},
        {"detail": {"message": "slow", "retry_after_seconds": 7}},
    ],
)
def test_wait_in_a_field_of_the_error_is_read(body: Any) -> None:
    assert classified(body, 429).retry_after_s == 7.0


@pytest.mark.parametrize("value", [-1, 0, True, None, "soon", [7], float("inf")])
def test_other_values_of_a_wait_are_ignored(value: object) -> None:
    body = {"error": {"message": "slow", "retry_after": value}}
    assert classified(body, 429).retry_after_s is None


def test_wait_of_azure_is_read() -> None:
    assert is_wait_header("x-ms-retry-after-ms")
    assert retry_after({"x-ms-retry-after-ms": "800"}) == 0.8
