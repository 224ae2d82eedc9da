"""Tables of attempts and their outcomes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import orjson
import pytest

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
from batchgen.providers.adapters.images import read_response
from tests.support.classified import answered, error

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


def test_failed_exchange_is_described_by_reach_and_failure() -> None:
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


def test_server_error_that_broke_off_is_uncertain() -> None:
    exchange = Exchange(reach=Reach.HEADERS, failure=Failure.NETWORK, status=500, headers={})
    response = read_response(orjson.dumps(error("do_request_failed")), {})
    assert classify(exchange, response).outcome is Outcome.AMBIGUOUS


def test_failed_task_keeps_its_own_message() -> None:
    failed = classify_failed_task(ErrorBody(code="moderation_blocked", message="no"), MAYBE)
    assert (failed.outcome, failed.code, failed.message) == (
        Outcome.BLOCKED,
        "moderation_blocked",
        "no",
    )
    assert classify_failed_task(ErrorBody(type="upstream"), NO).code == "upstream"
    assert classify_failed_task(ErrorBody(), NO).code == "task_failed"
