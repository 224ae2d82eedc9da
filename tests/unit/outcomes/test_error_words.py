"""The table of error codes and phrases: every row, in every spelling, and what it must not do."""

from __future__ import annotations

import unicodedata

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import Billed, ImageRef, Outcome
from batchgen.outcomes.classify import (
    Classification,
    ErrorBody,
    Exchange,
    Reach,
    Response,
    classify,
    classify_failed_task,
)
from batchgen.outcomes.error_meanings import TABLE, kind_of_name, plain, says, words
from batchgen.outcomes.error_row import Kind, Row
from batchgen.providers.adapters import gemini, images
from tests.support.error_bodies import OPENAI_QUOTA, XAI, with_error

OUTCOMES = {
    Kind.MONEY: Outcome.STOP,
    Kind.ACCESS: Outcome.STOP,
    Kind.STOP: Outcome.STOP,
    Kind.BLOCKED: Outcome.BLOCKED,
    Kind.THROTTLED: Outcome.THROTTLED,
    Kind.REFUSED: Outcome.REFUSED,
}
STATUSES = {
    Kind.MONEY: (200, 400, 403, 429),
    Kind.ACCESS: (200, 400, 403),
    Kind.STOP: (200, 400, 404),
    Kind.BLOCKED: (200, 400, 403, 422, 451),
    Kind.THROTTLED: (200, 429),
    Kind.REFUSED: (200, 400, 500),
}
NAMES = [(row, name) for row in TABLE for name in row.names]
PHRASES = [(row, phrase) for row in TABLE for phrase in row.phrases]


def judged(status: int, error: object, *, prompt: str = "") -> Classification:
    """Classify a whole response whose body is this JSON."""
    response = images.read_response(orjson.dumps(error), {})
    exchange = Exchange(reach=Reach.COMPLETE, status=status, headers={})
    return classify(exchange, response, prompt=prompt)


def spellings(text: str) -> st.SearchStrategy[str]:
    """Variants of a text that a person reads as the same."""
    return st.sampled_from(
        [
            text,
            text.upper(),
            text.title(),
            f"  {text}\n",
            text.replace(" ", "  "),
            text.replace(" ", "\u00a0"),
            text.replace(" ", "\t"),
            text.replace(" ", "_"),
            text.replace(" ", "\u2011"),
            text.replace(" ", " \u200b"),
            unicodedata.normalize("NFD", text),
            "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
        ]
    )


def test_table_rows_name_their_source() -> None:
    assert all(
        row.source.startswith("https://") or row.source == "reported by users" for row in TABLE
    )
    assert all(row.names or row.phrases for row in TABLE)
    assert all(plain(phrase) == phrase for _, phrase in PHRASES)
    assert len(list(words())) == len(NAMES) + len(PHRASES)


@given(st.sampled_from(NAMES), st.data())
def test_name_means_the_same_in_every_spelling(found: tuple[Row, str], data: st.DataObject) -> None:
    row, name = found
    assert kind_of_name(data.draw(spellings(name))) is row.kind
    status = data.draw(st.sampled_from(STATUSES[row.kind]))
    as_code = judged(status, {"error": {"code": data.draw(spellings(name)), "message": "no"}})
    as_type = judged(status, {"error": {"type": name, "code": None, "message": "no"}})
    assert as_code.outcome is as_type.outcome is OUTCOMES[row.kind]
    if row.kind is Kind.MONEY:
        assert as_code.code == as_type.code == "no_money"


@given(st.sampled_from(PHRASES), st.data())
def test_phrase_means_the_same_in_every_spelling(
    found: tuple[Row, str], data: st.DataObject
) -> None:
    row, phrase = found
    spelled = data.draw(spellings(phrase))
    assert says(row.kind, f"Error: {spelled}, see the console.")
    status = data.draw(st.sampled_from(STATUSES[row.kind]))
    message = f"Error: {spelled}, see the console."
    plainly = judged(status, {"error": {"message": f"Error: {phrase}, see the console."}})
    spelled_out = judged(status, {"error": {"message": message}})
    assert spelled_out.outcome is plainly.outcome
    if row.kind in (Kind.MONEY, Kind.THROTTLED):
        assert spelled_out.outcome is OUTCOMES[row.kind]


@given(st.sampled_from(PHRASES), st.sampled_from([400, 422]))
def test_phrase_of_the_prompt_is_not_the_providers(found: tuple[Row, str], status: int) -> None:
    _, phrase = found
    prompt = f"A poster that says {phrase.upper()} in red"
    echo = judged(status, {"error": {"message": f"bad prompt: {prompt[:40]}..."}}, prompt=prompt)
    whole = judged(status, {"error": {"message": f"bad prompt: {prompt}"}}, prompt=prompt)
    assert echo.outcome is whole.outcome is Outcome.REFUSED


