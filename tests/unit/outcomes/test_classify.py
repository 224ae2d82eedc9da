"""Tables of attempts and their outcomes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import Billed, ImageRef, Outcome
from batchgen.outcomes.classify import (
    UPLOAD_CUT,
    Classification,
    ErrorBody,
    Exchange,
    Failure,
    Habits,
    Reach,
    Response,
    classify,
    classify_failed_task,
)
from batchgen.outcomes.exchange import Task
from batchgen.providers.adapters.images import read_response


def answered(
    status: int, body: object = None, headers: dict[str, str] | None = None
) -> Classification:
    """The classification of a complete response; a body other than bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
    exchange = Exchange(reach=Reach.COMPLETE, status=status, headers=headers or {})
    return classify(exchange, read_response(raw, headers or {}))


def error(code: object = "", kind: str = "new_api_error", message: str = "no") -> Any:
    """An error object as the gateway sends it."""
    return {"error": {"message": message, "type": kind, "param": "", "code": code}}


HTML = b"<html><body>Bad gateway</body></html>"

STATUS_ROWS = {
    "H01": (
        partial(answered, 400, error("invalid_value", "image_generation_user_error")),
        Outcome.REFUSED,
    ),
    "H02": (partial(answered, 400, error("moderation_blocked", "x")), Outcome.BLOCKED),
    "H03": (partial(answered, 401, error()), Outcome.STOP),
    "H04": (partial(answered, 402, error()), Outcome.STOP),
    "H05-quota": (partial(answered, 403, error("insufficient_user_quota")), Outcome.STOP),
    "H05-model": (partial(answered, 403, error()), Outcome.STOP),
    "H05-firewall": (
        partial(answered, 403, HTML, {"content-type": "text/html"}),
        Outcome.THROTTLED,
    ),
    "H06-model": (partial(answered, 404, error("model_not_found")), Outcome.STOP),
    "H06-path": (partial(answered, 404, b"404 page not found"), Outcome.STOP),
    "H07-405": (partial(answered, 405), Outcome.STOP),
    "H07-406": (partial(answered, 406), Outcome.STOP),
    "H07-415": (partial(answered, 415), Outcome.STOP),
    "H07-501": (partial(answered, 501, error("api_not_implemented")), Outcome.STOP),
    "H08": (partial(answered, 408, error()), Outcome.AMBIGUOUS),
    "H09": (partial(answered, 409, error()), Outcome.REFUSED),
    "H11": (partial(answered, 413, error("read_request_body_failed")), Outcome.REFUSED),
    "H12": (partial(answered, 422, error()), Outcome.REFUSED),
    "H13": (partial(answered, 425), Outcome.SAFE),
    "H14": (partial(answered, 429, error()), Outcome.THROTTLED),
    "H14-empty": (partial(answered, 429), Outcome.THROTTLED),
    "H20": (partial(answered, 429, error("insufficient_quota")), Outcome.STOP),
    "H20-cap": (partial(answered, 429, error("organization_spend_limit_exceeded")), Outcome.STOP),
    "H21": (partial(answered, 500, error("do_request_failed")), Outcome.REFUSED),
    "H22-html": (partial(answered, 500, HTML), Outcome.AMBIGUOUS),
    "H22-empty": (partial(answered, 500), Outcome.AMBIGUOUS),
    "H23-envelope": (partial(answered, 502, error()), Outcome.REFUSED),
    "H23-html": (partial(answered, 502, HTML), Outcome.AMBIGUOUS),
    "H24": (partial(answered, 503, b"queue full", {"retry-after": "5"}), Outcome.THROTTLED),
    "H24-envelope": (partial(answered, 503, error("system_cpu_overloaded")), Outcome.THROTTLED),
    "H25-html": (partial(answered, 504, HTML), Outcome.AMBIGUOUS),
    "H25-json": (
        partial(answered, 504, {"retryable": True, **error("timeout")}),
        Outcome.AMBIGUOUS,
    ),
    "H26-520": (partial(answered, 520, HTML), Outcome.AMBIGUOUS),
    "H26-522": (partial(answered, 522, HTML), Outcome.AMBIGUOUS),
    "H26-524": (partial(answered, 524, HTML), Outcome.AMBIGUOUS),
    "H27-521": (partial(answered, 521, HTML), Outcome.SAFE),
    "H27-523": (partial(answered, 523, HTML), Outcome.SAFE),
    "H27-525": (partial(answered, 525, HTML), Outcome.SAFE),
    "H27-526": (partial(answered, 526, HTML), Outcome.SAFE),
    "H28": (partial(answered, 529), Outcome.THROTTLED),
    "H29": (
        partial(answered, 200, b'data: {"type": "x"}\n\n', {"content-type": "text/event-stream"}),
        Outcome.AMBIGUOUS,
    ),
    "H30-201": (partial(answered, 201, {"task_id": "t1", "data": []}), Outcome.AMBIGUOUS),
    "H30-202": (partial(answered, 202, {"task_id": "t1"}), Outcome.AMBIGUOUS),
    "H31-204": (partial(answered, 204), Outcome.AMBIGUOUS),
    "H31-200": (partial(answered, 200), Outcome.AMBIGUOUS),
    "H32-299": (partial(answered, 299, {"data": [{"url": "https://x/y"}]}), Outcome.OK),
    "H32-418": (partial(answered, 418), Outcome.REFUSED),
    "H32-451": (partial(answered, 451), Outcome.BLOCKED),
    "H32-599": (partial(answered, 599), Outcome.AMBIGUOUS),
    "H32-999": (partial(answered, 999), Outcome.AMBIGUOUS),
    "H35-504": (partial(answered, 504, HTML, {"x-should-retry": "true"}), Outcome.AMBIGUOUS),
    "H35-429": (partial(answered, 429, error(), {"x-should-retry": "false"}), Outcome.STOP),
    "N24": (partial(answered, 302, None, {"location": "https://y"}), Outcome.STOP),
    "N25": (partial(answered, 307, None, {"location": "https://y"}), Outcome.STOP),
    "B01": (partial(answered, 200, HTML), Outcome.AMBIGUOUS),
    "B02": (partial(answered, 200, error("moderation_blocked")), Outcome.BLOCKED),
    "B02-unknown": (partial(answered, 200, error("what")), Outcome.AMBIGUOUS),
    "B03": (partial(answered, 200, b'{"data": [{"url": "ht'), Outcome.AMBIGUOUS),
    "B04": (partial(answered, 200, [1, 2]), Outcome.SPOILED),
    "B05": (partial(answered, 200, {"data": []}), Outcome.SPOILED),
    "B08-null": (partial(answered, 200, {"data": [None]}), Outcome.SPOILED),
    "B08-neither": (
        partial(answered, 200, {"data": [{"url": "", "b64_json": ""}]}),
        Outcome.SPOILED,
    ),
}


