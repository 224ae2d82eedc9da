"""What one attempt came to: a pure function of how far the request got and what came back.

The classes and their order of decision follow the reliability sheet, sections 2.4 and 3.2, and the
provider sheets: error code first, then type, then status, then the text of the message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from batchgen.job import Billed, Outcome
from batchgen.outcomes.error_meanings import HTTP_NAMES, kind_of_name, says
from batchgen.outcomes.error_row import Kind
from batchgen.outcomes.exchange import (
    Classification,
    ErrorBody,
    Exchange,
    Failure,
    Habits,
    Reach,
    Response,
)
from batchgen.outcomes.retry_after import retry_after

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
NO_MONEY: Final = "no_money"
"""Code of a lack of money, credits, quota or budget, whatever the provider calls it."""
UPLOAD_CUT: Final = "upload_cut"
"""Code of a request that was cut off while it was being sent."""
_FEE_PREFIX: Final = "violation_fee."
"""The gateway charges a fee for such a refusal, of its own amount (new-api, `violation_fee.go`)."""
_ACCOUNT_WORDS: Final = re.compile(r"quota|balance|billing|credit|额度|余额", re.IGNORECASE)
"""In a 401 or 403, which stops the run anyway, these are enough to call it a lack of money."""
_NOT_REACHED: Final = frozenset({521, 523, 525, 526})
_UNKNOWN: Final = frozenset({408, 504, 520, 522, 524})
_WRONG_SETTING: Final = frozenset({404, 405, 406, 407, 415, 501})
_BUSY: Final = frozenset({429, 503, 529})
_OWN_ERRORS: Final = frozenset({500, 502, 503, 529})
"""Errors in the endpoint's own words, for a request that it did not carry out."""
_REQUEST_ID_HEADERS: Final = ("x-oneapi-request-id", "x-request-id", "request-id", "cf-ray")
MAX_MESSAGE: Final = 2048
_MAX_CODE: Final = 100