_IMAGES = st.lists(
    st.builds(ImageRef, index=st.integers(0, 9), url=st.just("https://h/1")), min_size=1
).map(tuple)
_ERRORS = st.builds(
    ErrorBody,
    code=st.sampled_from([name for _, name in NAMES]) | st.text(),
    type=st.sampled_from([name for _, name in NAMES]) | st.text(),
    message=st.sampled_from([phrase for _, phrase in PHRASES]) | st.text(),
    names=st.lists(st.sampled_from([name for _, name in NAMES]), max_size=2).map(tuple),
    retry_after_s=st.none() | st.floats(0, 1e6),
)


@given(st.integers(200, 299), _IMAGES, st.none() | _ERRORS)
def test_table_makes_no_image_an_error(
    status: int, images: tuple[ImageRef, ...], error: ErrorBody | None
) -> None:
    response = Response(readable=True, images=images, error=error)
    classification = classify(Exchange(reach=Reach.COMPLETE, status=status, headers={}), response)
    assert (classification.outcome, classification.billed) == (Outcome.OK, Billed.YES)


@given(st.integers(100, 999), _ERRORS, st.text())
def test_table_makes_no_error_an_image(status: int, error: ErrorBody, prompt: str) -> None:
    response = Response(readable=True, error=error)
    exchange = Exchange(reach=Reach.COMPLETE, status=status, headers={})
    classification = classify(exchange, response, prompt=prompt)
    assert classification.outcome is not Outcome.OK
    assert classification.code
    assert classification.message.isprintable()
    free = classification.outcome not in (Outcome.AMBIGUOUS, Outcome.SPOILED)
    assert (classification.billed is Billed.NO) == free or classification.code.startswith(
        "violation_fee."
    )


RAI = "The response was filtered due to the prompt triggering Azure OpenAI's content management"
GEMINI_RATE = f"{OPENAI_QUOTA} * Quota exceeded for metric: x, limit: 5. Please retry in 46.2s."


def gemini_error(message: str, *details: object) -> object:
    return with_error(message, 429, status="RESOURCE_EXHAUSTED", details=list(details))