@pytest.mark.fault(
    "N24",
    "N25",
    "H01",
    "H02",
    "H03",
    "H04",
    "H05",
    "H06",
    "H07",
    "H08",
    "H09",
    "H11",
    "H12",
    "H13",
    "H14",
    "H20",
    "H21",
    "H22",
    "H23",
    "H24",
    "H25",
    "H26",
    "H27",
    "H28",
    "H29",
    "H30",
    "H31",
    "H32",
    "H35",
    "B01",
    "B02",
    "B03",
    "B04",
    "B05",
    "B08",
)
@pytest.mark.parametrize(("judge", "outcome"), STATUS_ROWS.values(), ids=STATUS_ROWS.keys())
def test_a_row_of_the_catalogue(judge: Callable[[], Classification], outcome: Outcome) -> None:
    classification = judge()
    assert classification.outcome is outcome
    billed = {
        Outcome.OK: Billed.YES,
        Outcome.SPOILED: Billed.YES,
        Outcome.AMBIGUOUS: Billed.MAYBE,
    }.get(outcome, Billed.NO)
    assert classification.billed is billed


NO, MAYBE, YES = Billed.NO, Billed.MAYBE, Billed.YES
PAGE = {"content-type": "text/html"}
IMAGE = {"data": [{"url": "https://h/1"}]}
TOP_UP = " (top up the account or raise the limit of the key)"
WORDS = {
    "ok": (200, IMAGE, {}, Outcome.OK, YES, "", ""),
    "no image": (200, {}, {}, Outcome.SPOILED, YES, "no_image", "HTTP 200 without an image"),
    "a task": (
        202, {"task_id": "t1"}, {}, Outcome.AMBIGUOUS, MAYBE,
        "task", "the response is task t1 instead of an image",
    ),
    "no JSON": (
        200, b"x", {}, Outcome.AMBIGUOUS, MAYBE,
        "unreadable", "HTTP 200 with a body that is not JSON: x",
    ),
    "an unknown error inside": (
        200, error("what"), {}, Outcome.AMBIGUOUS, MAYBE,
        "what", "HTTP 200 with an error inside: no [type new_api_error]",
    ),
    "an error without a name inside": (
        200, error(), {}, Outcome.AMBIGUOUS, MAYBE,
        "new_api_error", "HTTP 200 with an error inside: no",
    ),
    "a known error inside": (
        200, error("moderation_blocked"), {}, Outcome.BLOCKED, NO,
        "moderation_blocked", "no [type new_api_error]",
    ),
    "a firewall": (
        403, HTML, PAGE, Outcome.THROTTLED, NO,
        "firewall", "HTTP 403 with an HTML page: a firewall in front of the endpoint",
    ),
    "a page for a wrong key": (
        401, HTML, PAGE, Outcome.STOP, NO,
        "http_401", "HTTP 401 (HTTP 401: check the key and its permissions)",
    ),
    "a 403 without a page": (
        403, b"", {}, Outcome.STOP, NO,
        "http_403", "HTTP 403 (HTTP 403: check the key and its permissions)",
    ),
    "no money": (
        429, error("insufficient_quota"), {}, Outcome.STOP, NO,
        "no_money",
        "no [code insufficient_quota, type new_api_error]" + TOP_UP,
    ),
    "too early": (425, error("x"), {}, Outcome.SAFE, NO, "x", "no [type new_api_error]"),
    "not reached": (521, HTML, {}, Outcome.SAFE, NO, "http_521", "HTTP 521"),
    "a full queue": (503, b"", {"retry-after": "5"}, Outcome.THROTTLED, NO, "http_503", "HTTP 503"),
    "a 503 and no more": (503, b"", {}, Outcome.AMBIGUOUS, MAYBE, "http_503", "HTTP 503"),
    "overloaded": (529, b"", {}, Outcome.THROTTLED, NO, "http_529", "HTTP 529"),
    "not overloaded": (530, b"", {}, Outcome.AMBIGUOUS, MAYBE, "http_530", "HTTP 530"),
    "throttled by name": (
        500, error("slow_down"), {}, Outcome.THROTTLED, NO,
        "slow_down", "no [type new_api_error]",
    ),
    "a failed carrier": (
        502, error("do_request_failed"), {}, Outcome.REFUSED, NO,
        "do_request_failed", "no [type new_api_error]",
    ),
    "an envelope around a 507": (
        507, error("x"), {}, Outcome.AMBIGUOUS, MAYBE,
        "http_507", "no [code x, type new_api_error]",
    ),
    "a refusal without a name": (
        400, error("", "y", ""), {}, Outcome.REFUSED, NO, "y", "y",
    ),
    "a refusal in words": (
        400, error("", "", "rejected by our safety system"), {}, Outcome.BLOCKED, NO,
        "http_400", "rejected by our safety system",
    ),
    "refused by name": (
        500, error("invalid_request"), {}, Outcome.REFUSED, NO,
        "invalid_request", "no [type new_api_error]",
    ),
    "refused by name alone": (
        500, error("invalid_request", "y", ""), {}, Outcome.REFUSED, NO,
        "invalid_request", "invalid_request [type y]",
    ),
    "FastAPI text": (
        400, {"detail": "unsupported aspect ratio"}, {}, Outcome.REFUSED, NO,
        "http_400", "unsupported aspect ratio",
    ),
    "FastAPI list": (
        422, {"detail": [{"loc": ["body", "size"], "msg": "not valid", "type": "enum"}]}, {},
        Outcome.REFUSED, NO, "enum", "size: not valid",
    ),
    "problem+json": (
        400, {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "size?"}, {},
        Outcome.REFUSED, NO, "http_400", "size?",
    ),
    "ASP.NET": (
        400, {"title": "Errors occurred.", "errors": {"Size": ["must be 1024", "or auto"]}}, {},
        Outcome.REFUSED, NO, "http_400", "Size: must be 1024; or auto",
    ),
    "a title alone": (
        400, {"title": "Bad Request"}, {}, Outcome.REFUSED, NO, "http_400", "Bad Request",
    ),
    "errors with messages": (
        400, {"errors": [{"message": "a"}, {"message": "b"}]}, {}, Outcome.REFUSED, NO,
        "http_400", "a; b",
    ),
    "nested messages": (
        400, {"error": {"message": {"error": {"message": "size\nis wrong"}}}}, {},
        Outcome.REFUSED, NO, "http_400", "size is wrong",
    ),
    "JSON in a message": (
        400, {"error": {"message": '{"error": {"message": "too large", "code": "x"}}'}}, {},
        Outcome.REFUSED, NO, "http_400", "too large",
    ),
    "plain text": (
        400, b"invalid size: must be\r\n1024x1024", {}, Outcome.REFUSED, NO,
        "http_400", "invalid size: must be 1024x1024",
    ),
    "a page with a title": (
        502, b"<html><title>502 Bad Gateway</title>", PAGE, Outcome.AMBIGUOUS, MAYBE,
        "http_502", "HTTP 502: 502 Bad Gateway",
    ),
    "a firewall with a title": (
        403, b"<html><title>Attention Required!</title>", PAGE, Outcome.THROTTLED, NO, "firewall",
        "HTTP 403 with an HTML page: a firewall in front of the endpoint: Attention Required!",
    ),
    "a fee": (
        400, error("violation_fee.x"), {}, Outcome.BLOCKED, MAYBE,
        "violation_fee.x", "no [type new_api_error]",
    ),
    "a 300": (
        300, None, {}, Outcome.STOP, NO,
        "redirect", "base_url redirects to another URL: set base_url to the final URL",
    ),
    "moved": (
        302, None, {"location": "https://y"}, Outcome.STOP, NO,
        "redirect", "base_url redirects to https://y: set base_url to the final URL",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "headers", "outcome", "billed", "code", "message"),
    WORDS.values(),
    ids=WORDS.keys(),
)
def test_a_classification_says_what_happened(
    status: int,
    body: object,
    headers: dict[str, str],
    outcome: Outcome,
    billed: Billed,
    code: str,
    message: str,
) -> None:
    classification = answered(status, body, headers)
    assert (classification.outcome, classification.billed) == (outcome, billed)
    assert (classification.code, classification.message) == (code, message)
    assert classification.status == status


