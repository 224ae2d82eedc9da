"""What peers pay twice, overspend or ask in vain for, on an endpoint that keeps its own bill."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support import rig

BILLED_THEN_FAILED = ("--bill-error", "0.1", "--bill-drop", "0.1")
CHAOS = (
    *("--bill-error", "0.05", "--bill-drop", "0.05", "--bill-gateway-timeout", "0.05"),
    *("--bill-empty", "0.05", "--error", "0.1", "--break", "0.05", "--throttle", "0.05"),
    *("--refuse", "0.02", "--html", "0.02", "--bill-at", "body"),
)


def paid_per_prompt(bill: list[dict[str, Any]]) -> Counter[str]:
    """How often each prompt was paid for."""
    return Counter(row["prompt"] for row in bill if row["micros"] > 0)


@pytest.mark.parametrize("max_waste", ["0", "5%"])
def test_charged_failures_are_rebought_only_within_max_waste(
    max_waste: str, tmp_path: Path
) -> None:
    switches = ("--fast-images", "--seed", "3", *BILLED_THEN_FAILED)
    with rig.endpoint(tmp_path / "state", *switches) as served:
        path = rig.manifest(
            tmp_path,
            served.base_url,
            [f"image {number}" for number in range(200)],
            limits=f"{{concurrency: 16, max_waste: {max_waste!r}}}",
        )
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        rig.judge(tmp_path, served.bill(), finished=True)
        paid = paid_per_prompt(served.bill())
        billed = sum(row["micros"] for row in served.bill())
    twice = sum(count - 1 for count in paid.values())
    attempts = rig.query(tmp_path / "batchgen.db", "SELECT * FROM attempts")
    uncertain = [row for row in attempts if row["billed"] == "maybe"]
    assert 20 < len(uncertain) < 70
    # Every uncertain attempt of this endpoint was charged: the two sums are the bill to the cent.
    assert sum(row["cost"] for row in attempts) + sum(row["price"] for row in uncertain) == billed
    (run,) = rig.query(tmp_path / "batchgen.db", "SELECT * FROM runs")
    if max_waste == "0":
        assert twice == 0
        lines = rig.batchgen("status", "batch", "--uncertain", "--json", cwd=tmp_path).stdout
        shown = [json.loads(line) for line in lines.splitlines()]
        assert {job["attempt"] for job in shown} == {row["id"] for row in uncertain}
        assert {job["price"] for job in shown} == {"0.037700"}
        assert all(job["reason"] and job["sent_at"] for job in shown)
        text = rig.batchgen("status", "batch", "--uncertain", cwd=tmp_path).stdout
        assert f"{shown[0]['key']}: possible $0.04, sent {shown[0]['sent_at']}" in text
    else:
        assert 0 < twice * rig.PRICE <= run["max_waste"] == run["estimate"] * 5 // 100
        assert run["wasted"] == twice * rig.PRICE


@pytest.mark.fault("A01")
def test_an_empty_balance_costs_at_most_what_was_in_flight(tmp_path: Path) -> None:
    balance = ("--balance", "1.885")  # fifty images
    with rig.endpoint(tmp_path / "state", "--fast-images", *balance) as served:
        path = rig.manifest(
            tmp_path,
            served.base_url,
            [f"image {number}" for number in range(300)],
            limits="{concurrency: 16}",
        )
        stopped = rig.batchgen("run", path, cwd=tmp_path, code=3)
        assert "no_money" in stopped.stdout
        assert "top up" in stopped.stdout
        found = rig.status(tmp_path)
        assert (found["jobs"]["done"], found["jobs"]["pending"]) == (50, 250)
        assert served.judge("stats")["posts"] <= 50 + 16
        served.judge("topup", {"dollars": "20"})
        rig.batchgen("run", path, cwd=tmp_path)
        rig.judge(tmp_path, served.bill(), finished=True)
        assert rig.status(tmp_path)["jobs"]["done"] == 300
        assert set(paid_per_prompt(served.bill()).values()) == {1}


@pytest.mark.fault("A06")
def test_a_budget_holds_on_the_bill_in_any_chaos(tmp_path: Path) -> None:
    for seed in range(8):
        directory = tmp_path / str(seed)
        directory.mkdir()
        switches = ("--fast-images", "--seed", str(seed), *CHAOS)
        with rig.endpoint(directory / "state", *switches) as served:
            path = rig.manifest(
                directory,
                served.base_url,
                [f"image {number}" for number in range(60)],
                limits="{concurrency: 64, max_cost: 1.00, max_waste: 100%}",
            )
            rig.batchgen("run", path, "--yes", cwd=directory, code=None)
            served.wait_until_idle()
            bill = served.bill()
            rig.judge(directory, bill, finished=False)
        billed = sum(row["micros"] for row in bill)
        assert 500_000 < billed <= 1_000_000, seed
