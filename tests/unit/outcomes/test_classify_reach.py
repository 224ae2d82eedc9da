"""Requests without a whole response: how far they got decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import Billed, ImageRef, Outcome
from batchgen.outcomes.classify import (
    ErrorBody,
    Exchange,
    Failure,
    Reach,
    Response,
    classify,
)
from batchgen.outcomes.exchange import Task
from batchgen.providers.adapters.images import read_response
from tests.support.classified import answered, error

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
def test_response_that_broke_off_is_uncertain_unless_refused(status: int, outcome: Outcome) -> None:
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
