"""The command that a run, a report and a notification propose."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchgen.job import Billed, JobState
from batchgen.ledger.batch_status import BatchStatus, ReasonCount
from batchgen.ledger.uncertain import UncertainSums
from batchgen.money import ZERO, Micros
from batchgen.report.status import next_step
from batchgen.system.shell_command import name_ledger

HELD = UncertainSums(jobs=0, acknowledged=0, charged=ZERO, maybe=ZERO, again=ZERO)
STATUS = BatchStatus(
    batch="b",
    provider="p",
    jobs=dict.fromkeys(JobState, 0),
    retired=0,
    images_saved=0,
    attempts=dict.fromkeys(Billed, 0),
    in_flight=0,
    estimated=ZERO,
    charged=ZERO,
    maybe=ZERO,
    reasons=(),
    waiting=None,
    last_run=None,
    held=HELD,
)
ROWS = ReasonCount(
    state=JobState.FAILED, code="row", jobs=2, example_key="k", example="row: no title"
)
CLOSED = replace(HELD, jobs=1, acknowledged=1, again=Micros(37_700))


def status(
    *, refused: int = 0, stuck: int = 0, held: UncertainSums = HELD, **jobs: int
) -> BatchStatus:
    states = STATUS.jobs | {JobState(state): count for state, count in jobs.items()}
    return replace(STATUS, jobs=states, refused=refused, stuck=stuck, held=held)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (status(), "batchgen status b"),
        (status(pending=3), "batchgen resume b"),
        (status(pending=3, failed=1), "batchgen resume b"),
        (status(failed=2, refused=1), "batchgen retry b"),
        (status(failed=2, refused=2), "batchgen export b --failed"),
        (status(blocked=1), "batchgen export b --failed"),
        (status(failed=2, blocked=1), "batchgen retry b"),
        (replace(status(failed=2), reasons=(ROWS,)), "batchgen report b"),
        (replace(status(failed=3), reasons=(ROWS,)), "batchgen retry b"),
        (replace(status(failed=3, refused=1), reasons=(ROWS,)), "batchgen export b --failed"),
        (status(uncertain=1), "batchgen retry b --uncertain"),
        (status(uncertain=12, pending=1_519), "batchgen resume b"),
        (status(pending=2, stuck=1, blocked=1), "batchgen resume b"),
        (status(pending=2, stuck=2, blocked=1), "batchgen report b"),
        (status(pending=2, stuck=2, failed=1, refused=1), "batchgen report b"),
        (status(pending=2, stuck=2, failed=1), "batchgen retry b"),
        (status(pending=1, stuck=1, uncertain=1, held=CLOSED), "batchgen retry b --uncertain"),
    ],
)
def test_next_step_proposes_what_helps(found: BatchStatus, expected: str) -> None:
    step = next_step(found, has_log=False)
    assert step.partition("   #")[0] == expected


def test_next_step_reads_the_billing_log_first() -> None:
    found = replace(status(uncertain=1), attempts=STATUS.attempts | {Billed.MAYBE: 1})
    name_ledger("x.db")
    assert next_step(found, has_log=True).startswith("batchgen reconcile b --db x.db   #")
    assert next_step(found, has_log=False).startswith("batchgen retry b --uncertain --db x.db")


def test_next_step_quotes_the_name_for_a_shell() -> None:
    found = replace(status(pending=1), batch="my $(mugs)")
    assert next_step(found, has_log=True) == "batchgen resume 'my $(mugs)'"