@pytest.mark.parametrize(
    ("status", "server_errors", "refusals", "outcome", "billed"),
    [
        (500, NO, YES, Outcome.REFUSED, NO),
        (500, MAYBE, NO, Outcome.AMBIGUOUS, MAYBE),
        (500, YES, NO, Outcome.AMBIGUOUS, MAYBE),
        (502, YES, NO, Outcome.AMBIGUOUS, MAYBE),
        (400, YES, NO, Outcome.REFUSED, NO),
        (400, NO, YES, Outcome.REFUSED, YES),
        (400, NO, MAYBE, Outcome.REFUSED, MAYBE),
        (429, YES, YES, Outcome.THROTTLED, NO),
        (401, YES, YES, Outcome.STOP, NO),
        (521, YES, YES, Outcome.SAFE, NO),
    ],
)
def test_what_an_endpoint_is_known_to_bill_counts(
    status: int, server_errors: Billed, refusals: Billed, outcome: Outcome, billed: Billed
) -> None:
    exchange = Exchange(reach=Reach.COMPLETE, status=status, headers={})
    response = read_response(orjson.dumps(error("x")), {})
    habits = Habits(server_errors=server_errors, refusals=refusals)
    classification = classify(exchange, response, habits)
    assert (classification.outcome, classification.billed) == (outcome, billed)
    assert classification.again == (outcome is Outcome.REFUSED and status >= 500)
    blocked = classify(
        exchange, read_response(orjson.dumps(error("moderation_blocked")), {}), habits
    )
    if status != 521:
        assert (blocked.outcome, blocked.billed) == (Outcome.BLOCKED, refusals)


