"""Tables of what an attempt came to: the rows of the sheets, by their ids where they have one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import Billed, Outcome
from batchgen.outcome import Answer, Exchange, Failure, Reach, Verdict, classify, retry_after
from batchgen.providers.openai_images import read_answer


def answered(status: int, body: object = None, headers: dict[str, str] | None = None) -> Verdict:
    """The verdict on a whole answer; a body that is no bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
    exchange = Exchange(reach=Reach.COMPLETE, status=status, headers=headers or {})
    return classify(exchange, read_answer(raw, headers or {}))


def error(code: str | None = "", kind: str = "new_api_error", message: str = "no") -> Any:
    """An error object as the gateway sends it."""
    return {"error": {"message": message, "type": kind, "param": "", "code": code}}


HTML = b"<html><body>Bad gateway</body></html>"

STATUS_ROWS = {
    "H01": (answered(400, error("invalid_value", "image_generation_user_error")), Outcome.REFUSED),
    "H02": (answered(400, error("moderation_blocked", "x")), Outcome.BLOCKED),
    "H03": (answered(401, error()), Outcome.STOP),
    "H04": (answered(402, error()), Outcome.STOP),
    "H05-quota": (answered(403, error("insufficient_user_quota")), Outcome.STOP),
    "H05-model": (answered(403, error()), Outcome.STOP),
    "H05-firewall": (answered(403, HTML, {"content-type": "text/html"}), Outcome.THROTTLED),
    "H06-model": (answered(404, error("model_not_found")), Outcome.STOP),
    "H06-path": (answered(404, b"404 page not found"), Outcome.STOP),
    "H07-405": (answered(405), Outcome.STOP),
    "H07-415": (answered(415), Outcome.STOP),
    "H07-501": (answered(501, error("api_not_implemented")), Outcome.STOP),
    "H08": (answered(408, error()), Outcome.AMBIGUOUS),
    "H09": (answered(409, error()), Outcome.REFUSED),
    "H11": (answered(413, error("read_request_body_failed")), Outcome.REFUSED),
    "H12": (answered(422, error()), Outcome.REFUSED),
    "H13": (answered(425), Outcome.SAFE),
    "H14": (answered(429, error()), Outcome.THROTTLED),
    "H14-empty": (answered(429), Outcome.THROTTLED),
    "H20": (answered(429, error("insufficient_quota")), Outcome.STOP),
    "H20-cap": (answered(429, error("organization_spend_limit_exceeded")), Outcome.STOP),
    "H21": (answered(500, error("do_request_failed")), Outcome.REFUSED),
    "H22-html": (answered(500, HTML), Outcome.AMBIGUOUS),
    "H22-empty": (answered(500), Outcome.AMBIGUOUS),
    "H23-envelope": (answered(502, error()), Outcome.REFUSED),
    "H23-html": (answered(502, HTML), Outcome.AMBIGUOUS),
    "H24": (answered(503, b"queue full", {"retry-after": "5"}), Outcome.THROTTLED),
    "H24-envelope": (answered(503, error("system_cpu_overloaded")), Outcome.THROTTLED),
    "H25-html": (answered(504, HTML), Outcome.AMBIGUOUS),
    "H25-json": (answered(504, {"retryable": True, **error("timeout")}), Outcome.AMBIGUOUS),
    "H26-520": (answered(520, HTML), Outcome.AMBIGUOUS),
    "H26-522": (answered(522, HTML), Outcome.AMBIGUOUS),
    "H26-524": (answered(524, HTML), Outcome.AMBIGUOUS),
    "H27-521": (answered(521, HTML), Outcome.SAFE),
    "H27-523": (answered(523, HTML), Outcome.SAFE),
    "H27-525": (answered(525, HTML), Outcome.SAFE),
    "H27-526": (answered(526, HTML), Outcome.SAFE),
    "H28": (answered(529), Outcome.THROTTLED),
    "H30": (answered(202, {"task_id": "t1"}), Outcome.AMBIGUOUS),
    "H31-204": (answered(204), Outcome.AMBIGUOUS),
    "H31-200": (answered(200), Outcome.AMBIGUOUS),
    "H32-299": (answered(299, {"data": [{"url": "https://x/y"}]}), Outcome.OK),
    "H32-418": (answered(418), Outcome.REFUSED),
    "H32-451": (answered(451), Outcome.REFUSED),
    "H32-599": (answered(599), Outcome.AMBIGUOUS),
    "H32-999": (answered(999), Outcome.AMBIGUOUS),
    "H35-504": (answered(504, HTML, {"x-should-retry": "true"}), Outcome.AMBIGUOUS),
    "H35-429": (answered(429, error(), {"x-should-retry": "false"}), Outcome.REFUSED),
    "N24": (answered(302, None, {"location": "https://y"}), Outcome.STOP),
    "N25": (answered(307, None, {"location": "https://y"}), Outcome.STOP),
    "B01": (answered(200, HTML), Outcome.AMBIGUOUS),
    "B02": (answered(200, error("moderation_blocked")), Outcome.BLOCKED),
    "B02-unknown": (answered(200, error("what")), Outcome.AMBIGUOUS),
    "B03": (answered(200, b'{"data": [{"url": "ht'), Outcome.AMBIGUOUS),
    "B04": (answered(200, [1, 2]), Outcome.SPOILED),
    "B05": (answered(200, {"data": []}), Outcome.SPOILED),
    "B08-null": (answered(200, {"data": [None]}), Outcome.SPOILED),
    "B08-neither": (answered(200, {"data": [{"url": "", "b64_json": ""}]}), Outcome.SPOILED),
}


