"""The ordered rules that classify an attempt: the first rule that matches decides.

An error is read by code first, then by type, status and message. A status alone says little:
gateways send 500 for permanent errors, 403 for an empty account and 200 with errors inside.
A request that may have reached a server that charges is never taken for free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from batchgen.job import Billed, Outcome
from batchgen.outcomes.attempt_facts import Case
from batchgen.outcomes.error_row import Kind
from batchgen.outcomes.exchange import Classification, ErrorBody, Failure, Reach

NO_MONEY: Final = "no_money"
"""Code for missing money, credits, quota or budget, whichever the provider calls it."""
UPLOAD_CUT: Final = "upload_cut"
"""Code for a request that was cut off while it was being sent."""

_ACCOUNT_WORDS: Final = re.compile(r"quota|balance|billing|credit|额度|余额", re.IGNORECASE)
"""Enough to call a 401 or 403 a lack of money, as these statuses stop the run in any case."""
_NOT_REACHED: Final = frozenset({521, 523, 525, 526})
"""Cloudflare did not reach the endpoint's server, so nothing was charged.
https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/"""
_TIMED_OUT: Final = frozenset({408, 504, 520, 522, 524})
"""A proxy gave up on a server that may finish the request and charge for it."""
_WRONG_SETTING: Final = frozenset({404, 405, 406, 407, 415, 501})
_BUSY: Final = frozenset({429, 503, 529})
_Test: TypeAlias = Callable[[Case], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row: when it applies, and the class of the attempt.

    ``code`` and ``message`` are templates of `Case.fields`; ``{text}`` in a message is the
    provider's message with its code and type.
    """

    when: _Test
    outcome: Outcome
    billed: Billed = Billed.NO
    code: str = "{code}"
    message: str = "{text}"
    hint: str = ""
    again: bool = False

    def classification(self, case: Case) -> Classification:
        """Classify an attempt that this rule applies to."""
        if not (self.code or self.message or self.hint):  # a success needs no texts
            return Classification(
                outcome=self.outcome, billed=self.billed, code="", message="", again=self.again
            )
        fields = case.fields()
        code = self.code.format_map(fields)
        fields["text"] = with_names(case.error, case.text, code)
        message = self.message.format_map(fields)
        return Classification(
            outcome=self.outcome,
            billed=self.billed,
            code=code,
            message=f"{message} ({self.hint.format_map(fields)})" if self.hint else message,
            again=self.again,
        )


def first_match(rules: Sequence[Rule], case: Case) -> Classification | None:
    """Classify an attempt by the first rule that applies; None if none does."""
    for rule in rules:
        if rule.when(case):
            return rule.classification(case)
    return None


def with_names(error: ErrorBody | None, text: str, code: str) -> str:
    """Append the error's code and type to its message, unless they are ``text`` or ``code``.

    Reports show ``code`` next to the message.
    """
    if error is None:
        return text
    fields = (("code", error.code), ("type", error.type))
    more = [f"{what} {name}" for what, name in fields if name and name not in (code, text)]
    return f"{text} [{', '.join(more)}]" if more else text


# Predicates


def _cut(failure: Failure) -> _Test:
    return lambda case: case.reach <= Reach.PARTIAL and case.exchange.failure is failure


def _upload_cut(case: Case) -> bool:
    return case.reach is Reach.PARTIAL and case.exchange.failure is not Failure.INTERRUPTED


def _has_image(case: Case) -> bool:
    """A stream may break off after its last event, and a server may not end a response."""
    arrived = case.reach is Reach.COMPLETE or case.status == 200
    return arrived and 200 <= case.status < 300 and bool(case.response.images)


def _cut_response(case: Case) -> bool:
    return case.reach is Reach.HEADERS and not 400 <= case.status < 500


def _named(kind: Kind) -> _Test:
    """A code or type of the error has this meaning."""
    return lambda case: case.names_count and case.known[1] is kind


def _in_words(kind: Kind) -> _Test:
    """The message has this meaning."""
    return lambda case: case.words_count and case.says(kind)


def _out_of_money_by_words(case: Case) -> bool:
    """xAI sends ``permission-denied`` for used-up credits, too."""
    return _named(Kind.ACCESS)(case) and case.says(Kind.MONEY)