def test_classification_has_wait_and_request_id() -> None:
    headers = {"retry-after": "7", "x-request-id": "r" * 300}
    classification = answered(429, error("x"), headers)
    assert (classification.outcome, classification.retry_after_s) == (Outcome.THROTTLED, 7)
    assert classification.request_id == "r" * 200
    never = answered(429, error("x"), {"x-should-retry": " False "})
    assert (never.outcome, never.billed) == (Outcome.STOP, NO)
    assert answered(401, error(), {"x-should-retry": "false"}).outcome is Outcome.STOP


@pytest.mark.fault("XC6")
def test_cut_upload_names_its_size_and_what_to_check() -> None:
    def cut(failure: Failure, reach: Reach = Reach.PARTIAL) -> Classification:
        return classify(Exchange(reach=reach, failure=failure, upload_bytes=9_437_184), None)

    classification = cut(Failure.NETWORK)
    assert (classification.outcome, classification.billed, classification.code) == (
        Outcome.SAFE,
        NO,
        UPLOAD_CUT,
    )
    assert "9,437,184 bytes" in classification.message
    assert "reference images" in classification.message
    assert cut(Failure.DEADLINE).code == UPLOAD_CUT
    assert cut(Failure.INTERRUPTED).code == "interrupted"
    assert cut(Failure.CONNECT, Reach.NOTHING).code == "unreachable"
    assert cut(Failure.TLS).outcome is Outcome.STOP


