"""Waits that a provider asks for, in all spellings."""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchgen.job import Outcome
from batchgen.outcomes.classify import ErrorBody, Exchange, Reach, Response, classify
from batchgen.outcomes.retry_after import (
    MAX_WAIT_S,
    duration,
    is_wait_header,
    request_gap,
    retry_after,
    wait_in_words,
)

HEADERS = (
    "retry-after",
    "retry-after-ms",
    "x-retry-after",
    "x-ratelimit-reset-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset",
    "ratelimit-reset",
    "ratelimit",
    "date",
)
DATE = "Sun, 22 Nov 2026 10:00:00 GMT"


@pytest.mark.fault("H15", "H16", "H17", "H18", "H19")
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset-requests": "7h59m12s"}, 28_752),
        ({"x-ratelimit-reset-requests": "2 days"}, 172_800),
        ({"x-retry-after": "20"}, 20),
        ({"x-ratelimit-reset": "30"}, 30),
        ({"x-ratelimit-reset": "1795341630", "date": DATE}, 30),
        ({"x-ratelimit-reset": "1795341630000", "date": DATE}, 30),
        ({"x-ratelimit-reset": "1795341630"}, None),
        ({"x-ratelimit-reset": "1795341570", "date": DATE}, None),
        ({"x-ratelimit-reset-tokens": "1s", "x-ratelimit-reset-images": "12s"}, 12),
        ({"x-ratelimit-reset-after": "1.5"}, 1.5),
        ({"ratelimit-reset": "50"}, 50),
        ({"anthropic-ratelimit-requests-reset": "2026-11-22T10:00:30Z", "date": DATE}, 30),
        ({"ratelimit": "limit=9, remaining=0, reset=50"}, 50),
        ({"ratelimit": "limit=9, remaining=3, reset=50"}, None),
        ({"ratelimit": '"minute";r=0;t=30, "day";r=90;t=3600'}, 30),
        ({"ratelimit": "x" * 2000}, None),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT"}, None),
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
        ({"retry-after-ms": "5e-324"}, None),
        ({"retry-after": "1m30.5s"}, 90.5),
        ({"retry-after": "7", "x-ratelimit-reset-requests": "6m0s"}, 7),
        ({"retry-after": "7, 9"}, 9),
        ({"retry-after": "7, x"}, None),
        ({"retry-after": "1 fortnight"}, None),
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
        ({"retry-after": "999999"}, 999_999),
        ({"retry-after": "99999999"}, MAX_WAIT_S),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT", "date": DATE}, MAX_WAIT_S),
    ],
)
def test_retry_after_reads_every_spelling(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


_WAITS = (
    st.text()
    | st.text("0123456789.-+:,msh GMT")
    | st.floats().map(str)
    | st.integers().map(str)
    | st.datetimes().map(lambda moment: format_datetime(moment.replace(tzinfo=UTC), usegmt=True))
    | st.datetimes().map(lambda moment: format_datetime(moment)[:-5] + "+9999")
    | st.sampled_from(["5e-324", "1e400", "7, 9", "9" * 10_000, "Mon, 1 Jan 99999 00:00:00 GMT"])
)


@pytest.mark.fault("H18")
@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(HEADERS),
        _WAITS,
    )
)
def test_retry_after_is_absent_or_bounded(headers: dict[str, str]) -> None:
    seconds = retry_after(headers)
    assert seconds is None or (math.isfinite(seconds) and 0 < seconds <= MAX_WAIT_S)


def test_exhausted_limit_decides_among_reset_headers() -> None:
    headers = {
        "x-ratelimit-reset-requests": "8h",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-tokens": "6m0s",
        "x-ratelimit-remaining-tokens": "0",
    }
    assert retry_after(headers) == 360
    assert retry_after({**headers, "retry-after": "2"}, delay_s=5, message="try again in 9s") == 2
    assert retry_after(headers, delay_s=5, message="try again in 9s") == 5
    assert retry_after({}, message="Please try again in 9s.") == 9
    assert all(map(is_wait_header, headers))
    assert is_wait_header("x-ratelimit-limit-requests")


