"""Runs against providers that say, each in its own words, that no request can succeed now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import rig
from tests.support.error_bodies import OPENAI_QUOTA, XAI, with_error
from tests.support.responses import RED, encoded
from tests.support.scripted_server import Scripted, scripted

JOBS = 12
IN_FLIGHT = 4


def run(directory: Path, script: Scripted, *, code: int, limits: str = "{concurrency: 4}") -> str:
    """Run a dozen jobs against the script; gives the output."""
    prompts = [f"a mug {number}" for number in range(JOBS)]
    path = rig.manifest(directory, f"{script.base}/v1", prompts, limits=limits)
    done = rig.batchgen("run", path, cwd=directory, code=code)
    return done.stdout + done.stderr


def refusals(script: Scripted, status: int, body: object) -> None:
    """Respond to every request with this error."""
    script.reply = lambda: (status, json.dumps(body).encode())


STOPS = {
    "K10": (400, with_error("Budget has been exceeded! Max budget: 10.0", "400"), "no_money"),
    "K10 type": (400, with_error("x", "400", "budget_exceeded"), "no_money"),
    "K12": (429, {"code": "Some resource has been exhausted", "error": XAI}, "no_money"),
    "W06": (200, with_error(OPENAI_QUOTA, "insufficient_quota"), "no_money"),
}


@pytest.mark.fault("K10", "K12", "W06", "W07")
@pytest.mark.parametrize(("status", "body", "code"), STOPS.values(), ids=STOPS.keys())
def test_run_stops_when_the_money_is_gone(
    status: int, body: object, code: str, tmp_path: Path
) -> None:
    with scripted() as script:
        refusals(script, status, body)
        shown = run(tmp_path, script, code=3)
    assert len(script.posts) <= IN_FLIGHT
    assert rig.status(tmp_path)["jobs"]["pending"] == JOBS
    assert code in shown


@pytest.mark.fault("W07")
def test_money_in_words_of_a_success_stops_the_run(tmp_path: Path) -> None:
    """Whether the text was paid for is unknown, so what was sent is uncertain."""
    with scripted() as script:
        script.reply = lambda: (200, b"Insufficient balance")
        shown = run(tmp_path, script, code=3)
    sent = len(script.posts)
    assert sent <= IN_FLIGHT
    jobs = rig.status(tmp_path)["jobs"]
    assert (jobs["uncertain"], jobs["pending"]) == (sent, JOBS - sent)
    assert "no_money" in shown


@pytest.mark.fault("XC8")
def test_429_with_should_retry_false_stops_the_run(tmp_path: Path) -> None:
    with scripted() as script:
        refusals(script, 429, with_error("no", "rate_limit_exceeded"))
        script.headers = {"x-should-retry": "false"}
        shown = run(tmp_path, script, code=3)
    assert len(script.posts) <= IN_FLIGHT
    assert rig.status(tmp_path)["jobs"]["pending"] == JOBS
    assert "rate_limit_exceeded" in shown


@pytest.mark.fault("K14")
def test_reset_in_hours_stops_the_run(tmp_path: Path) -> None:
    with scripted() as script:
        refusals(script, 429, with_error("requests per day (RPD)", "rate_limit_exceeded"))
        script.headers = {
            "x-ratelimit-reset-requests": "7h59m12s",
            "x-ratelimit-remaining-requests": "0",
        }
        run(tmp_path, script, code=3)
    assert len(script.posts) <= IN_FLIGHT
    assert rig.status(tmp_path)["jobs"]["pending"] == JOBS


@pytest.mark.fault("K41")
def test_wait_in_words_stops_the_run_where_it_is_too_long(tmp_path: Path) -> None:
    with scripted() as script:
        message = "Rate limit reached: Please try again in 2 hours."
        refusals(script, 429, with_error(message, "rate_limit_exceeded"))
        run(tmp_path, script, code=3)
    assert len(script.posts) <= IN_FLIGHT
    assert rig.status(tmp_path)["jobs"]["pending"] == JOBS


def test_blocked_jobs_are_blocked_and_the_others_made(tmp_path: Path) -> None:
    good = json.dumps({"data": [{"b64_json": encoded(RED)}]}).encode()
    blocked = with_error("Input data may contain x", "DataInspectionFailed")
    azure = with_error("no", "contentFilter", inner_error={"code": "ResponsibleAIPolicyViolation"})
    replies = [(400, json.dumps(body).encode()) for body in (blocked, azure)]
    with scripted() as script:
        script.reply = lambda: replies.pop() if replies else (200, good)
        run(tmp_path, script, code=1, limits="{concurrency: 1}")
    found = rig.status(tmp_path)["jobs"]
    assert (found["blocked"], found["done"]) == (2, JOBS - 2)