def test_what_broke_and_how_is_told() -> None:
    def described(reach: Reach, failure: Failure, status: int | None = None) -> tuple[str, str]:
        classification = classify(
            Exchange(reach=reach, failure=failure, detail="why", status=status), None
        )
        return classification.code, classification.message

    assert described(Reach.NOTHING, Failure.CONNECT) == ("unreachable", "no connection: why")
    code, message = described(Reach.NOTHING, Failure.TLS)
    assert (code, message.endswith("failed: why")) == ("tls", True)
    assert described(Reach.SENT, Failure.NETWORK) == (
        "connection_lost",
        "the connection broke: why",
    )
    assert described(Reach.HEADERS, Failure.NETWORK, 200) == (
        "connection_lost",
        "HTTP 200, then the connection broke: why",
    )
    plain = classify(Exchange(reach=Reach.SENT, failure=Failure.NETWORK), None)
    assert plain.message == "the connection broke"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.OK),
        (201, Outcome.AMBIGUOUS),
        (399, Outcome.AMBIGUOUS),
        (400, Outcome.REFUSED),
        (499, Outcome.REFUSED),
        (500, Outcome.AMBIGUOUS),
    ],
)
def test_cut_response_counts_as_far_as_trusted(status: int, outcome: Outcome) -> None:
    exchange = Exchange(reach=Reach.HEADERS, failure=Failure.NETWORK, status=status, headers={})
    response = Response(readable=True, images=(ImageRef(index=0, url="https://h/1"),))
    assert classify(exchange, response).outcome is outcome


def test_an_error_of_the_server_that_broke_off_is_a_doubt() -> None:
    exchange = Exchange(reach=Reach.HEADERS, failure=Failure.NETWORK, status=500, headers={})
    response = read_response(orjson.dumps(error("do_request_failed")), {})
    assert classify(exchange, response).outcome is Outcome.AMBIGUOUS


def test_a_task_that_fails_is_told_with_its_own_words() -> None:
    failed = classify_failed_task(ErrorBody(code="moderation_blocked", message="no"), MAYBE)
    assert (failed.outcome, failed.code, failed.message) == (
        Outcome.BLOCKED,
        "moderation_blocked",
        "no",
    )
    assert classify_failed_task(ErrorBody(type="upstream"), NO).code == "upstream"
    assert classify_failed_task(ErrorBody(), NO).code == "task_failed"


