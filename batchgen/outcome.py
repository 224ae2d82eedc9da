"""What one attempt came to: a pure function of how far the request got and what came back.

The classes and their order of decision follow the reliability sheet, sections 2.4 and 3.2, and the
provider sheets: error code first, then type, then status, then the text of the message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import IntEnum
from typing import Final

from batchgen.job import Billed, Outcome, PictureRef
from batchgen.lean import LeanAnswer


class Reach(IntEnum):
    """How far an HTTP exchange got, as the connection itself saw it."""

    NOTHING = 0
    """No byte of the request was sent."""
    PARTIAL = 1
    """Some of the request was sent, but not the whole body."""
    SENT = 2
    """The whole request was handed over; no answer."""
    HEADERS = 3
    """A status line and headers came; the body is incomplete."""
    COMPLETE = 4
    """The whole answer came."""


class Failure(IntEnum):
    """Why an exchange ended before it was complete."""

    NONE = 0
    CONNECT = 1
    TLS = 2
    DEADLINE = 3
    NETWORK = 4
    TOO_LARGE = 5
    INTERRUPTED = 6
    """We gave up ourselves: a second signal, or a kill seen from the next start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """The error object of an answer, each field as text and empty where absent."""

    code: str = ""
    type: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an adapter read from a body. All fields empty: it was no JSON at all."""

    readable: bool = False
    """The body is JSON."""
    pictures: tuple[PictureRef, ...] = ()
    error: ErrorBody | None = None
    task_id: str | None = None
    html: bool = False
    usage: Mapping[str, object] | None = None
    """What the request used up, where the provider bills by tokens and says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One HTTP request and what became of it."""

    reach: Reach
    failure: Failure = Failure.NONE
    detail: str = ""
    status: int | None = None
    headers: Mapping[str, str] | None = None
    """Lower-case names; only what was received."""
    lean: LeanAnswer | None = None
    """What there is to read of a whole body, where it was looked at while it arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The class of an attempt, and what it tells the run."""

    outcome: Outcome
    billed: Billed
    code: str = ""
    """Short and stable, for reports: ``rate_limit_exceeded``, ``deadline``, ``http_504``."""
    message: str = ""
    again: bool = False
    """A refusal of the moment: one more try is reasonable."""
    retry_after_s: float | None = None
    status: int | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """Which of an endpoint's failures may cost money, as far as it is known."""

    server_errors: Billed = Billed.NO
    """A 500 or 502 in the endpoint's own words."""
    refusals: Billed = Billed.NO
    """An answer that refuses the request, for its content too."""


MONEY_CODES: Final = frozenset(
    {
        "insufficient_user_quota",
        "insufficient_quota",
        "pre_consume_token_quota_failed",
        "quota_not_enough",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    }
)
BLOCKED_CODES: Final = frozenset(
    {
        "moderation_blocked",
        "content_policy_violation",
        "content_filter",
        "sensitive_words_detected",
        "safety_violation",
    }
)
THROTTLE_CODES: Final = frozenset(
    {
        "rate_limit_exceeded",
        "rate_limit_error",
        "slow_down",
        "server_is_overloaded",
        "system_cpu_overloaded",
        "system_memory_overloaded",
    }
)
AUTH_CODES: Final = frozenset({"invalid_api_key", "access_denied", "authentication_error"})
STOP_CODES: Final = frozenset({"model_price_error", "api_not_implemented", "unknown_parameter"})
REFUSED_CODES: Final = frozenset({"invalid_request", "convert_request_failed"})

_FEE_PREFIX: Final = "violation_fee."
"""The gateway charges a fee for such a refusal, of an amount of its own (provider sheet, 7.2)."""
_BLOCKED_WORDS = re.compile(
    r"content[_ ]policy|content[_ ]filter|safety system|safety_violation|moderation", re.IGNORECASE
)
_MONEY_WORDS = re.compile(r"quota|balance|billing|credit|额度|余额", re.IGNORECASE)
_NOT_REACHED: Final = frozenset({521, 523, 525, 526})
_UNKNOWN: Final = frozenset({408, 504, 520, 522, 524})
_WRONG_SETTING: Final = frozenset({402, 405, 406, 407, 415, 501})
_REQUEST_ID_HEADERS: Final = ("x-oneapi-request-id", "x-request-id", "request-id", "cf-ray")
MAX_MESSAGE: Final = 2048
_MAX_CODE: Final = 100

_MEANING: Final = {
    Failure.CONNECT: ("unreachable", "no connection"),
    Failure.TLS: ("tls", "the endpoint's certificate or TLS handshake is not acceptable"),
    Failure.DEADLINE: ("deadline", "no complete answer within the deadline"),
    Failure.NETWORK: ("connection_lost", "the connection broke"),
    Failure.TOO_LARGE: ("too_large", "the answer is larger than the cap"),
    Failure.INTERRUPTED: ("interrupted", "batchgen was stopped while the request was in flight"),
    Failure.NONE: ("incomplete", "the answer is incomplete"),
}


