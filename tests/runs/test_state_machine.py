"""Any order of plans, refusals, runs, edits and kills: the next run does what a plan says."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from batchgen.errors import StoppedError
from batchgen.job import JobState
from batchgen.ledger.groups import Group
from batchgen.session import approval
from batchgen.session.proposal import Proposal
from tests.support.desk import POINTS, Desk, Sent

KEYS = st.sampled_from("abcd")
PROMPTS = st.sampled_from(
    ("red", "blue", "server_error x", "refused x", "blocked x", "lost x", "lost y")
)
ONLY = st.sampled_from((None, None, "a", "[ab]"))
REFRESH = st.sampled_from((None, None, "always"))
LIMIT = st.sampled_from((None, None, 0, 1, 2))
WASTE = st.sampled_from(("0", "40%", "100%"))
_IN_MEMORY = Path("/dev/shm")
_DIRECTORY = str(_IN_MEMORY) if os.access(_IN_MEMORY, os.W_OK) else None
"""Thousands of ledgers are synced to nothing there."""


class Approval(RuleBasedStateMachine):
    """One batch of up to four jobs."""

    def __init__(self) -> None:
        super().__init__()
        directory = Path(tempfile.mkdtemp(prefix="batchgen-", dir=_DIRECTORY))
        self.desk = Desk(directory, dict.fromkeys("abc", "red"))

    def teardown(self) -> None:
        shutil.rmtree(self.desk.directory)

    @rule(key=KEYS, prompt=PROMPTS)
    def edit_or_add(self, key: str, prompt: str) -> None:
        self.desk.prompts[key] = prompt

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        if len(self.desk.prompts) > 1:
            self.desk.prompts.pop(key, None)

    @rule(only=ONLY, refresh=REFRESH, waste=WASTE)
    def plan(self, only: str | None, refresh: str | None, waste: str) -> None:
        before = self.desk.dump()
        proposal, whys = self.desk.plans(only=only, refresh=refresh, max_waste=waste)
        assert self.desk.dump() == before
        assert sum(found.jobs for group, found in proposal.groups.items() if group.is_sent) == (
            proposal.estimate.requests
        )
        if only is None:
            shown = Counter(why.group for why in whys.values())
            counted = {group: found.jobs for group, found in proposal.groups.items()}
            counted.pop(Group.RETIRED, None)
            assert shown == counted

    @rule(only=ONLY, refresh=REFRESH)
    def refuse(self, only: str | None, refresh: str | None) -> None:
        proposal = self.desk.plan(only=only, refresh=refresh)
        if not proposal.estimate.cost:
            return
        before = self.desk.dump()
        with pytest.raises(StoppedError, match="budget"):
            self.desk.run(only=only, refresh=refresh, max_cost="0.00001")
        assert self.desk.dump() == before

    @rule(only=ONLY, refresh=REFRESH)
    def decline(self, only: str | None, refresh: str | None) -> None:
        if not self.desk.plan(only=only, refresh=refresh).to_do:
            return
        before = self.desk.dump()
        with (
            patch.object(approval, "_is_confirmed", lambda *_: False),
            pytest.raises(StoppedError, match=r"declined|their keys had changed"),
        ):
            self.desk.run(only=only, refresh=refresh)
        assert self.desk.dump() == before

    @rule(only=ONLY, refresh=REFRESH, limit=LIMIT, waste=WASTE)
    def run(self, only: str | None, refresh: str | None, limit: int | None, waste: str) -> None:
        said = self._expect(only=only, refresh=refresh, limit=limit, waste=waste)
        sent = self._run(said, only=only, refresh=refresh, limit=limit, max_waste=waste)
        assert len(sent.requested) == said.estimate.requests
        assert (sent.start.estimate, sent.start.max_waste) == (said.estimate.cost, said.max_waste)
        prompts = [self.desk.prompts[key].partition(" ")[0] for key in sent.requested]
        billed = [word for word in prompts if word in ("red", "blue", "lost")]
        once = len(billed) * 37_700
        assert once <= sent.billed <= once + said.max_waste

    @rule(
        point=st.sampled_from(POINTS),
        times=st.integers(1, 3),
        only=ONLY,
        refresh=REFRESH,
        waste=WASTE,
    )
    def kill(
        self, point: str, times: int, only: str | None, refresh: str | None, waste: str
    ) -> None:
        said = self._expect(only=only, refresh=refresh, limit=None, waste=waste)
        kill = f"{point}:{times}"
        sent = self._run(said, kill=kill, only=only, refresh=refresh, max_waste=waste)
        assert len(sent.requested) <= said.estimate.requests

    @rule(waste=WASTE)
    def run_without_downloads(self, waste: str) -> None:
        said = self._expect(only=None, refresh=None, limit=None, waste=waste)
        sent = self._run(said, downloads=False, max_waste=waste)
        late = said.groups.get(Group.PAID_CHANGED)
        assert len(sent.requested) == said.estimate.requests - (late.jobs if late else 0)

    @rule(waste=WASTE)
    def resume(self, waste: str) -> None:
        if self.desk.db.exists():
            self.desk.resume(max_waste=waste)

    @rule(states=st.sets(st.sampled_from((JobState.FAILED, JobState.BLOCKED, JobState.UNCERTAIN))))
    def retry(self, states: set[JobState]) -> None:
        if self.desk.db.exists():
            self.desk.retry(*states)

    def _expect(
        self, *, only: str | None, refresh: str | None, limit: int | None, waste: str
    ) -> Proposal:
        """Read what a run would do; a refresh that it begins may buy images again."""
        said, whys = self.desk.plans(only=only, refresh=refresh, limit=limit, max_waste=waste)
        if refresh is not None:
            self.desk.renewed |= {key for key, why in whys.items() if why.group is Group.STALE}
        return said

    def _run(self, said: Proposal, **flags: Any) -> Sent:
        """Run; where most keys have changed, that is refused for free and then confirmed."""
        try:
            approval.check_keys("batch", said.groups)
        except StoppedError:
            before = self.desk.dump()
            with pytest.raises(StoppedError, match="their keys had changed"):
                self.desk.run(**flags)
            assert self.desk.dump() == before
            flags["yes"] = True
        return self.desk.run(**flags)


def test_state_machine_confirms_changed_keys() -> None:
    """A sequence that the sweep found: two of three jobs are gone, and one is new."""
    state = Approval()
    state.run_without_downloads(waste="0")
    for key in "ab":
        state.remove(key=key)
    state.edit_or_add(key="d", prompt="blue")
    state.decline(only=None, refresh=None)
    state.run_without_downloads(waste="100%")
    state.teardown()


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@pytest.mark.fault("XF1", "XF6", "XB2", "XC1")
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    "sequences", [150, pytest.param(10_000, marks=pytest.mark.sweep)], ids=["sample", "sweep"]
)
def test_state_machine_runs_what_the_plan_said(sequences: int) -> None:
    run_state_machine_as_test(
        Approval,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=12,
            deadline=None,
            database=None,
            suppress_health_check=SLOW,
            print_blob=True,
        ),
    )
