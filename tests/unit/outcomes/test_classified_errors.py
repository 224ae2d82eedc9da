"""Errors of gateways and providers, separated by code, type and status."""

from __future__ import annotations

import pytest

from batchgen.job import Billed, Outcome
from tests.support.classified import answered, error

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
CLASSIFIED = {f"gateway-{name}": row for name, row in GATEWAY.items()} | {
    f"openai-{name}": row for name, row in OPENAI.items()
}


@pytest.mark.fault("H05", "H06", "H20")
@pytest.mark.parametrize(
    ("status", "code", "kind", "outcome"), CLASSIFIED.values(), ids=CLASSIFIED.keys()
)
def test_errors_are_classified_by_code_then_type_then_status(
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


def test_status_that_ends_no_response_is_uncertain() -> None:
    assert answered(101).outcome is Outcome.AMBIGUOUS


@pytest.mark.fault("H21", "H35")
def test_only_a_refusal_of_the_moment_may_be_asked_again() -> None:
    assert answered(500, error("do_request_failed")).again
    assert not answered(500, error("invalid_request")).again
    assert not answered(500, error("do_request_failed"), {"x-should-retry": "false"}).again
    assert not answered(400, error()).again