def clean(text: str) -> str:
    """A stranger's text, fit for terminal and ledger: no control characters, 2 KB at most."""
    printable = "".join(c if c.isprintable() else " " for c in text[: MAX_MESSAGE * 2])
    return " ".join(printable.split())[:MAX_MESSAGE]


def request_id(headers: Mapping[str, str] | None) -> str | None:
    """The provider's name for the request, for support and for its log."""
    for name in _REQUEST_ID_HEADERS:
        value = (headers or {}).get(name)
        if value:
            return clean(value)[:200]
    return None


def classify(exchange: Exchange, answer: Answer | None, habits: Habits = Habits()) -> Verdict:
    """Decide what an attempt was. Total: any exchange and any answer give a verdict."""
    verdict = _billed_by(habits, _classify(exchange, answer), exchange.status)
    headers = exchange.headers or {}
    wait = retry_after(headers)
    may_retry = headers.get("x-should-retry", "").strip().lower() != "false"
    outcome, billed = verdict.outcome, verdict.billed
    if outcome is Outcome.THROTTLED and not may_retry:
        outcome = Outcome.REFUSED
    return Verdict(
        outcome=outcome,
        billed=billed,
        code=clean(verdict.code)[:_MAX_CODE],
        message=clean(verdict.message),
        again=verdict.again and may_retry,
        retry_after_s=wait,
        status=exchange.status,
        request_id=request_id(headers),
    )


def _billed_by(habits: Habits, verdict: Verdict, status: int | None) -> Verdict:
    """What the endpoint is known to bill, where the answer alone would count as free."""
    if verdict.billed is not Billed.NO or verdict.outcome not in (Outcome.REFUSED, Outcome.BLOCKED):
        return verdict
    of_server = verdict.outcome is Outcome.REFUSED and (status or 0) >= 500
    billed = habits.server_errors if of_server else habits.refusals
    if of_server and billed is not Billed.NO:
        # Whoever pays for it should have a say in whether it is bought again.
        return replace(verdict, outcome=Outcome.AMBIGUOUS, billed=Billed.MAYBE, again=False)
    return replace(verdict, billed=billed)


def task_verdict(error: ErrorBody, billed: Billed) -> Verdict:
    """What an attempt was whose task was accepted and then failed."""
    found = _by_code(error)
    blocked = (found is not None and found.outcome is Outcome.BLOCKED) or bool(
        _BLOCKED_WORDS.search(f"{error.code} {error.type} {error.message}")
    )
    return Verdict(
        outcome=Outcome.BLOCKED if blocked else Outcome.REFUSED,
        billed=billed,
        code=clean(error.code or error.type or "task_failed")[:_MAX_CODE],
        message=clean(error.message),
    )


def _classify(exchange: Exchange, answer: Answer | None) -> Verdict:
    code, meaning = _MEANING[exchange.failure]
    detail = f"{meaning}: {exchange.detail}" if exchange.detail else meaning
    if exchange.reach <= Reach.PARTIAL:
        if exchange.failure is Failure.TLS:
            return Verdict(outcome=Outcome.STOP, billed=Billed.NO, code=code, message=detail)
        return Verdict(outcome=Outcome.SAFE, billed=Billed.NO, code=code, message=detail)
    if exchange.reach is Reach.SENT or exchange.status is None:
        return _ambiguous(code, detail)
    if exchange.reach is Reach.HEADERS and exchange.status == 200 and answer and answer.pictures:
        # A stream may break off behind its last event, and a server may forget how to end.
        return _success(exchange.status, answer)
    if exchange.reach is Reach.HEADERS and not 400 <= exchange.status < 500:
        return _ambiguous(code, f"HTTP {exchange.status}, then {detail}")
    answer = answer or Answer()
    status = exchange.status
    if status < 200:
        return _ambiguous(f"http_{status}", f"HTTP {status} is no end of an exchange")
    if status < 300:
        return _success(status, answer)
    if status < 400:
        where = (exchange.headers or {}).get("location", "another address")
        return _stop("redirect", f"base_url redirects to {where}: set base_url to the final one")
    return _error(status, answer, exchange.headers or {})


def _success(status: int, answer: Answer) -> Verdict:
    if answer.pictures:
        return Verdict(outcome=Outcome.OK, billed=Billed.YES)
    if answer.error is not None:
        known = _by_code(answer.error)
        if known is not None:
            return known
        return _ambiguous(
            answer.error.code or "error_in_success",
            f"HTTP {status} with an error inside: {answer.error.message}",
        )
    if answer.task_id:
        return _ambiguous("task", f"answered with task {answer.task_id} in place of a picture")
    if not answer.readable:
        return _ambiguous("unreadable", f"HTTP {status} with a body that is no JSON")
    return Verdict(
        outcome=Outcome.SPOILED,
        billed=Billed.YES,
        code="no_picture",
        message=f"HTTP {status} without a picture",
    )


