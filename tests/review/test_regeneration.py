"""What the next plan and run make of decisions."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.decisions import (
    ImageChangedError,
    NewDecision,
    NothingToUndoError,
    decision_counts,
    record_decisions,
    undo_decisions,
)
from batchgen.ledger.newest_decisions import Decision
from tests.review.decide import REVIEWER, decide, saved
from tests.support import rig

KEEP = "output: {keep_previous: 2}\n"
NOTHING = "nothing to send, nothing to pay"


def write(served: rig.Endpoint, directory: Path, *prompts: str, extra: str = KEEP) -> Path:
    return rig.manifest(directory, served.base_url, prompts, extra=extra)


def make(served: rig.Endpoint, directory: Path, *prompts: str, extra: str = KEEP) -> Path:
    path = write(served, directory, *prompts, extra=extra)
    rig.batchgen("run", path, cwd=directory)
    return path


def plan(directory: Path, *flags: str) -> str:
    return rig.batchgen("plan", "batch.yaml", *flags, cwd=directory).stdout


def run(directory: Path, *flags: str, code: int = 0) -> None:
    rig.batchgen("run", "batch.yaml", "--yes", *flags, cwd=directory, code=code)


def image(directory: Path, number: int) -> bytes:
    return (directory / "out" / "batch" / f"job-{number:03d}.png").read_bytes()


def new_on(bill: list[dict[str, Any]], before: int) -> list[dict[str, Any]]:
    return bill[before:]


def test_check_03_run_regenerates_exactly_the_rejected(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    make(served, tmp_path, *(f"mug {n}" for n in range(50)))
    before = len(served.bill())
    images = [image(tmp_path, n) for n in range(50)]
    rejected = range(3, 45, 6)
    decide(tmp_path, Decision.REJECT, *(f"job-{n:03d}" for n in rejected))
    planned = plan(tmp_path)
    assert "7  rejected in review, to be regenerated" in planned
    assert "$0.26" in planned
    found = json.loads(plan(tmp_path, "--json"))["groups"]
    assert found["rejected"] == {"jobs": 7, "cost": "0.263900"}
    assert found["unchanged"]["jobs"] == 43

    run(tmp_path)
    bill = new_on(served.bill(), before)
    assert len(bill) == 7
    (sums,) = rig.query(tmp_path / "batchgen.db", "SELECT sum(cost) AS n FROM attempts")
    assert sums["n"] == 57 * rig.PRICE
    assert sum(row["micros"] for row in bill) == 7 * rig.PRICE
    for number in range(50):
        assert (image(tmp_path, number) == images[number]) == (number not in rejected)
    kept = {(tmp_path / "out/batch/.previous" / f"job-{n:03d}.png~1") for n in rejected}
    assert {path.read_bytes() for path in kept} == {images[n] for n in rejected}
    assert NOTHING in plan(tmp_path), "the new images are undecided"


def test_check_04_amended_prompt_is_sent_once(served: rig.Endpoint, tmp_path: Path) -> None:
    make(served, tmp_path, "a mug", "a bag")
    before = len(served.bill())
    amended = "a mug, no shadow"
    decide(tmp_path, Decision.REDO, "job-000", note="too dark", prompt=amended)
    done = rig.batchgen("plan", "batch.yaml", cwd=tmp_path)
    assert "1  redo requested with another prompt" in done.stdout
    assert "1 job has a prompt from review" in done.stderr
    why = plan(tmp_path, "--why", "job-000")
    assert "amended in review by anna on" in why
    assert "too dark" in why
    assert "{+, no shadow+}" in why

    run(tmp_path)
    assert [row["prompt"] for row in new_on(served.bill(), before)] == [amended]
    assert NOTHING in plan(tmp_path)
    run(tmp_path)
    write(served, tmp_path, amended, "a bag")
    assert NOTHING in plan(tmp_path)
    run(tmp_path)
    assert len(served.bill()) == before + 1

    write(served, tmp_path, "a cup", "a bag")
    assert "1  changed since their image was made" in plan(tmp_path), "the manifest is newer"


def test_check_05_replaced_image_is_undecided(served: rig.Endpoint, tmp_path: Path) -> None:
    make(served, tmp_path, "a", "b")
    old, seen = saved(tmp_path, "job-000")
    decide(tmp_path, Decision.REJECT, "job-000")
    run(tmp_path)
    new, sha256 = saved(tmp_path, "job-000")
    assert (new, sha256) != (old, seen)
    with closing(open_for_writing(tmp_path / "batchgen.db")) as conn:
        batch = find_batch(conn, "batch").id
        counts = decision_counts(conn, batch)
        assert (counts.accepted, counts.rejected, counts.undecided) == (0, 0, 2)
        for stale in (old, new):
            wrong = NewDecision(image=stale, sha256=seen, decision=Decision.ACCEPT)
            with pytest.raises(ImageChangedError):
                record_decisions(conn, batch, [wrong], REVIEWER)


def test_undo_passes_over_replaced_images(served: rig.Endpoint, tmp_path: Path) -> None:
    make(served, tmp_path, "a", "b", "c")
    decide(tmp_path, Decision.ACCEPT, "job-002")
    decide(tmp_path, Decision.REJECT, "job-000", "job-001")
    kept, _ = saved(tmp_path, "job-001")
    first, _ = saved(tmp_path, "job-002")
    run(tmp_path, "--only", "job-000")
    with closing(open_for_writing(tmp_path / "batchgen.db")) as conn:
        batch = find_batch(conn, "batch").id
        assert undo_decisions(conn, batch, REVIEWER, action="u1") == [kept]
        assert undo_decisions(conn, batch, REVIEWER, action="u2") == [first]
        with pytest.raises(NothingToUndoError):
            undo_decisions(conn, batch, REVIEWER, action="u3")
        counts = decision_counts(conn, batch)
    assert (counts.accepted, counts.rejected, counts.undecided) == (0, 0, 3)


def test_rejection_is_taken_back(served: rig.Endpoint, tmp_path: Path) -> None:
    make(served, tmp_path, "a", "b")
    decide(tmp_path, Decision.REJECT, "job-000", "job-001")
    assert NOTHING in plan(tmp_path, "--keep-rejected")
    assert "1  rejected in review" in plan(tmp_path, "--only", "job-000")
    decide(tmp_path, Decision.CLEAR, "job-000")
    decide(tmp_path, Decision.ACCEPT, "job-001")
    assert NOTHING in plan(tmp_path)


def test_rejection_is_taken_back_after_its_enrollment(served: rig.Endpoint, tmp_path: Path) -> None:
    """A run that is stopped before it sends leaves pending jobs; they must not be bought then."""
    make(served, tmp_path, "a", "b")
    before = len(served.bill())
    decide(tmp_path, Decision.REJECT, "job-000", "job-001")
    run(tmp_path, "--max-cost", "0.04", code=3)
    assert len(served.bill()) == before + 1
    (left,) = rig.query(tmp_path / "batchgen.db", "SELECT key FROM jobs WHERE state = 'pending'")
    assert "1  rejected in review" in plan(tmp_path)
    decide(tmp_path, Decision.ACCEPT, left["key"])
    assert NOTHING in plan(tmp_path)
    run(tmp_path)
    assert len(served.bill()) == before + 1
    assert rig.status(tmp_path)["jobs"]["done"] == 2


def test_rejected_jobs_that_share_an_image_cost_one(served: rig.Endpoint, tmp_path: Path) -> None:
    make(served, tmp_path, "a", "a", extra=f"share: true\n{KEEP}")
    before = len(served.bill())
    decide(tmp_path, Decision.REJECT, "job-000", "job-001")
    run(tmp_path)
    assert len(served.bill()) == before + 1
    assert saved(tmp_path, "job-000")[1] == saved(tmp_path, "job-001")[1]
    decide(tmp_path, Decision.REJECT, "job-000")
    run(tmp_path)
    assert len(served.bill()) == before + 2
    assert saved(tmp_path, "job-000")[1] != saved(tmp_path, "job-001")[1]


def test_measured_acceptance_replaces_the_default(served: rig.Endpoint, tmp_path: Path) -> None:
    make(served, tmp_path, *(f"mug {n}" for n in range(60)))
    write(served, tmp_path, *(f"cup {n}" for n in range(60)))
    assert "if 70 % are accepted" in plan(tmp_path, "--again", "0%")
    decide(tmp_path, Decision.ACCEPT, *(f"job-{n:03d}" for n in range(48)))
    decide(tmp_path, Decision.REJECT, *(f"job-{n:03d}" for n in range(48, 60)))
    assert "if 80.0 % are accepted" in plan(tmp_path, "--again", "0%")


def test_decisions_are_append_only(served: rig.Endpoint, tmp_path: Path) -> None:
    make(served, tmp_path, "a")
    decide(tmp_path, Decision.REJECT, "job-000")
    with closing(sqlite3.connect(tmp_path / "batchgen.db")) as conn:
        for statement in ("UPDATE decisions SET note = ''", "DELETE FROM decisions"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                conn.execute(statement)