def _rate_limit_in_words(case: Case) -> bool:
    """A rate limit may mention quotas: its phrases win over those about money."""
    may_throttle = case.status < 300 or case.status in _BUSY or case.known[1] is not None
    return may_throttle and _in_words(Kind.THROTTLED)(case)


def _delayed(case: Case) -> bool:
    """Google sends ``RESOURCE_EXHAUSTED`` and "exceeded your current quota" for every limit.

    It names a delay if waiting helps.
    """
    has_delay = case.error is not None and case.error.retry_after_s is not None
    return has_delay and case.words_count and _named(Kind.THROTTLED)(case)


def _status(*statuses: int) -> _Test:
    return lambda case: case.status in statuses


def _success(case: Case) -> bool:
    return 200 <= case.status < 300


def _task(case: Case) -> bool:
    task = case.response.task
    return task is not None and _success(case) and (task.is_named or case.status == 202)


def _firewall(case: Case) -> bool:
    return case.status == 403 and case.error is None and case.response.html


def _empty_account(case: Case) -> bool:
    named = case.error is not None and _ACCOUNT_WORDS.search(case.text) is not None
    return named and case.status in (401, 403)


def _busy(case: Case) -> bool:
    return case.status in _BUSY and (case.status != 503 or case.own or case.has_wait)


# Rules

_TOP_UP: Final = "top up the account or raise the limit of the key"
_CHECK_KEY: Final = "check the key and the account"
_UPLOAD_CUT_TEXT: Final = (
    "the upload of {size} was cut off: {ending}; check the size of the reference images, the"
    " upload limit of proxies, and the speed of the connection"
)
_SAFE, _OK, _SPOILED = Outcome.SAFE, Outcome.OK, Outcome.SPOILED
_REFUSED, _BLOCKED, _THROTTLED = Outcome.REFUSED, Outcome.BLOCKED, Outcome.THROTTLED
_STOP, _AMBIGUOUS = Outcome.STOP, Outcome.AMBIGUOUS
_YES, _MAYBE = Billed.YES, Billed.MAYBE

_NO_RESPONSE: Final = (
    Rule(when=_cut(Failure.TLS), outcome=_STOP, code="{ending_code}", message="{ending}"),
    Rule(when=_upload_cut, outcome=_SAFE, code=UPLOAD_CUT, message=_UPLOAD_CUT_TEXT),
    Rule(
        when=lambda case: case.reach <= Reach.PARTIAL,
        outcome=_SAFE,
        code="{ending_code}",
        message="{ending}",
    ),
    Rule(
        when=lambda case: case.reach is Reach.SENT or case.exchange.status is None,
        outcome=_AMBIGUOUS,
        billed=_MAYBE,
        code="{ending_code}",
        message="{ending}",
    ),
)

_INCOMPLETE: Final = (
    Rule(when=_has_image, outcome=_OK, billed=_YES, code="", message=""),
    Rule(
        when=_cut_response,
        outcome=_AMBIGUOUS,
        billed=_MAYBE,
        code="{ending_code}",
        message="HTTP {status}, then {ending}",
    ),
    Rule(
        when=lambda case: case.status < 200,
        outcome=_AMBIGUOUS,
        billed=_MAYBE,
        code="http_{status}",
        message="HTTP {status} is not a final status",
    ),
    Rule(
        when=lambda case: 300 <= case.status < 400,
        outcome=_STOP,
        code="redirect",
        message="base_url redirects to {location}: set base_url to the final URL",
    ),
    Rule(when=_status(*_NOT_REACHED), outcome=_SAFE, code="http_{status}"),
    Rule(when=_status(*_TIMED_OUT), outcome=_AMBIGUOUS, billed=_MAYBE, code="http_{status}"),
)