@pytest.mark.parametrize(("verdict", "outcome"), STATUS_ROWS.values(), ids=STATUS_ROWS.keys())
def test_a_row_of_the_catalogue(verdict: Verdict, outcome: Outcome) -> None:
    assert verdict.outcome is outcome
    billed = {
        Outcome.OK: Billed.YES,
        Outcome.SPOILED: Billed.YES,
        Outcome.AMBIGUOUS: Billed.MAYBE,
    }.get(outcome, Billed.NO)
    assert verdict.billed is billed


GATEWAY = [
    (401, "", "new_api_error", Outcome.STOP),
    (403, "access_denied", "new_api_error", Outcome.STOP),
    (403, "insufficient_user_quota", "new_api_error", Outcome.STOP),
    (403, "pre_consume_token_quota_failed", "new_api_error", Outcome.STOP),
    (403, "quota_not_enough", "new_api_error", Outcome.STOP),
    (503, "model_not_found", "new_api_error", Outcome.THROTTLED),
    (500, "get_channel_failed", "new_api_error", Outcome.REFUSED),
    (500, "invalid_request", "new_api_error", Outcome.REFUSED),
    (500, "sensitive_words_detected", "new_api_error", Outcome.BLOCKED),
    (500, "model_price_error", "new_api_error", Outcome.STOP),
    (500, "convert_request_failed", "new_api_error", Outcome.REFUSED),
    (400, "", "new_api_error", Outcome.REFUSED),
    (500, "do_request_failed", "new_api_error", Outcome.REFUSED),
    (400, "moderation_blocked", "image_generation_user_error", Outcome.BLOCKED),
    (500, "bad_response_status_code", "bad_response_status_code", Outcome.REFUSED),
    (503, "system_cpu_overloaded", "new_api_error", Outcome.THROTTLED),
    (503, "system_memory_overloaded", "new_api_error", Outcome.THROTTLED),
    (413, "read_request_body_failed", "new_api_error", Outcome.REFUSED),
    (429, "", "new_api_error", Outcome.THROTTLED),
    (501, "api_not_implemented", "new_api_error", Outcome.STOP),
    (400, "content_policy_violation", "x", Outcome.BLOCKED),
    (400, "unsupported_file_mimetype", "invalid_request_error", Outcome.REFUSED),
    (400, "unknown_parameter", "invalid_request_error", Outcome.STOP),
    (400, "billing_hard_limit_reached", "invalid_request_error", Outcome.STOP),
    (401, "invalid_api_key", "invalid_request_error", Outcome.STOP),
    (404, "model_not_found", "invalid_request_error", Outcome.STOP),
    (429, "rate_limit_exceeded", "input-images", Outcome.THROTTLED),
    (429, "slow_down", "rate_limit_error", Outcome.THROTTLED),
    (429, "credit_balance_exhausted", "x", Outcome.STOP),
    (429, "billing_not_active", "x", Outcome.STOP),
    (500, "server_error", "server_error", Outcome.REFUSED),
    (503, "server_is_overloaded", "service_unavailable_error", Outcome.THROTTLED),
]


