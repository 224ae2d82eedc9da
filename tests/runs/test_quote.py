"""What a run will cost and take, as tables; and budgets that refuse, or hold."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.money import Micros
from batchgen.planning.cost_estimate import Pace, parse_percent, what_if
from tests.support import rig


@pytest.mark.parametrize(
    ("images", "cost", "again", "accepted", "total", "each"),
    [
        (1000, 37_700_000, 8, 70, 40_716_000, 58_166),  # the guide's own example
        (1000, 37_700_000, 0, 100, 37_700_000, 37_700),
        (3, 100_001, 50, 50, 150_002, 100_002),
        (10, 377_000, 5, 0, 395_850, None),
        (0, 0, 8, 70, 0, None),
    ],
)
def test_the_what_if_is_that_of_the_guides_calculator(
    images: int, cost: int, again: int, accepted: int, total: int, each: int | None
) -> None:
    found = what_if(
        images,
        Micros(cost),
        again_percent=Decimal(again),
        accepted_percent=Decimal(accepted),
    )
    assert (found.total, found.per_accepted) == (total, each)


@given(
    images=st.integers(1, 10**6),
    each=st.integers(1, 10**6),
    again=st.integers(0, 100),
    accepted=st.integers(1, 100),
)
def test_accepted_image_never_costs_less_than_an_image(
    images: int, each: int, again: int, accepted: int
) -> None:
    found = what_if(
        images,
        Micros(images * each),
        again_percent=Decimal(again),
        accepted_percent=Decimal(accepted),
    )
    assert found.total >= images * each
    assert found.per_accepted is not None
    assert found.per_accepted >= each


@pytest.mark.parametrize(
    ("requests", "pace", "seconds"),
    [
        (100, Pace(concurrency=10, per_minute=None, latency_s=6.0), 60.0),
        (101, Pace(concurrency=10, per_minute=None, latency_s=6.0), 66.0),
        (120, Pace(concurrency=100, per_minute=60.0, latency_s=6.0), 120.0),
        (120, Pace(concurrency=1, per_minute=60.0, latency_s=6.0), 720.0),
        (120, Pace(concurrency=8, per_minute=60.0, latency_s=None), 120.0),
        (120, Pace(concurrency=8, per_minute=None, latency_s=None), None),
    ],
)
def test_expected_time_follows_the_slower_of_rate_and_latency(
    requests: int, pace: Pace, seconds: float | None
) -> None:
    assert pace.expected_s(requests) == seconds


@pytest.mark.parametrize(("text", "percent"), [("8%", 8), ("12.5", "12.5"), (" 0 % ", 0)])
def test_a_share_is_read(text: str, percent: int | str) -> None:
    assert parse_percent(text) == Decimal(percent)


@pytest.mark.parametrize("text", ["", "x", "-1", "101%", "nan", "1e9"])
def test_invalid_percentage_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="percentage"):
        parse_percent(text)


def plan(directory: Path, path: Path, *options: str) -> dict[str, Any]:
    """``plan --json``."""
    done = rig.batchgen("plan", path, "--json", *options, cwd=directory)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_plan_reports_money_time_and_what_if(served: rig.Endpoint, tmp_path: Path) -> None:
    limits = "{concurrency: 4, requests_per_minute: 60, max_cost: 1.00}"
    path = rig.manifest(tmp_path, served.base_url, ["a", "b", "c", "d", "e", "f"], limits=limits)
    found = plan(tmp_path, path, "--again", "10%", "--accepted", "50%")
    assert (found["requests"], found["estimate"]) == (6, "0.226200")
    assert found["expected_seconds"] == 6.0
    assert found["budgets"] == [
        {"period": "run", "max_cost": "1.000000", "used": "0.000000", "left": "1.000000"}
    ]
    assert found["what_if"]["total"] == "0.248820"
    assert found["what_if"]["per_accepted"] == "0.082940"
    text = rig.batchgen("plan", path, cwd=tmp_path).stdout
    assert re.search(r"6  requests to send, estimated at +\$0\.23\n", text)
    assert "budget for this run: $1.00 left of $1.00" in text
    assert "time: about 6.0s (4 in flight, at most 60 per minute)" in text
    rig.batchgen("run", path, cwd=tmp_path)
    rig.manifest(tmp_path, served.base_url, [*"abcdefgh"], limits=limits)
    assert "per image so far" in rig.batchgen("plan", path, cwd=tmp_path).stdout


@pytest.mark.fault("M17")
def test_run_over_budget_is_refused_unless_yes_is_given(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    path = rig.manifest(
        tmp_path, served.base_url, [*"abcdef"], limits="{concurrency: 8, max_cost: 0.20}"
    )
    refused = rig.batchgen("run", path, cwd=tmp_path, code=3)
    assert "budget for this run: $0.20 left of $0.20; not enough" in refused.stderr
    assert "nothing was sent" in refused.stderr
    assert len(served.bill()) == before
    rig.batchgen("run", path, "--yes", cwd=tmp_path, code=3)
    assert len(served.bill()) - before == 5
    rig.manifest(
        tmp_path, served.base_url, [*"abcdefgh"], limits="{concurrency: 8, max_cost: 0.05}"
    )
    limited = rig.batchgen("run", path, "--limit", "1", cwd=tmp_path)
    assert re.search(r"1  of them in this run \(--limit\) +\$0\.04", limited.stderr)
    assert rig.status(tmp_path)["jobs"]["done"] == 6


@pytest.mark.parametrize("period", ["day", "month"])
def test_the_ledgers_budgets_hold_across_batches(
    period: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    first = rig.manifest(tmp_path, served.base_url, [*"abc"], name="first")
    second = rig.manifest(tmp_path, served.base_url, [*"defg"], name="second")
    rig.batchgen("run", first, cwd=tmp_path)
    output = rig.batchgen("budget", f"--{period}", "0.20", cwd=tmp_path).stdout
    assert "$0.11 of $0.20 used or reserved, $0.09 left" in output
    assert "budget: the estimate" in rig.batchgen("run", second, cwd=tmp_path, code=3).stderr
    stopped = rig.batchgen("run", second, "--yes", cwd=tmp_path, code=3)
    assert "raise it with `batchgen budget" in stopped.stdout
    assert len(served.bill()) - before == 5
    (one,) = json.loads(rig.batchgen("budget", "--json", cwd=tmp_path).stdout)["budgets"]
    assert (one["period"], one["used"], one["left"]) == (period, "0.188500", "0.011500")
    rig.batchgen("budget", f"--{period}", "none", cwd=tmp_path)
    rig.batchgen("run", second, cwd=tmp_path)
    assert rig.status(tmp_path, "second")["jobs"]["done"] == 4


def test_invalid_limit_is_refused(served: rig.Endpoint, tmp_path: Path) -> None:
    rig.batchgen("run", rig.manifest(tmp_path, served.base_url, ["a"]), cwd=tmp_path)
    refused = rig.batchgen("budget", "--day", "lots", cwd=tmp_path, code=2)
    assert "--day: 'lots' is not an amount in dollars" in refused.stderr


def test_a_budget_of_the_command_line_is_that_of_all_manifests(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    paths = [
        rig.manifest(tmp_path, served.base_url, [f"{name} {n}" for n in range(4)], name=name)
        for name in ("one", "two", "three")
    ]
    rig.batchgen("run", *paths, "--max-cost", "0.20", "--yes", cwd=tmp_path, code=3)
    assert len(served.bill()) - before == 5
    assert rig.status(tmp_path, "one")["jobs"]["done"] == 4
    assert rig.status(tmp_path, "two")["jobs"]["done"] == 1


def test_risen_price_stops_the_run_before_a_request(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with rig.endpoint(state, "--fast-images", "--price", "0.04") as cheap:
        port = cheap.base_url
        path = rig.manifest(tmp_path, port, ["a"])
        rig.batchgen("run", path, cwd=tmp_path)
    number = port.rpartition(":")[2].partition("/")[0]
    with rig.endpoint(state, "--fast-images", "--price", "0.05", "--port", number) as dear:
        rig.manifest(tmp_path, dear.base_url, ["a", "b"])
        stopped = rig.batchgen("run", path, cwd=tmp_path, code=3)
        assert "gpt-image-2 costs $0.05" in stopped.stderr
        assert "prices have risen by more than 1 %" in stopped.stderr
        assert len(dear.bill()) == 1
        rig.batchgen("run", path, "--yes", cwd=tmp_path)
        rig.manifest(tmp_path, dear.base_url, ["a", "b", "c"])
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(dear.bill()) == 3


@pytest.mark.parametrize(
    ("typed", "response"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False)]
)
def test_a_person_is_asked_and_silence_means_no(typed: str, response: bool) -> None:
    ours, theirs = os.openpty()
    code = (
        "from batchgen.console.terminal import TerminalPresenter;"
        "print(TerminalPresenter().confirm('send 3 requests for about $0.11?'))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, text=True
    ) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        output, _ = process.communicate(timeout=rig.TIMEOUT_S)
        shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert "send 3 requests for about $0.11? [y/N]" in shown
    assert output.strip() == str(response)


@pytest.mark.fault("P14")
def test_no_question_is_asked_without_a_terminal() -> None:
    code = (
        "from batchgen.console.terminal import TerminalPresenter;"
        "print(TerminalPresenter().confirm('x?'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