GATEWAY = {
    "no-key": (401, "", "new_api_error", Outcome.STOP),
    "ip-or-group-not-allowed": (403, "access_denied", "new_api_error", Outcome.STOP),
    "model-not-allowed": (403, "", "new_api_error", Outcome.STOP),
    "balance-too-low": (403, "insufficient_user_quota", "new_api_error", Outcome.STOP),
    "key-quota-too-low": (403, "pre_consume_token_quota_failed", "new_api_error", Outcome.STOP),
    "task-balance-too-low": (403, "quota_not_enough", "", Outcome.STOP),
    "no-carrier": (503, "model_not_found", "new_api_error", Outcome.THROTTLED),
    "no-carrier-on-retry": (500, "get_channel_failed", "new_api_error", Outcome.REFUSED),
    "malformed": (500, "invalid_request", "new_api_error", Outcome.REFUSED),
    "word-list": (500, "sensitive_words_detected", "new_api_error", Outcome.BLOCKED),
    "no-price": (500, "model_price_error", "new_api_error", Outcome.STOP),
    "not-convertible": (500, "convert_request_failed", "new_api_error", Outcome.REFUSED),
    "not-parseable": (400, "", "new_api_error", Outcome.REFUSED),
    "carrier-unreachable": (500, "do_request_failed", "new_api_error", Outcome.REFUSED),
    "carrier-blocked": (
        400,
        "moderation_blocked",
        "image_generation_user_error",
        Outcome.BLOCKED,
    ),
    "carrier-refused": (400, "unknown_error", "upstream_error", Outcome.REFUSED),
    "carrier-null-code": (400, None, "upstream_error", Outcome.REFUSED),
    "carrier-number-code": (400, 4711, "upstream_error", Outcome.REFUSED),
    "carrier-throttled": (429, "unknown_error", "upstream_error", Outcome.THROTTLED),
    "carrier-failed": (
        500,
        "bad_response_status_code",
        "bad_response_status_code",
        Outcome.REFUSED,
    ),
    "carrier-body": (500, "bad_response_body", "bad_response_body", Outcome.REFUSED),
    "carrier-unread": (
        500,
        "read_response_body_failed",
        "read_response_body_failed",
        Outcome.REFUSED,
    ),
    "busy-cpu": (503, "system_cpu_overloaded", "new_api_error", Outcome.THROTTLED),
    "busy-memory": (503, "system_memory_overloaded", "new_api_error", Outcome.THROTTLED),
    "body-too-large": (413, "read_request_body_failed", "new_api_error", Outcome.REFUSED),
    "user-rate": (429, "", "new_api_error", Outcome.THROTTLED),
    "no-route": (501, "api_not_implemented", "new_api_error", Outcome.STOP),
}
OPENAI = {
    "moderation": (400, "moderation_blocked", "image_generation_user_error", Outcome.BLOCKED),
    "content-policy": (400, "content_policy_violation", "x", Outcome.BLOCKED),
    "bad-option": (400, "invalid_value", "image_generation_user_error", Outcome.REFUSED),
    "bad-image": (400, "invalid_image_file", "image_generation_user_error", Outcome.REFUSED),
    "mime": (400, "unsupported_file_mimetype", "invalid_request_error", Outcome.REFUSED),
    "unknown-parameter": (400, "unknown_parameter", "invalid_request_error", Outcome.STOP),
    "spend-cap-is-a-400": (400, "billing_hard_limit_reached", "x", Outcome.STOP),
    "bad-key": (401, "invalid_api_key", "invalid_request_error", Outcome.STOP),
    "region": (403, "unsupported_country_region_territory", "x", Outcome.STOP),
    "model": (404, "model_not_found", "invalid_request_error", Outcome.STOP),
    "conflict": (409, "conflict", "x", Outcome.REFUSED),
    "large": (413, "", "x", Outcome.REFUSED),
    "image-rate": (429, "rate_limit_exceeded", "input-images", Outcome.THROTTLED),
    "ramp": (429, "slow_down", "rate_limit_error", Outcome.THROTTLED),
    "ramp-by-type": (429, None, "rate_limit_error", Outcome.THROTTLED),
    "quota": (429, "insufficient_quota", "insufficient_quota", Outcome.STOP),
    "quota-by-type": (429, None, "insufficient_quota", Outcome.STOP),
    "credit": (429, "credit_balance_exhausted", "x", Outcome.STOP),
    "organization-cap": (429, "organization_spend_limit_exceeded", "x", Outcome.STOP),
    "project-cap": (429, "project_spend_limit_exceeded", "x", Outcome.STOP),
    "usage-cap": (429, "organization_usage_limit_exceeded", "x", Outcome.STOP),
    "billing": (429, "billing_not_active", "x", Outcome.STOP),
    "server": (500, "server_error", "server_error", Outcome.REFUSED),
    "busy": (503, "server_is_overloaded", "service_unavailable_error", Outcome.THROTTLED),
    "slow-down": (503, None, "Slow Down", Outcome.THROTTLED),
}
TOLD_APART = {f"gateway-{name}": row for name, row in GATEWAY.items()} | {
    f"openai-{name}": row for name, row in OPENAI.items()
}