@pytest.mark.parametrize(("status", "code", "kind", "outcome"), GATEWAY)
def test_errors_are_told_apart_by_code_then_type_then_status(
    status: int, code: str, kind: str, outcome: Outcome
) -> None:
    assert answered(status, error(code, kind)).outcome is outcome


def test_only_a_refusal_of_the_moment_may_be_asked_again() -> None:
    assert answered(500, error("do_request_failed")).again
    assert not answered(500, error("invalid_request")).again
    assert not answered(500, error("do_request_failed"), {"x-should-retry": "false"}).again
    assert not answered(400, error()).again


@pytest.mark.parametrize(
    ("reach", "failure", "outcome"),
    [
        (Reach.NOTHING, Failure.CONNECT, Outcome.SAFE),
        (Reach.NOTHING, Failure.DEADLINE, Outcome.SAFE),
        (Reach.NOTHING, Failure.TLS, Outcome.STOP),
        (Reach.PARTIAL, Failure.NETWORK, Outcome.SAFE),
        (Reach.SENT, Failure.NETWORK, Outcome.AMBIGUOUS),
        (Reach.SENT, Failure.DEADLINE, Outcome.AMBIGUOUS),
        (Reach.SENT, Failure.INTERRUPTED, Outcome.AMBIGUOUS),
    ],
)
def test_how_far_the_request_got_decides_where_no_answer_came(
    reach: Reach, failure: Failure, outcome: Outcome
) -> None:
    assert classify(Exchange(reach=reach, failure=failure), None).outcome is outcome


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, Outcome.AMBIGUOUS), (500, Outcome.AMBIGUOUS), (400, Outcome.REFUSED)],
)
def test_an_answer_that_broke_off_is_a_doubt_unless_it_refused(
    status: int, outcome: Outcome
) -> None:
    exchange = Exchange(
        reach=Reach.HEADERS,
        failure=Failure.NETWORK,
        status=status,
        headers={"x-oneapi-request-id": "2026-1"},
    )
    verdict = classify(exchange, None)
    assert verdict.outcome is outcome
    assert verdict.request_id == "2026-1"


def test_a_message_of_a_stranger_is_short_and_without_control_characters() -> None:
    verdict = answered(400, error(message="\x1b[31mred\r\n" + "x" * 10_000))
    assert verdict.message.isprintable()
    assert len(verdict.message) <= 2048


DATE = "Sun, 22 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "1500ms"}, 1.5),
        ({"retry-after": "2m"}, 120),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": DATE}, 30),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:00 GMT", "date": DATE}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e309"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 10_000}, None),
        ({"retry-after": "3600"}, 3600),
        ({"retry-after": "999999"}, 86_400),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT", "date": DATE}, 86_400),
    ],
)
def test_retry_after_in_all_its_spellings(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-requests", "date"]),
        st.text() | st.floats().map(str) | st.integers().map(str) | st.datetimes().map(str),
    )
)
def test_retry_after_is_absent_or_bounded_whatever_is_sent(headers: dict[str, str]) -> None:
    seconds = retry_after(headers)
    assert seconds is None or 0 < seconds <= 86_400


@given(
    status=st.integers(100, 999),
    body=st.binary(max_size=60) | st.sampled_from([HTML, b"{}", b'{"data": []}']),
    reach=st.sampled_from(list(Reach)),
    failure=st.sampled_from(list(Failure)),
)
def test_every_exchange_has_a_verdict_that_fits_its_bill(
    status: int, body: bytes, reach: Reach, failure: Failure
) -> None:
    exchange = Exchange(
        reach=reach, failure=failure, status=status if reach >= Reach.HEADERS else None, headers={}
    )
    verdict = classify(exchange, read_answer(body, {}) if reach is Reach.COMPLETE else None)
    if verdict.outcome in (Outcome.AMBIGUOUS, Outcome.SPOILED, Outcome.OK):
        assert verdict.billed is not Billed.NO
        assert reach >= Reach.SENT
    else:
        assert verdict.billed is Billed.NO


def test_no_answer_at_all_is_unreadable() -> None:
    exchange = Exchange(reach=Reach.COMPLETE, status=200, headers={})
    assert classify(exchange, Answer()).code == "unreadable"