_MEANING: Final = {
    Failure.CONNECT: ("unreachable", "no connection"),
    Failure.TLS: ("tls", "the endpoint's certificate or TLS handshake is not acceptable"),
    Failure.DEADLINE: ("deadline", "no complete answer within the deadline"),
    Failure.NETWORK: ("connection_lost", "the connection broke"),
    Failure.TOO_LARGE: ("too_large", "the response is larger than the cap"),
    Failure.INTERRUPTED: ("interrupted", "batchgen was stopped while the request was in flight"),
    Failure.NONE: ("incomplete", "the response is incomplete"),
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


def classify(
    exchange: Exchange,
    response: Response | None,
    habits: Habits = _FREE_ERRORS,
    *,
    prompt: str = "",
) -> Classification:
    """Decide what an attempt was. Total: any exchange and any response give a classification.

    ``prompt`` is what was sent: its words, repeated in an error, are not the provider's.
    """
    headers = exchange.headers or {}
    error = response.error if response else None
    classification = _billed_by(habits, _classify(exchange, response, prompt), exchange.status)
    may_retry = headers.get("x-should-retry", "").strip().lower() != "false"
    wait_s = None
    if classification.outcome is Outcome.THROTTLED:
        words, delay_s = (error.message, error.retry_after_s) if error else ("", None)
        wait_s = retry_after(headers, delay_s=delay_s, message=words)
        if not may_retry:
            classification = replace(
                classification,
                outcome=Outcome.STOP,
                message=f"{classification.message} (the provider says that a retry cannot succeed)",
            )
    return replace(
        classification,
        code=classification.code
        and (clean(classification.code)[:_MAX_CODE] or f"http_{exchange.status}"),
        message=clean(classification.message),
        again=classification.again and may_retry,
        retry_after_s=wait_s,
        status=exchange.status,
        request_id=request_id(headers),
    )


def _billed_by(
    habits: Habits, classification: Classification, status: int | None
) -> Classification:
    """What the endpoint is known to bill, where the response alone would count as free."""
    if classification.billed is not Billed.NO or classification.outcome not in (
        Outcome.REFUSED,
        Outcome.BLOCKED,
    ):
        return classification
    of_server = classification.outcome is Outcome.REFUSED and (status or 0) >= 500
    billed = habits.server_errors if of_server else habits.refusals
    if of_server and billed is not Billed.NO:
        # Whoever pays for it should have a say in whether it is bought again.
        return replace(classification, outcome=Outcome.AMBIGUOUS, billed=Billed.MAYBE, again=False)
    return replace(classification, billed=billed)


def classify_failed_task(error: ErrorBody, billed: Billed, *, prompt: str = "") -> Classification:
    """Return what an attempt was whose task was accepted and then failed.

    What is said about the account stops the run only where the task cost nothing: its job is
    pending again then, and must not have been charged.
    """
    named = error.code or error.type
    code = "task_failed" if named.lower() in _UNNAMED else named
    failed = Classification(
        outcome=Outcome.REFUSED,
        billed=billed,
        code=clean(code)[:_MAX_CODE],
        message=clean(_told(error, error.message, code)),
    )
    case = _Case(status=200, error=error, code=code, text=error.message, prompt=prompt)
    known = _first(_SAID, case)
    if known is None or known.outcome in (Outcome.REFUSED, Outcome.THROTTLED):
        return failed
    if known.outcome is Outcome.BLOCKED:
        return replace(failed, outcome=Outcome.BLOCKED)
    if billed is Billed.NO:
        return replace(known, code=clean(known.code)[:_MAX_CODE], message=clean(known.message))
    return replace(failed, code=clean(known.code)[:_MAX_CODE])


def _classify(exchange: Exchange, response: Response | None, prompt: str) -> Classification:
    code, meaning = _MEANING[exchange.failure]
    detail = f"{meaning}: {exchange.detail}" if exchange.detail else meaning
    if exchange.reach <= Reach.PARTIAL:
        return _not_sent(exchange, code, detail)
    if exchange.reach is Reach.SENT or exchange.status is None:
        return _ambiguous(code, detail)
    if exchange.reach is Reach.HEADERS and exchange.status == 200 and response and response.images:
        # A stream may break off behind its last event, and a server may forget how to end.
        return _success(exchange.status, response, prompt)
    if exchange.reach is Reach.HEADERS and not 400 <= exchange.status < 500:
        return _ambiguous(code, f"HTTP {exchange.status}, then {detail}")
    response = response or Response()
    status = exchange.status
    if status < 200:
        return _ambiguous(f"http_{status}", f"HTTP {status} is no end of an exchange")
    if status < 300:
        return _success(status, response, prompt)
    if status < 400:
        where = (exchange.headers or {}).get("location", "another address")
        return _stop("redirect", f"base_url redirects to {where}: set base_url to the final one")
    case = _case(status, response, exchange.headers or {}, prompt)
    return _first(_ERRORS, case) or _classified(Outcome.REFUSED, case)


def _not_sent(exchange: Exchange, code: str, detail: str) -> Classification:
    if exchange.failure is Failure.TLS:
        return _stop(code, detail)
    cut = exchange.reach is Reach.PARTIAL and exchange.failure is not Failure.INTERRUPTED
    if not cut:
        return Classification(outcome=Outcome.SAFE, billed=Billed.NO, code=code, message=detail)
    size = f"{exchange.upload_bytes:,} bytes" if exchange.upload_bytes else "the request"
    return Classification(
        outcome=Outcome.SAFE,
        billed=Billed.NO,
        code=UPLOAD_CUT,
        message=(
            f"the upload of {size} was cut off: {detail}; check the size of the reference images,"
            " the upload limit of proxies on the way, and the speed of the connection"
        ),
    )


def _success(status: int, response: Response, prompt: str) -> Classification:
    if response.images:
        return Classification(outcome=Outcome.OK, billed=Billed.YES)
    if response.error is not None:
        case = _case(status, response, {}, prompt)
        known = _first(_SAID, case)
        if known is not None:
            return known
        unnamed = case.code == f"http_{status}"
        return _ambiguous(
            "error_in_success" if unnamed else case.code,
            f"HTTP {status} with an error inside: {_told(response.error, case.text, case.code)}",
        )
    if response.task_id:
        return _ambiguous("task", f"answered with task {response.task_id} in place of an image")
    if not response.readable:
        return _ambiguous("unreadable", f"HTTP {status} with a body that is no JSON")
    return Classification(
        outcome=Outcome.SPOILED,
        billed=Billed.YES,
        code="no_image",
        message=f"HTTP {status} without an image",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A response without an image, as the rules look at it."""

    status: int
    error: ErrorBody | None
    code: str
    """For reports: the error's own code or type, or ``http_429``."""
    text: str
    """For people: the error's message, or ``HTTP 429``."""
    prompt: str
    html: bool = False
    has_wait: bool = False

    @property
    def own(self) -> bool:
        """Whether the endpoint itself says what became of the request."""
        return self.error is not None and self.error.envelope

    def says(self, kind: Kind) -> bool:
        """Return whether the message holds a phrase of this kind that was not ours."""
        return self.error is not None and says(kind, self.error.message, prompt=self.prompt)

    def named(self) -> tuple[str, Kind] | None:
        """Return the first code or type that the table knows, with what it means."""
        for name in self.error.all_names() if self.error else ():
            kind = kind_of_name(name)
            if kind is None and self.status < 300:
                kind = HTTP_NAMES.get(name)
            if kind is not None:
                return name, kind
        return None


_UNNAMED: Final = frozenset({"", "error", "null", "none"})


def _case(status: int, response: Response, headers: Mapping[str, str], prompt: str) -> _Case:
    error = response.error
    names = [name for name in (error.code, error.type) if name] if error else []
    # LiteLLM and Google repeat the status as code; the type says more then.
    telling = [name for name in names if not (name.isdecimal() and len(name) == 3)] or names
    return _Case(
        status=status,
        error=error,
        code=telling[0] if telling else f"http_{status}",
        text=(error.message if error else "") or (telling[0] if telling else f"HTTP {status}"),
        prompt=prompt,
        html=response.html,
        has_wait="retry-after" in headers,
    )


def _told(error: ErrorBody | None, text: str, code: str) -> str:
    """Return the provider's message with those of its code and type that it does not show itself.

    ``code`` is shown beside the message anyway.
    """
    if error is None:
        return text
    fields = (("code", error.code), ("type", error.type))
    more = [f"{what} {name}" for what, name in fields if name and name not in (code, text)]
    return f"{text} [{', '.join(more)}]" if more else text


_Rule = Callable[[_Case], Classification | None]


def _first(rules: Sequence[_Rule], case: _Case) -> Classification | None:
    return next((found for rule in rules if (found := rule(case)) is not None), None)


def _classified(outcome: Outcome, case: _Case, *, code: str = "", hint: str = "") -> Classification:
    code = code or case.code
    text = _told(case.error, case.text, code)
    return Classification(
        outcome=outcome,
        billed=Billed.NO,
        code=code,
        message=f"{text} ({hint})" if hint else text,
    )


def _of_kind(kind: Kind, case: _Case, *, code: str = "") -> Classification:
    match kind:
        case Kind.MONEY:
            hint = "top up the account or raise the limit of the key"
            return _classified(Outcome.STOP, case, code=NO_MONEY, hint=hint)
        case Kind.ACCESS:
            return _classified(Outcome.STOP, case, code=code, hint="check the key and the account")
        case Kind.STOP:
            return _classified(Outcome.STOP, case, code=code)
        case Kind.BLOCKED:
            return _classified(Outcome.BLOCKED, case, code=code)
        case Kind.THROTTLED:
            return _classified(Outcome.THROTTLED, case, code=code)
        case Kind.REFUSED:
            return _classified(Outcome.REFUSED, case, code=code)


def _fee(case: _Case) -> Classification | None:
    for name in case.error.all_names() if case.error else ():
        if name.startswith(_FEE_PREFIX):
            return replace(_classified(Outcome.BLOCKED, case, code=name), billed=Billed.MAYBE)
    return None


def _by_name(case: _Case) -> Classification | None:
    """All but throttling, which a phrase about money may still turn into a stop."""
    name, kind = case.named() or ("", Kind.THROTTLED)
    if kind is Kind.ACCESS and case.says(Kind.MONEY):  # xAI: "permission-denied", out of credits
        kind = Kind.MONEY
    return None if kind is Kind.THROTTLED else _of_kind(kind, case, code=name)


def _throttled_by_name(case: _Case) -> Classification | None:
    found = case.named()
    return _of_kind(Kind.THROTTLED, case, code=found[0]) if found else None


def _rate_in_words(case: _Case) -> Classification | None:
    """A rate limit that speaks of quotas: its words win over those about money."""
    throttled = case.status < 300 or case.status in _BUSY or case.named() is not None
    return _in_words(Kind.THROTTLED)(case) if throttled else None


def _delayed(case: _Case) -> Classification | None:
    """Google says ``RESOURCE_EXHAUSTED`` and "exceeded your current quota" for every limit, and
    names a delay where waiting helps."""
    delayed = case.error is not None and case.error.retry_after_s is not None
    return _throttled_by_name(case) if delayed else None


def _in_words(kind: Kind) -> _Rule:
    return lambda case: _of_kind(kind, case) if case.says(kind) else None


_SAID: Final[Sequence[_Rule]] = (
    _fee,
    _by_name,
    _rate_in_words,
    _delayed,
    _in_words(Kind.MONEY),
    _throttled_by_name,
    _in_words(Kind.ACCESS),
    _in_words(Kind.STOP),
    _in_words(Kind.BLOCKED),
)
"""What an error says itself, wherever it stands."""


def _out_of_reach(case: _Case) -> Classification | None:
    code = f"http_{case.status}"
    return _classified(Outcome.SAFE, case, code=code) if case.status in _NOT_REACHED else None


def _unknown_end(case: _Case) -> Classification | None:
    text = _told(case.error, case.text, "")
    return _ambiguous(f"http_{case.status}", text) if case.status in _UNKNOWN else None


def _said(case: _Case) -> Classification | None:
    """Errors of a server that may have worked on the request count by their names only."""
    if case.status >= 500 and not case.own:
        return None
    by_words = case.status < 500 or case.status in _OWN_ERRORS
    return _first(_SAID if by_words else (_fee, _by_name, _throttled_by_name), case)


def _payment_required(case: _Case) -> Classification | None:
    return _of_kind(Kind.MONEY, case) if case.status == 402 else None


def _no_access(case: _Case) -> Classification | None:
    if case.status not in (401, 403):
        return None
    if case.status == 403 and case.error is None and case.html:
        return Classification(
            outcome=Outcome.THROTTLED,
            billed=Billed.NO,
            code="firewall",
            message="HTTP 403 with a page: a firewall in front of the endpoint",
        )
    if case.error is not None and _ACCOUNT_WORDS.search(case.text):
        return _of_kind(Kind.MONEY, case)
    hint = f"HTTP {case.status}: check the key and what it may do"
    return _classified(Outcome.STOP, case, hint=hint)


def _wrong_setting(case: _Case) -> Classification | None:
    hint = f"HTTP {case.status}: check base_url, model and account"
    return _classified(Outcome.STOP, case, hint=hint) if case.status in _WRONG_SETTING else None


def _too_early(case: _Case) -> Classification | None:
    return _classified(Outcome.SAFE, case) if case.status == 425 else None


def _busy(case: _Case) -> Classification | None:
    full = case.status == 503 and (case.own or case.has_wait)
    return _classified(Outcome.THROTTLED, case) if full or case.status in (429, 529) else None


def _server_error(case: _Case) -> Classification | None:
    if case.status < 500:
        return None
    if not case.own or case.status not in (500, 502):
        return _ambiguous(f"http_{case.status}", _told(case.error, case.text, ""))
    return replace(_classified(Outcome.REFUSED, case), again=True)


_ERRORS: Final[Sequence[_Rule]] = (
    _out_of_reach,
    _unknown_end,
    _said,
    _payment_required,
    _no_access,
    _wrong_setting,
    _too_early,
    _busy,
    _server_error,
)
"""What an HTTP error is; the first rule that knows decides, and what none knows is refused."""


def _stop(code: str, message: str) -> Classification:
    return Classification(outcome=Outcome.STOP, billed=Billed.NO, code=code, message=message)


def _ambiguous(code: str, message: str) -> Classification:
    return Classification(
        outcome=Outcome.AMBIGUOUS, billed=Billed.MAYBE, code=code, message=message
    )
