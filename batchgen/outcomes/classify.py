"""Classify one HTTP attempt: its outcome, whether it was billed, and its code. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from batchgen.job import Billed, Outcome
from batchgen.outcomes.attempt_facts import Case, TaskCase
from batchgen.outcomes.classification_rules import (
    ERROR_RULES,
    NO_MONEY,
    RULES,
    UPLOAD_CUT,
    first_match,
    with_names,
)
from batchgen.outcomes.exchange import (
    Classification,
    ErrorBody,
    Exchange,
    Failure,
    Habits,
    Reach,
    Response,
)
from batchgen.outcomes.retry_after import request_gap, retry_after

__all__ = [
    "NO_MONEY",
    "UPLOAD_CUT",
    "Classification",
    "ErrorBody",
    "Exchange",
    "Failure",
    "Habits",
    "Reach",
    "Response",
    "classify",
    "classify_failed_task",
    "clean",
    "request_id",
]

_FREE_ERRORS: Final = Habits()
_REQUEST_ID_HEADERS: Final = ("x-oneapi-request-id", "x-request-id", "request-id", "cf-ray")
MAX_MESSAGE: Final = 2048
_MAX_CODE: Final = 100
_MAX_REQUEST_ID: Final = 200


def classify(
    exchange: Exchange,
    response: Response | None,
    habits: Habits = _FREE_ERRORS,
    *,
    prompt: str = "",
) -> Classification:
    """Classify an attempt. Every exchange and response has a class; nothing is raised.

    ``prompt`` is the prompt that was sent: an error that repeats it does not speak for the
    provider.
    """
    case = Case(exchange=exchange, response=response or Response(), prompt=prompt)
    found = first_match(RULES, case)
    if found is None:
        raise AssertionError("the last rule applies to every attempt")
    found = _with_habits(found, habits, case.status)
    headers = exchange.headers or {}
    may_retry = headers.get("x-should-retry", "").strip().lower() != "false"
    wait_s = gap_s = None
    if found.outcome is Outcome.THROTTLED:
        error = case.error
        words, delay_s = (error.message, error.retry_after_s) if error else ("", None)
        wait_s = retry_after(headers, delay_s=delay_s, message=words)
        gap_s = request_gap(headers)
        if not may_retry:
            message = f"{found.message} (the provider says that a retry cannot succeed)"
            found = replace(found, outcome=Outcome.STOP, message=message)
    return Classification(
        outcome=found.outcome,
        billed=found.billed,
        code=found.code and (clean(found.code)[:_MAX_CODE] or f"http_{exchange.status}"),
        message=clean(found.message),
        again=found.again and may_retry,
        retry_after_s=wait_s,
        request_gap_s=gap_s,
        status=exchange.status,
        request_id=request_id(headers),
    )


def classify_failed_task(error: ErrorBody, billed: Billed, *, prompt: str = "") -> Classification:
    """Classify an attempt whose task was accepted and then failed.

    An error about the account stops the run only if the task cost nothing: its job then becomes
    pending again, which a charged job must not.
    """
    exchange = Exchange(reach=Reach.COMPLETE, status=200)
    case = TaskCase(exchange=exchange, response=Response(error=error), prompt=prompt)
    failed = Classification(
        outcome=Outcome.REFUSED,
        billed=billed,
        code=clean(case.code)[:_MAX_CODE],
        message=clean(with_names(error, error.message, case.code)),
    )
    found = first_match(ERROR_RULES, case)
    if found is None or found.outcome in (Outcome.REFUSED, Outcome.THROTTLED):
        return failed
    if found.outcome is Outcome.BLOCKED:
        return replace(failed, outcome=Outcome.BLOCKED)
    if billed is Billed.NO:
        return replace(found, code=clean(found.code)[:_MAX_CODE], message=clean(found.message))
    return replace(failed, code=clean(found.code)[:_MAX_CODE])


def clean(text: str) -> str:
    """Return untrusted text without control characters, at most 2,048 characters long."""
    printable = "".join(c if c.isprintable() else " " for c in text[: MAX_MESSAGE * 2])
    return " ".join(printable.split())[:MAX_MESSAGE]


def request_id(headers: Mapping[str, str] | None) -> str | None:
    """Return the provider's id of the request, which its support and billing log use."""
    for name in _REQUEST_ID_HEADERS:
        value = (headers or {}).get(name)
        if value:
            return clean(value)[:_MAX_REQUEST_ID]
    return None


def _with_habits(found: Classification, habits: Habits, status: int) -> Classification:
    """Apply what the endpoint is known to charge for errors that look free."""
    if found.billed is not Billed.NO or found.outcome not in (Outcome.REFUSED, Outcome.BLOCKED):
        return found
    is_server_error = found.outcome is Outcome.REFUSED and status >= 500
    billed = habits.server_errors if is_server_error else habits.refusals
    if is_server_error and billed is not Billed.NO:
        # The user decides whether to pay for another request.
        return replace(found, outcome=Outcome.AMBIGUOUS, billed=Billed.MAYBE, again=False)
    return replace(found, billed=billed)