@pytest.mark.fault("H05", "H06", "H20")
@pytest.mark.parametrize(
    ("status", "code", "kind", "outcome"), TOLD_APART.values(), ids=TOLD_APART.keys()
)
def test_errors_are_told_apart_by_code_then_type_then_status(
    status: int, code: object, kind: str, outcome: Outcome
) -> None:
    assert answered(status, error(code, kind)).outcome is outcome


@pytest.mark.parametrize(
    "message",
    ["当前令牌额度已用尽", "用户余额不足", "Your credit balance is too low", "quota exceeded"],
)
@pytest.mark.parametrize("status", [401, 403])
def test_empty_account_differs_from_wrong_key(status: int, message: str) -> None:
    assert answered(status, error(message=message)).code == "no_money"
    assert answered(status, error(message="invalid token")).code != "no_money"


@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_refusal_with_a_fee_is_counted_and_never_asked_again(status: int) -> None:
    classification = answered(status, error("violation_fee.grok.csam", "upstream_error"))
    assert classification.outcome is Outcome.BLOCKED
    assert classification.billed is Billed.MAYBE
    assert not classification.again


def test_a_status_that_no_response_ends_with_is_a_doubt() -> None:
    assert answered(101).outcome is Outcome.AMBIGUOUS


@pytest.mark.fault("H21", "H35")
def test_only_a_refusal_of_the_moment_may_be_asked_again() -> None:
    assert answered(500, error("do_request_failed")).again
    assert not answered(500, error("invalid_request")).again
    assert not answered(500, error("do_request_failed"), {"x-should-retry": "false"}).again
    assert not answered(400, error()).again


REACHED = {
    "N01-dns": (Reach.NOTHING, Failure.CONNECT, Outcome.SAFE),
    "N03-refused": (Reach.NOTHING, Failure.NETWORK, Outcome.SAFE),
    "N04-black-hole": (Reach.NOTHING, Failure.DEADLINE, Outcome.SAFE),
    "N05-certificate": (Reach.NOTHING, Failure.TLS, Outcome.STOP),
    "N08-reset-in-the-request": (Reach.PARTIAL, Failure.NETWORK, Outcome.SAFE),
    "N08-deadline-in-the-request": (Reach.PARTIAL, Failure.DEADLINE, Outcome.SAFE),
    "N09-reset-after-the-request": (Reach.SENT, Failure.NETWORK, Outcome.AMBIGUOUS),
    "N09-tls-broke-after-the-request": (Reach.SENT, Failure.TLS, Outcome.AMBIGUOUS),
    "N10-silence": (Reach.SENT, Failure.DEADLINE, Outcome.AMBIGUOUS),
    "N19-no-http": (Reach.SENT, Failure.NONE, Outcome.AMBIGUOUS),
    "killed": (Reach.SENT, Failure.INTERRUPTED, Outcome.AMBIGUOUS),
}