ERROR_RULES: Final = (
    # A text in a success may be by a gateway before the request, or by a model that was paid for.
    Rule(
        when=lambda case: case.is_only_text and _in_words(Kind.BLOCKED)(case),
        outcome=_BLOCKED,
        billed=_MAYBE,
        code="no_image",
    ),
    Rule(
        when=lambda case: case.is_only_text,
        outcome=_AMBIGUOUS,
        billed=_MAYBE,
        code=NO_MONEY,
        hint=_TOP_UP,
    ),
    Rule(
        when=lambda case: case.names_count and case.fee != "",
        outcome=_BLOCKED,
        billed=_MAYBE,
        code="{fee}",
    ),
    Rule(when=_out_of_money_by_words, outcome=_STOP, code=NO_MONEY, hint=_TOP_UP),
    Rule(when=_named(Kind.MONEY), outcome=_STOP, code=NO_MONEY, hint=_TOP_UP),
    Rule(when=_named(Kind.ACCESS), outcome=_STOP, code="{name}", hint=_CHECK_KEY),
    Rule(when=_named(Kind.STOP), outcome=_STOP, code="{name}"),
    Rule(when=_named(Kind.BLOCKED), outcome=_BLOCKED, code="{name}"),
    Rule(when=_named(Kind.REFUSED), outcome=_REFUSED, code="{name}"),
    # Names about throttling come later: a phrase about money may still turn them into a stop.
    Rule(when=_rate_limit_in_words, outcome=_THROTTLED),
    Rule(when=_delayed, outcome=_THROTTLED, code="{name}"),
    Rule(when=_in_words(Kind.MONEY), outcome=_STOP, code=NO_MONEY, hint=_TOP_UP),
    Rule(when=_named(Kind.THROTTLED), outcome=_THROTTLED, code="{name}"),
    Rule(when=_in_words(Kind.ACCESS), outcome=_STOP, hint=_CHECK_KEY),
    Rule(when=_in_words(Kind.STOP), outcome=_STOP),
    Rule(when=_in_words(Kind.BLOCKED), outcome=_BLOCKED),
)
"""The codes, types and phrases of an error, in a failed task or under any status."""

_SUCCESS: Final = (
    Rule(
        when=lambda case: _success(case) and case.error is not None,
        outcome=_AMBIGUOUS,
        billed=_MAYBE,
        code="{inner_code}",
        message="HTTP {status} with an error inside: {text}",
    ),
    Rule(
        when=_task,
        outcome=_AMBIGUOUS,
        billed=_MAYBE,
        code="task",
        message="the response is task {task} instead of an image{task_url}",
    ),
    Rule(
        when=lambda case: _success(case) and not case.response.readable,
        outcome=_AMBIGUOUS,
        billed=_MAYBE,
        code="unreadable",
        message="HTTP {status} with a body that is not JSON{quoted}",
    ),
    Rule(
        when=_success,
        outcome=_SPOILED,
        billed=_YES,
        code="no_image",
        message="HTTP {status} without an image{quoted}",
    ),
)

_STATUSES: Final = (
    Rule(when=_status(402), outcome=_STOP, code=NO_MONEY, hint=_TOP_UP),
    Rule(
        when=_firewall,
        outcome=_THROTTLED,
        code="firewall",
        message="HTTP 403 with an HTML page: a firewall in front of the endpoint{quoted}",
    ),
    Rule(when=_empty_account, outcome=_STOP, code=NO_MONEY, hint=_TOP_UP),
    Rule(
        when=_status(401, 403),
        outcome=_STOP,
        hint="HTTP {status}: check the key and its permissions",
    ),
    Rule(
        when=_status(*_WRONG_SETTING),
        outcome=_STOP,
        hint="HTTP {status}: check base_url, model and account",
    ),
    Rule(when=_status(425), outcome=_SAFE),
    # https://platform.stepfun.com/docs/zh/api-reference/error-codes,
    # https://docs.apiyi.com/en/faq/gpt-image-content-moderation
    Rule(when=_status(451), outcome=_BLOCKED),
    Rule(when=_busy, outcome=_THROTTLED),
    Rule(
        when=lambda case: case.own and case.status in (500, 502),
        outcome=_REFUSED,
        again=True,
    ),
    Rule(
        when=lambda case: case.status >= 500,
        outcome=_AMBIGUOUS,
        billed=_MAYBE,
        code="http_{status}",
    ),
    Rule(when=lambda _: True, outcome=_REFUSED),
)

RULES: Final = (*_NO_RESPONSE, *_INCOMPLETE, *ERROR_RULES, *_SUCCESS, *_STATUSES)
"""All rules, in order. The last one applies to every attempt."""