@pytest.mark.fault("K41")
@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached. Please try again in 12s. Visit https://x", 12),
        ("Please try again in 1h2m3.5s.", 3723.5),
        ("Please retry in 10h17m5.723541104s.", 37_025.723541104),
        ("Please retry after 20 seconds.", 20),
        ("try again in 534ms", 0.534),
        ("Try again in 2 minutes", 120),
        ("Limit resets in 2 days and 3 hours", 183_600),
        ("please wait about 1 minute", 60),
        ("请在 20 秒后重试", 20),
        ("请求过于频繁, 30分钟后再试", 1800),
        ("Limit 5, used 5, requested 1 per 60s", None),
        ("try again later", None),
        ("try again in 5 moments", None),
    ],
)
def test_words_name_a_wait_only_where_they_ask_for_one(message: str, seconds: float | None) -> None:
    assert wait_in_words(message) == seconds


_NAMES = {
    "h": (3600, ("h", " hours", "hr")),
    "m": (60, ("m", " minutes", " min")),
    "s": (1, ("s", " seconds", "sec", " 秒")),
    "ms": (0.001, ("ms", " milliseconds")),
}


@given(
    st.dictionaries(st.sampled_from(list(_NAMES)), st.integers(1, 10**6), min_size=1),
    st.sampled_from(["", " ", ", ", " and "]),
    st.data(),
)
def test_duration_is_the_sum_of_its_parts(
    parts: dict[str, int], between: str, data: st.DataObject
) -> None:
    written = [
        f"{amount}{data.draw(st.sampled_from(_NAMES[unit][1]))}" for unit, amount in parts.items()
    ]
    total = sum(amount * _NAMES[unit][0] for unit, amount in parts.items())
    assert duration(between.join(written)) == pytest.approx(min(total, MAX_WAIT_S))


@given(st.text() | st.from_regex(r"([0-9.]{1,8} ?[a-z]{0,7}[ ,]?){0,6}", fullmatch=True))
def test_duration_is_absent_or_bounded(text: str) -> None:
    for seconds in (duration(text), wait_in_words(f"try again in {text}")):
        assert seconds is None or (math.isfinite(seconds) and 0 < seconds <= MAX_WAIT_S)


@pytest.mark.parametrize(
    ("headers", "gap_s"),
    [
        ({"limit-requests": "60", "remaining-requests": "0", "reset-requests": "60s"}, 1.0),
        ({"limit-requests": "500", "remaining-requests": "0", "reset-requests": "1m"}, 0.12),
        ({"limit": "10", "reset": "5"}, 0.5),
        ({"limit-images": "5", "remaining-images": "0", "reset-images": "60"}, 12.0),
        ({"limit-requests": "60", "remaining-requests": "3", "reset-requests": "60s"}, None),
        ({"limit-requests": "200", "remaining-requests": "0", "reset-requests": "7h59m"}, None),
        ({"limit-tokens": "9000", "remaining-tokens": "0", "reset-tokens": "60s"}, None),
        ({"reset-requests": "60s"}, None),
        ({"limit-requests": "0", "reset-requests": "60s"}, None),
        ({"limit-requests": "many", "reset-requests": "60s"}, None),
    ],
)
def test_limit_headers_state_a_gap(headers: dict[str, str], gap_s: float | None) -> None:
    named = {f"x-ratelimit-{name}": value for name, value in headers.items()}
    assert request_gap(named) == (None if gap_s is None else pytest.approx(gap_s))
    assert all(is_wait_header(name) for name in named)
    exchange = Exchange(reach=Reach.COMPLETE, status=429, headers=named)
    assert classify(exchange, Response()).request_gap_s == request_gap(named)


@pytest.mark.fault("K14", "K41")
def test_throttled_response_carries_the_wait() -> None:
    error = ErrorBody(code="rate_limit_exceeded", message="Please try again in 12s")
    response = Response(readable=True, error=error)
    for headers, wait_s in (({}, 12), ({"x-ratelimit-reset-requests": "7h59m12s"}, 28_752)):
        exchange = Exchange(reach=Reach.COMPLETE, status=429, headers=headers)
        classification = classify(exchange, response)
        assert (classification.outcome, classification.retry_after_s) == (Outcome.THROTTLED, wait_s)