@pytest.mark.fault("N01", "N03", "N04", "N05", "N08", "N09", "N10")
@pytest.mark.parametrize(("reach", "failure", "outcome"), REACHED.values(), ids=REACHED.keys())
def test_how_far_the_request_got_decides_where_no_response_came(
    reach: Reach, failure: Failure, outcome: Outcome
) -> None:
    assert classify(Exchange(reach=reach, failure=failure), None).outcome is outcome


@pytest.mark.fault("N11", "N13", "N14")
@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.AMBIGUOUS),  # N11 to N14
        (302, Outcome.AMBIGUOUS),
        (500, Outcome.AMBIGUOUS),
        (521, Outcome.AMBIGUOUS),
        (408, Outcome.AMBIGUOUS),
        (400, Outcome.REFUSED),
        (401, Outcome.STOP),
        (429, Outcome.THROTTLED),
    ],
)
def test_an_response_that_broke_off_is_a_doubt_unless_it_refused(
    status: int, outcome: Outcome
) -> None:
    exchange = Exchange(
        reach=Reach.HEADERS,
        failure=Failure.NETWORK,
        status=status,
        headers={"x-oneapi-request-id": "2026-1"},
    )
    classification = classify(exchange, None)
    assert classification.outcome is outcome
    assert classification.request_id == "2026-1"


@pytest.mark.fault("B27")
def test_provider_text_is_short_and_printable() -> None:
    nasty = "\x1b[31mred\r\n\u202e" + "x" * 10_000
    classification = answered(400, error(code=nasty, message=nasty))
    for text, limit in ((classification.message, 2048), (classification.code, 100)):
        assert text.isprintable()
        assert text.startswith("[31mred x")
        assert len(text) <= limit


@pytest.mark.fault("B26")
def test_what_no_database_can_store_is_not_in_a_classified() -> None:
    body = rb'{"error": {"code": "\ud800", "message": "\ud800 lone surrogate"}}'
    classification = answered(400, body, {"x-request-id": "\ud800id"})
    assert classification.message == "lone surrogate"
    f"{classification.code}{classification.message}{classification.request_id}".encode()


_CODES = st.text() | st.sampled_from(
    ["insufficient_quota", "slow_down", "content_filter", "violation_fee.x", "invalid_request"]
)


@given(
    status=st.integers(0, 1200),
    response=st.none()
    | st.binary(max_size=60).map(lambda body: read_response(body, {}))
    | st.builds(
        Response,
        readable=st.booleans(),
        html=st.booleans(),
        task=st.none() | st.builds(Task, id=st.text(), url=st.text(), is_named=st.booleans()),
        text=st.text(),
        images=st.lists(st.builds(ImageRef, index=st.integers())).map(tuple),
        error=st.none() | st.builds(ErrorBody, code=_CODES, type=_CODES, message=st.text()),
    ),
    reach=st.sampled_from(list(Reach)),
    failure=st.sampled_from(list(Failure)),
    headers=st.none() | st.dictionaries(st.sampled_from(["x-should-retry", "location"]), st.text()),
)
def test_every_exchange_has_a_classification_that_fits_its_bill(
    status: int,
    response: Response | None,
    reach: Reach,
    failure: Failure,
    headers: dict[str, str] | None,
) -> None:
    exchange = Exchange(
        reach=reach,
        failure=failure,
        status=status if reach >= Reach.HEADERS else None,
        headers=headers,
    )
    classification = classify(exchange, response)
    if classification.outcome in (Outcome.AMBIGUOUS, Outcome.SPOILED, Outcome.OK):
        assert classification.billed is not Billed.NO
        assert reach >= Reach.SENT
    elif not classification.code.startswith("violation_fee."):
        assert classification.billed is Billed.NO
    if classification.outcome is Outcome.OK:
        assert response is not None
        assert response.images
    if classification.again:
        assert classification.outcome is Outcome.REFUSED


def test_no_response_at_all_is_unreadable() -> None:
    exchange = Exchange(reach=Reach.COMPLETE, status=200, headers={})
    assert classify(exchange, Response()).code == "unreadable"