PER_DAY = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}
PER_MINUTE = {"violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]}
RESPONSES = {
    "LiteLLM type": (400, with_error("x", "400", "budget_exceeded"), "stop", "no_money"),
    "LiteLLM words": (
        400,
        with_error("litellm.BadRequestError: - Budget has been exceeded! Max budget: 10.0", "400"),
        "stop",
        "no_money",
    ),
    "LiteLLM hook": (429, {"detail": "Max budget limit reached."}, "stop", "no_money"),
    "LiteLLM passes an error on": (
        400,
        with_error('OpenAIException - {"error": {"code": "moderation_blocked"}}', "400"),
        "blocked",
        "moderation_blocked",
    ),
    "xAI 429": (
        429,
        {"code": "Some resource has been exhausted", "error": XAI},
        "stop",
        "no_money",
    ),
    "xAI 403": (403, {"code": "permission-denied", "error": XAI}, "stop", "no_money"),
    "no permission": (
        403,
        {"code": "permission-denied", "error": "no"},
        "stop",
        "permission-denied",
    ),
    "xAI in a 200": (200, {"code": "x", "error": XAI}, "stop", "no_money"),
    "OpenAI quota in a 200": (200, with_error(OPENAI_QUOTA), "stop", "no_money"),
    "OpenAI rate": (
        429,
        with_error("Rate limit reached on input-images per min: quota 5", "rate_limit_exceeded"),
        "throttled",
        "rate_limit_exceeded",
    ),
    "quota of requests": (
        429,
        with_error("insufficient quota: 5 requests per minute"),
        "throttled",
        "http_429",
    ),
    "402": (402, with_error("pay"), "stop", "no_money"),
    "OpenRouter in a 200": (200, with_error("Insufficient credits", 402), "stop", "no_money"),
    "OpenRouter moderation": (
        403,
        with_error("no", 403, metadata={"reasons": ["x"], "flagged_input": "a mug"}),
        "blocked",
        "flagged_input",
    ),
    "DashScope block": (
        400,
        with_error("Input data may contain x", "DataInspectionFailed"),
        "blocked",
        "DataInspectionFailed",
    ),
    "Azure inner error": (
        400,
        with_error("no", "x", inner_error={"code": "ResponsibleAIPolicyViolation"}),
        "blocked",
        "ResponsibleAIPolicyViolation",
    ),
    "Azure innererror": (
        400,
        with_error("no", "x", innererror={"code": "ResponsibleAIPolicyViolation"}),
        "blocked",
        "ResponsibleAIPolicyViolation",
    ),
    "Azure contentFilter": (400, with_error("no", "contentFilter"), "blocked", "contentFilter"),
    "Azure words": (400, with_error(f"{RAI} policy."), "blocked", "http_400"),
    "Azure blocks the account": (
        403,
        with_error("The resource has been temporarily blocked: content policy"),
        "stop",
        "http_403",
    ),
    "Gemini rate": (
        429,
        gemini_error(GEMINI_RATE, PER_MINUTE, {"retryDelay": "46s"}),
        "throttled",
        "RESOURCE_EXHAUSTED",
    ),
    "Gemini delay alone": (
        429,
        gemini_error(OPENAI_QUOTA, {"retryDelay": "46s"}),
        "throttled",
        "RESOURCE_EXHAUSTED",
    ),
    "Gemini day": (429, gemini_error(GEMINI_RATE, PER_DAY), "stop", "quota_per_day"),
    "Gemini prepaid": (
        429,
        gemini_error("Your prepayment credits are depleted. See https://x/rate-limits"),
        "stop",
        "no_money",
    ),
    "Gemini key": (
        400,
        with_error("API key not valid.", 400, details=[{"reason": "API_KEY_INVALID"}]),
        "stop",
        "API_KEY_INVALID",
    ),
    "Stability": (
        403,
        {"name": "content_moderation", "errors": ["Your request was flagged"]},
        "blocked",
        "content_moderation",
    ),
    "fal block": (
        422,
        {"detail": [{"loc": ["body"], "msg": "no", "type": "content_policy_violation"}]},
        "blocked",
        "content_policy_violation",
    ),
    "fal money": (
        403,
        {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at x."},
        "stop",
        "no_money",
    ),
    "fal lock": (403, {"detail": "User is locked. Reason: Admin lock."}, "stop", "http_403"),
    "MiniMax money": (
        200,
        {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
        "stop",
        "no_money",
    ),
    "MiniMax block": (
        200,
        {"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}},
        "blocked",
        "1026",
    ),
    "Tencent": (
        200,
        {"Response": {"Error": {"Code": "OperationDenied.TextIllegalDetected", "Message": "x"}}},
        "blocked",
        "OperationDenied.TextIllegalDetected",
    ),
    "Baidu": (
        429,
        {"error_code": "BILLING_INSUFFICIENT_BALANCE", "error_msg": "x"},
        "stop",
        "no_money",
    ),
    "SiliconFlow": (
        403,
        {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None},
        "stop",
        "no_money",
    ),
    "Zhipu money is a 429": (
        429,
        with_error("您的账户已欠费,请充值后重试", "1113"),
        "stop",
        "no_money",
    ),
    "Zhipu block": (400, with_error("可能包含不安全或敏感内容", "1301"), "blocked", "1301"),
    "Volcengine": (
        400,
        with_error("x", "InputImageSensitiveContentDetected.PrivacyInformation"),
        "blocked",
        "InputImageSensitiveContentDetected.PrivacyInformation",
    ),
    "Fireworks": (
        412,
        with_error("Account x is suspended, possibly due to reaching the monthly spending limit"),
        "stop",
        "no_money",
    ),
    "new-api in Chinese": (
        403,
        with_error("预扣费额度失败, 用户剩余额度: $0.3"),
        "stop",
        "no_money",
    ),
    "one-api busy": (
        429,
        with_error("当前分组上游负载已饱和请"),
        "throttled",
        "http_429",
    ),
    "Black Forest Labs": (
        200,
        {"id": "t", "status": "Request Moderated", "result": None},
        "blocked",
        "Request Moderated",
    ),
    "Azure of case 15": (
        400,
        with_error(
            "Your task failed as a result of our safety system.",
            "contentFilter",
            inner_error={"code": "ResponsibleAIPolicyViolation"},
        ),
        "blocked",
        "contentFilter",
    ),
    "Azure of case 15, other form": (
        400,
        with_error(RAI, "ResponsibleAIPolicyViolation", status=400),
        "blocked",
        "ResponsibleAIPolicyViolation",
    ),
    "DashScope at the top": (
        400,
        {"request_id": "r", "code": "DataInspectionFailed", "message": "x"},
        "blocked",
        "DataInspectionFailed",
    ),
    "DashScope task": (
        200,
        {"output": {"task_status": "FAILED", "code": "DataInspectionFailed", "message": "x"}},
        "blocked",
        "DataInspectionFailed",
    ),
    "Azure chat": (
        200,
        {"choices": [{"finish_reason": "content_filter", "message": {"content": ""}}]},
        "blocked",
        "content_filter",
    ),
    "a chat that refuses": (
        200,
        {"choices": [{"message": {"refusal": "I can't help with that."}}]},
        "blocked",
        "content_filter",
    ),
    "a response that refuses": (
        200,
        {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]},
        "blocked",
        "content_filter",
    ),
    "Volcengine item": (
        200,
        {"data": [{"error": {"code": "OutputImageSensitiveContentDetected", "message": "x"}}]},
        "blocked",
        "OutputImageSensitiveContentDetected",
    ),
    "Imagen": (
        200,
        {"predictions": [{"raiFilteredReason": "x"}]},
        "blocked",
        "content_filter",
    ),
    "Nova, all blocked": (
        200,
        {
            "images": [],
            "error": "All of the images have been blocked by our content filters.",
        },
        "blocked",
        "http_200",
    ),
    "Stability on Bedrock": (
        200,
        {"seeds": [1], "finish_reasons": ["Filter reason: output image"], "images": [""]},
        "blocked",
        "http_200",
    ),
    "Stability v2": (
        200,
        {"finish_reason": "CONTENT_FILTERED", "image": ""},
        "blocked",
        "CONTENT_FILTERED",
    ),
    "Runway": (
        200,
        {"status": "FAILED", "failure": "x", "failureCode": "SAFETY.INPUT.TEXT"},
        "blocked",
        "SAFETY.INPUT.TEXT",
    ),
    "LiteLLM policy": (
        400,
        with_error("litellm.ContentPolicyViolationError: no", "400"),
        "blocked",
        "400",
    ),
    "a refusal in plain text": (
        400,
        "Your prompt was flagged by a content checker.",
        "blocked",
        "http_400",
    ),
    "a bad moderation option": (
        400,
        with_error("Invalid value for 'moderation': expected auto or low", "invalid_value"),
        "refused",
        "invalid_value",
    ),
    "a pixel budget": (
        400,
        with_error("Requested resolution exceeds the current pixel budget", "invalid_value"),
        "refused",
        "invalid_value",
    ),
    "an empty success": (200, {"code": 200, "msg": "ok", "data": []}, "spoiled", "no_image"),
    "a 500 of no known form": (
        500,
        {"detail": "insufficient balance"},
        "ambiguous",
        "http_500",
    ),
    "a 503 of no known form": (503, {"detail": "busy"}, "ambiguous", "http_503"),
    "a server that worked on it": (
        507,
        with_error("content moderation and insufficient balance"),
        "ambiguous",
        "http_507",
    ),
}


@pytest.mark.fault("K10", "K12")
@pytest.mark.parametrize(
    ("status", "body", "outcome", "code"), RESPONSES.values(), ids=RESPONSES.keys()
)
def test_response_of_a_provider_is_classified(
    status: int, body: object, outcome: str, code: str
) -> None:
    classification = judged(status, body)
    assert (classification.outcome, classification.code) == (Outcome(outcome), code)


@pytest.mark.parametrize(
    ("error", "billed", "outcome", "code"),
    [
        (ErrorBody(message="Request Moderated"), Billed.MAYBE, "blocked", "task_failed"),
        (ErrorBody(code="1301", message="x"), Billed.YES, "blocked", "1301"),
        (ErrorBody(code="CreditInsufficient"), Billed.NO, "stop", "no_money"),
        (ErrorBody(code="CreditInsufficient"), Billed.YES, "refused", "no_money"),
        (ErrorBody(message="insufficient balance"), Billed.MAYBE, "refused", "no_money"),
        (ErrorBody(code="slow_down"), Billed.NO, "refused", "slow_down"),
        (ErrorBody(code="task_failed", message="upstream"), Billed.NO, "refused", "task_failed"),
    ],
)
def test_failed_task_uses_the_table(
    error: ErrorBody, billed: Billed, outcome: str, code: str
) -> None:
    classification = classify_failed_task(error, billed)
    assert (classification.outcome, classification.billed, classification.code) == (
        Outcome(outcome),
        billed,
        code,
    )


def test_failed_task_ignores_the_words_of_its_prompt() -> None:
    error = ErrorBody(message="failed: request moderated")
    assert (
        classify_failed_task(error, Billed.NO, prompt="Request moderated").outcome
        is Outcome.REFUSED
    )


def test_gemini_refusal_uses_the_table() -> None:
    for reason in ("IMAGE_SAFETY", "PROHIBITED_CONTENT"):
        body = orjson.dumps({"candidates": [{"finishReason": reason}]})
        error = gemini.read_response(body, {}).error
        assert error is not None
        assert error.code == "content_filter"
    body = orjson.dumps({"candidates": [{"finishReason": "NO_IMAGE"}]})
    assert gemini.read_response(body, {}).error is None


def test_message_keeps_code_type_and_words() -> None:
    classification = judged(
        429, with_error("You have\nno credits", "insufficient_quota", "billing")
    )
    assert classification.message.startswith(
        "You have no credits [code insufficient_quota, type billing]"
    )
