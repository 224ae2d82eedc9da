"""Options that leave the price open: highest reserved, lowest charged, the rest possible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchgen.job import AttemptId, Billed, ImageRef, OptionValue
from batchgen.ledger.batch_status import status
from batchgen.ledger.budgets import spent_in
from batchgen.ledger.costs import CostBy, costs
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.reconciliation import settle_attempts
from batchgen.ledger.records import BudgetReached, Reserved
from batchgen.ledger.runs import start_run
from batchgen.money import Micros, PriceTerms
from batchgen.outcomes.retry_policy import may_rebuy
from batchgen.providers.crazyrouter import CRAZYROUTER
from batchgen.providers.openai import OPENAI
from batchgen.providers.price_list import OpenOption, PriceSpan
from batchgen.providers.profile import Profile
from batchgen.reconciliation.settlement import Settled
from tests.support import rig
from tests.support.builders import OK, PRICE, enroll, first, planned, start
from tests.support.ledger_steps import record_response, reserve_attempt
from tests.support.settlement import NOTHING, sent

LEAST = Micros(30_000)


@pytest.mark.parametrize(
    ("profile", "model", "options", "least", "most", "option"),
    [
        (CRAZYROUTER, "nano-banana-pro", {}, 73_700, 132_000, ("resolution", "4K", "1K")),
        (CRAZYROUTER, "nano-banana-pro", {"resolution": "2K"}, 73_700, 73_700, None),
        (CRAZYROUTER, "nano-banana-2", {}, 36_850, 82_500, ("resolution", "4K", "1K")),
        (CRAZYROUTER, "gpt-image-2", {}, 37_700, 37_700, None),
        (CRAZYROUTER, "grok-4-image", {}, 44_000, 44_000, None),
        # Every size that the model takes costs the same.
        (CRAZYROUTER, "veo-3.1", {}, 1_600_000, 1_600_000, None),
        (OPENAI, "gpt-image-2", {"size": "1024x1024"}, 6_880, 211_720, ("quality", "high", "low")),
    ],
)
def test_open_option_has_a_lowest_and_a_highest_price(
    profile: Profile,
    model: str,
    options: dict[str, OptionValue],
    least: int,
    most: int,
    option: tuple[str, str, str] | None,
) -> None:
    found = profile.price_span(model, options)
    assert found is not None
    assert (found.least, found.most) == (least, most)
    opened = found.open and (found.open.name, found.open.highest, found.open.lowest)
    assert opened == option
    assert profile.price(model, options) == most, "the highest is reserved"


def test_a_price_of_the_manifest_leaves_nothing_open() -> None:
    span = PriceSpan(
        least=Micros(1), most=Micros(2), open=OpenOption(name="a", highest="b", lowest="c")
    )
    fake: Any = SimpleNamespace(span=lambda *_: span, price=lambda *_: span.most)
    profile = Profile(name="x", base_url=None, key_variable=None, prices=fake, flat_price=PRICE)
    assert profile.price_span("m") == PriceSpan(least=PRICE, most=PRICE)


def money(ledger: Ledger) -> tuple[int, int]:
    """Charged and possible, by every view."""
    found, total = status(ledger.conn, "b"), costs(ledger.conn, [CostBy.RUN]).total
    assert (found.charged, found.maybe) == (total.charged, total.maybe)
    assert spent_in(ledger.conn, "2") == found.charged + found.maybe
    return found.charged, found.maybe


def test_the_cheapest_is_charged_and_the_rest_possible(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run, attempt = start(ledger, batch), AttemptId("a")
    terms = PriceTerms(least=LEAST)
    job = first(ledger, batch)
    assert reserve_attempt(ledger, run, job, attempt, provider="local", terms=terms) == Reserved()
    assert money(ledger) == (0, PRICE)
    record_response(ledger, attempt, OK, [(ImageRef(index=0), None)], response="x")
    assert money(ledger) == (LEAST, PRICE - LEAST)

    (one,) = sent(ledger, batch)
    assert (one.least, one.possible) == (LEAST, PRICE - LEAST)
    settled = Settled(attempt=one, amount=PRICE)
    settle_attempts(ledger.conn, replace(NOTHING, corrected=(settled,)))
    assert money(ledger) == (PRICE, 0), "the bill says which"


@pytest.mark.fault("XB3")
def test_unknown_price_is_not_reserved_with_a_budget(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    job, unknown = first(ledger, batch), PriceTerms(is_known=False)
    bounded = start_run(
        ledger, batch, estimate=Micros(0), max_cost=Micros(10**9), max_waste=Micros(0)
    )
    reached = reserve_attempt(ledger, bounded, job, AttemptId("a"), provider="local", terms=unknown)
    assert isinstance(reached, BudgetReached)
    assert not reached.price_known
    run = start(ledger, batch)
    ledger.conn.execute("INSERT INTO budgets VALUES ('day', 1000000000)")
    late = reserve_attempt(ledger, run, job, AttemptId("b"), provider="local", terms=unknown)
    assert isinstance(late, BudgetReached), "a budget that is set during the run"


@pytest.mark.fault("XB3")
@pytest.mark.parametrize("price", [0, 1, PRICE])
def test_without_an_allowance_nothing_is_rebought_at_any_price(price: int) -> None:
    assert not may_rebuy(0, Micros(price), Micros(0), Micros(0))
    assert may_rebuy(0, Micros(price), Micros(0), PRICE) == (price > 0)


def test_a_plan_warns_of_each_open_price_once(tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text(
        "provider: local\nmodel: nano-banana-pro\noptions: {n: 1}\n"
        "jobs: [a cup, a mug, {prompt: a jug, options: {resolution: 1K}}]\n",
        encoding="utf-8",
    )
    done = rig.batchgen("plan", path, cwd=tmp_path)
    warning = "resolution is not set: priced as 4K at $0.132; say 1K for $0.0737 (2 jobs)"
    assert done.stderr.splitlines() == [f"warning: nano-banana-pro: {warning}"]
    assert "$0.34" in done.stdout
    path.write_text("options: {n: 2}\njobs: [a cup]\n", encoding="utf-8")
    refused = rig.batchgen("plan", path, cwd=tmp_path, code=2)
    assert "options.n: count: says how many" in refused.stderr


def test_an_open_price_agrees_with_the_bill(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--fast-images") as endpoint:
        path = rig.manifest(
            tmp_path, endpoint.base_url, ["a", "b"], options="{}", extra="model: nano-banana-pro\n"
        )
        rig.batchgen("run", path, cwd=tmp_path)
        cost = rig.status(tmp_path)["cost"]
        assert (cost["charged"], cost["maybe"]) == ("0.147400", "0.116600")
        assert sum(row["micros"] for row in endpoint.bill()) == 147_400
        rig.judge(tmp_path, endpoint.bill(), finished=True)
        rig.batchgen("reconcile", "batch", "--settle", "0", cwd=tmp_path)
        cost = rig.status(tmp_path)["cost"]
        assert (cost["charged"], cost["maybe"]) == ("0.147400", "0.000000")
        (row, _) = rig.query(tmp_path / "batchgen.db", "SELECT * FROM attempts")
        assert (row["billed"], row["possible"], row["least"]) == (Billed.YES, 0, 73_700)