def _error(status: int, answer: Answer, headers: Mapping[str, str]) -> Verdict:
    error = answer.error
    text = (error.message if error else "") or f"HTTP {status}"
    code = (error.code or error.type if error else "") or f"http_{status}"
    if status in _NOT_REACHED:
        return Verdict(outcome=Outcome.SAFE, billed=Billed.NO, code=f"http_{status}", message=text)
    if status in _UNKNOWN:
        return _ambiguous(f"http_{status}", text)
    known = _by_code(error) if error else None
    if known is not None:
        return known
    if status in (401, 403):
        return _no_access(status, answer, code, text)
    if status == 404 or status in _WRONG_SETTING:
        return _stop(code, f"{text} (HTTP {status}: check base_url, model and account)")
    if status == 425:
        return Verdict(outcome=Outcome.SAFE, billed=Billed.NO, code=code, message=text)
    if status in (429, 529) or (status == 503 and (error or "retry-after" in headers)):
        return Verdict(outcome=Outcome.THROTTLED, billed=Billed.NO, code=code, message=text)
    if status >= 500:
        if error is None or status not in (500, 502):
            return _ambiguous(f"http_{status}", text)
        return Verdict(
            outcome=Outcome.REFUSED, billed=Billed.NO, code=code, message=text, again=True
        )
    if error and _BLOCKED_WORDS.search(f"{error.type} {error.message}"):
        return Verdict(outcome=Outcome.BLOCKED, billed=Billed.NO, code=code, message=text)
    return Verdict(outcome=Outcome.REFUSED, billed=Billed.NO, code=code, message=text)


def _no_access(status: int, answer: Answer, code: str, text: str) -> Verdict:
    if status == 403 and answer.error is None and answer.html:
        return Verdict(
            outcome=Outcome.THROTTLED,
            billed=Billed.NO,
            code="firewall",
            message="HTTP 403 with a page: a firewall in front of the endpoint",
        )
    if answer.error is not None and _MONEY_WORDS.search(text):
        return _stop("no_money", f"{text} (top up the account or raise the key's limit)")
    return _stop(code, f"{text} (HTTP {status}: check the key and what it may do)")


def _by_code(error: ErrorBody) -> Verdict | None:
    text = error.message or error.code or error.type
    for name in (error.code, error.type):
        if name.startswith(_FEE_PREFIX):
            return Verdict(outcome=Outcome.BLOCKED, billed=Billed.MAYBE, code=name, message=text)
        if name in MONEY_CODES:
            return _stop("no_money", f"{text} (top up the account or raise the key's limit)")
        if name in BLOCKED_CODES:
            return Verdict(outcome=Outcome.BLOCKED, billed=Billed.NO, code=name, message=text)
        if name in AUTH_CODES:
            return _stop(name, f"{text} (check the key)")
        if name in THROTTLE_CODES:
            return Verdict(outcome=Outcome.THROTTLED, billed=Billed.NO, code=name, message=text)
        if name in STOP_CODES:
            return _stop(name, text)
        if name in REFUSED_CODES:
            return Verdict(outcome=Outcome.REFUSED, billed=Billed.NO, code=name, message=text)
    return None


def _stop(code: str, message: str) -> Verdict:
    return Verdict(outcome=Outcome.STOP, billed=Billed.NO, code=code, message=message)


def _ambiguous(code: str, message: str) -> Verdict:
    return Verdict(outcome=Outcome.AMBIGUOUS, billed=Billed.MAYBE, code=code, message=message)


_DURATION = re.compile(r"\s*(?:(\d{1,9})m(?!s))?\s*(?:(\d{1,9}(?:\.\d{1,9})?)(ms|s)?)?\s*")
_MAX_WAIT_S: Final = 86_400.0


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from ``retry-after-ms``, ``retry-after`` or ``x-ratelimit-reset-requests``.

    Whole and broken seconds, ``1500ms``, ``2m``, ``6m0s`` and HTTP dates (against the server's own
    ``Date``) are understood. What is negative, zero, not finite, past or longer than 10,000
    characters counts as absent; more than a day counts as a day.
    """
    exact_s = _milliseconds(headers.get("retry-after-ms", ""))
    if exact_s is not None:
        return min(exact_s, _MAX_WAIT_S)
    for name in ("retry-after", "x-ratelimit-reset-requests"):
        value = headers.get(name, "").strip()
        if not value or len(value) > 100:
            continue
        seconds = _duration(value)
        if seconds is None and name == "retry-after":
            seconds = _date_delta(value, headers.get("date", ""))
        if seconds is not None:
            return min(seconds, _MAX_WAIT_S)
    return None


def _milliseconds(text: str) -> float | None:
    """In seconds."""
    try:
        seconds = float(text) / 1000
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _duration(text: str) -> float | None:
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    minutes, amount, unit = match.groups()
    seconds = float(amount or 0) / (1000 if unit == "ms" else 1)
    total = int(minutes or 0) * 60 + seconds
    return total if total > 0 else None


def _date_delta(text: str, server_date: str) -> float | None:
    then = _date(text)
    now = _date(server_date) or datetime.now(UTC)
    if then is None:
        return None
    delta = (then - now).total_seconds()
    return delta if delta > 0 else None


def _date(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
