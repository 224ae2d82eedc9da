"""A run is approved before anything is written: refused, declined or killed, it changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import BatchgenError, SettingsError, StoppedError
from batchgen.job import JobState
from batchgen.ledger.groups import Group
from batchgen.session import approval
from tests.support.desk import Desk

PRICE = 37_700
STATES = ("pending", "failed", "blocked", "uncertain", "paid", "retired")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Three jobs that nothing is known of."""
    return Desk(tmp_path, {key: f"image {key}" for key in "abc"})


def groups(desk: Desk, **overrides: object) -> dict[Group, int]:
    return {group: found.jobs for group, found in desk.plan(**overrides).groups.items()}


@pytest.mark.fault("XF1")
@pytest.mark.parametrize(
    ("way", "first"),
    [
        *((way, True) for way in ("budget", "declined", "ctrl-c", "space")),
        *((way, False) for way in ("budget", "declined", "ctrl-c", "space", "provider")),
    ],
)
def test_run_refused_or_declined_changes_nothing(
    way: str, first: bool, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not first:
        desk.run()
        desk.prompts |= {"a": "other", "d": "new"}
        del desk.prompts["c"]
    overrides: dict[str, Any] = {"refresh": "always"}
    match way:
        case "budget":
            overrides["max_cost"] = "0.01"
        case "declined":
            monkeypatch.setattr(approval, "_is_confirmed", lambda *_: False)
        case "ctrl-c":
            monkeypatch.setattr(approval, "_is_confirmed", _interrupted)
        case "space":
            monkeypatch.setattr(approval, "check_disk", _refused)
        case "provider":
            elsewhere(desk, monkeypatch)
    desk.write()
    before, files = desk.dump(), sorted(desk.directory.rglob("*"))
    with pytest.raises((BatchgenError, KeyboardInterrupt)):
        desk.run(**overrides)
    assert desk.dump() == before
    lock = {desk.directory / "batchgen.db.lock"}
    assert set(desk.directory.rglob("*")) - set(files) <= lock, (
        "only the lock must exist before a ledger does: it keeps a second run away"
    )


def elsewhere(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the manifest name another provider, whose models are not requested."""
    desk.provider = "{name: elsewhere, base_url: 'http://127.0.0.1:9/v1', price: 0.05}"
    monkeypatch.setattr(approval, "check_models", lambda *_: None)


def _interrupted(*_: object) -> bool:
    raise KeyboardInterrupt


def _refused(*_: object) -> None:
    raise SettingsError("no space")


@pytest.mark.fault("XF1")
def test_plain_run_after_refused_refresh_sends_nothing(desk: Desk) -> None:
    desk.run()
    with pytest.raises(StoppedError, match="budget"):
        desk.run(refresh="always", max_cost="0.01")
    assert groups(desk) == {Group.UNCHANGED: 3}
    assert desk.run().requested == []


def in_state(desk: Desk, state: str) -> None:
    """Give the first job an image, then another prompt, and leave it in that state."""
    desk.run()
    word = {"failed": "refused", "blocked": "blocked", "uncertain": "lost"}.get(state, "other")
    desk.prompts["a"] = f"{word} thing"
    if state == "retired":
        del desk.prompts["a"]
    if state == "pending":
        desk.begin(only="b")
    else:
        desk.run(downloads=state != "paid", max_waste="0")


@pytest.mark.fault("XF1")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("resumed", [False, True], ids=["run", "resume"])
def test_prompt_changed_back_is_done_free(state: str, resumed: bool, desk: Desk) -> None:
    in_state(desk, state)
    if state != "retired":
        assert desk.states()["a"] == state
    desk.prompts["a"] = "image a"
    assert desk.why("a").group is Group.UNCHANGED
    assert desk.plan().estimate.requests == 0
    assert desk.run().billed == 0
    assert desk.states() == dict.fromkeys("abc", "done")
    if resumed:
        assert desk.resume().billed == 0


@pytest.mark.fault("XB2")
@pytest.mark.parametrize("enrolled", [False, True], ids=["new change", "change enrolled before"])
def test_changed_paid_job_is_quoted_and_delivered(enrolled: bool, desk: Desk) -> None:
    desk.run(downloads=False)
    assert desk.states() == dict.fromkeys("abc", "paid")
    assert groups(desk) == {Group.PAID: 3}
    desk.prompts["a"] = "other"
    if enrolled:
        desk.run(only="b", downloads=False)
        assert desk.states()["a"] == "paid"
    proposal = desk.plan()
    assert proposal.groups[Group.PAID_CHANGED].cost == proposal.estimate.cost == PRICE
    assert desk.why("a").group is Group.PAID_CHANGED
    before = desk.dump()
    with pytest.raises(StoppedError, match="budget"):
        desk.run(max_cost="0.01")
    assert desk.dump() == before
    assert desk.run().requested == ["a"]
    assert desk.states() == dict.fromkeys("abc", "done")


@pytest.mark.fault("XB2")
def test_paid_image_of_another_provider_is_not_replaced(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.run(downloads=False)
    elsewhere(desk, monkeypatch)
    before = desk.dump()
    with pytest.raises(SettingsError, match="would replace 3 images that 'local' made"):
        desk.begin()
    assert desk.dump() == before
    assert desk.begin(overwrite=True).estimate == 3 * 50_000


@pytest.mark.fault("XF6")
@pytest.mark.parametrize("waste", ["0", "100%"])
def test_plan_foresees_what_recovery_does(waste: str, desk: Desk) -> None:
    desk.run(kill="sent:2")
    found = groups(desk, max_waste=waste)
    again = waste != "0"
    assert found == {
        Group.IN_FLIGHT if again else Group.HELD: 1,
        Group.UNCHANGED: 1,
        Group.PENDING: 1,
    }
    why = desk.why("b", max_waste=waste)
    assert why.group is (Group.IN_FLIGHT if again else Group.HELD)
    assert why.attempt is not None
    assert (why.attempt.price, why.attempt.billed) == (PRICE, "maybe")
    assert desk.plan(max_waste=waste).estimate.requests == 1 + again
    assert desk.run(max_waste=waste).requested == (["b", "c"] if again else ["c"])
    assert desk.states()["b"] == ("done" if again else "uncertain")


@pytest.mark.fault("XF6")
def test_whole_response_in_spool_needs_no_purchase(desk: Desk) -> None:
    desk.run(kill="spooled:2")
    before = desk.dump()
    assert groups(desk) == {Group.PAID: 1, Group.UNCHANGED: 1, Group.PENDING: 1}
    assert desk.dump() == before
    assert desk.run().requested == ["c"]
    assert desk.states() == dict.fromkeys("abc", "done")


@pytest.mark.fault("XF6")
def test_spooled_response_and_prompt_changed_back(desk: Desk) -> None:
    desk.run()
    desk.prompts["a"] = "other"
    desk.run(kill="spooled")
    desk.prompts["a"] = "image a"
    assert groups(desk) == {Group.UNCHANGED: 3}
    desk.run()
    assert desk.states() == dict.fromkeys("abc", "done")
    assert desk.run().requested == []


@pytest.mark.fault("XC1")
def test_refresh_works_while_other_jobs_are_pending(desk: Desk) -> None:
    desk.run(only="a")
    assert desk.states() == {"a": "done", "b": "pending", "c": "pending"}
    assert groups(desk, refresh="always", only="a") == {Group.STALE: 1}
    desk.renewed = {"a"}
    assert desk.run(refresh="always", only="a").requested == ["a"]


@pytest.mark.fault("XC1")
@pytest.mark.parametrize("how", ["limit", "kill"])
def test_interrupted_refresh_continues_and_regenerates_once(how: str, desk: Desk) -> None:
    desk.run()
    desk.renewed = set("abc")
    if how == "limit":
        first = desk.run(refresh="always", limit=2)
    else:
        first = desk.run(refresh="always", kill="saved:2")
    assert first.requested == ["a", "b"]
    assert groups(desk, refresh="always") == {Group.STALE: 1, Group.UNCHANGED: 2}
    assert desk.run(refresh="always").requested == ["c"]
    desk.renewed = set("abc")
    assert desk.run(refresh="always").requested == ["a", "b", "c"], "the next refresh"


@pytest.mark.fault("XC1")
def test_plain_run_continues_an_interrupted_refresh(desk: Desk) -> None:
    desk.run()
    desk.renewed = set("abc")
    desk.run(refresh="always", limit=1)
    assert groups(desk) == {Group.STALE: 2, Group.UNCHANGED: 1}
    assert desk.resume().requested == ["b", "c"]


@pytest.mark.fault("XC1")
def test_refresh_of_one_job_within_an_interrupted_one(desk: Desk) -> None:
    desk.run()
    desk.renewed = set("abc")
    desk.run(refresh="always", limit=1)
    desk.renewed.add("a")
    assert desk.run(refresh="always", only="a").requested == ["a"]
    assert desk.run(refresh="always").requested == ["b", "c"]


@pytest.mark.parametrize("resumed", [False, True], ids=["run", "resume"])
def test_free_transient_failure_is_tried_by_next_run(resumed: bool, desk: Desk) -> None:
    desk.prompts = {"a": "server_error", "b": "refused", "c": "blocked"}
    sent = desk.run()
    assert (sorted(sent.requested), sent.billed) == (["a", "b", "c"], 0)
    assert desk.states() == {"a": "failed", "b": "failed", "c": "blocked"}
    assert groups(desk) == {Group.RETRIED: 1, Group.FAILED: 1, Group.BLOCKED: 1}
    assert desk.why("a").group is Group.RETRIED
    assert (desk.resume() if resumed else desk.run()).requested == ["a"]


def test_charged_failure_is_left_alone(desk: Desk) -> None:
    desk.prompts = {"a": "lost thing"}
    desk.run(max_waste="0")
    assert desk.states() == {"a": "uncertain"}
    assert groups(desk) == {Group.UNCERTAIN: 1}
    assert desk.run().requested == []
    desk.retry(JobState.UNCERTAIN)
    assert groups(desk) == {Group.PENDING: 1}


@pytest.mark.fault("XF1")
def test_budget_is_compared_with_the_limited_estimate(desk: Desk) -> None:
    found = desk.plan(limit=1).estimate
    assert (found.requests, found.due, found.cost) == (1, 3, PRICE)
    assert desk.run(limit=1, max_cost="0.04").requested == ["a"]
