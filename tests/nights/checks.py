"""Checks after each step: the ledger's money against the bill, and each report against it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from batchgen.errors import ExitCode
from tests.nights.batch import Batch, Disagreement
from tests.support import rig

Check = Callable[[Batch], None]

JOINED: Final = "FROM images JOIN jobs ON jobs.id = job_id"


def money(batch: Batch) -> None:
    """Compare attempts and sums with the endpoint's bill."""
    try:
        # A late response can be saved after its job was rebought on request.
        rig.judge_money(batch.db, batch.served.bill(), was_rebought=True)
    except AssertionError as exc:
        raise Disagreement(f"money: {str(exc).splitlines()[0]}") from exc


def tallies(batch: Batch) -> None:
    """Compare the counts that the ledger keeps with its rows."""
    with contextlib.closing(sqlite3.connect(batch.db)) as conn:
        kept, counted = rig.tallies(conn), rig.counted(conn)
    _agree("tallies", kept=kept, counted=counted)


def sums(batch: Batch) -> None:
    """Compare charged and possible sums of `status`, `cost` and `export`."""
    status, cost = batch.read("status", "batch"), batch.read("cost", "batch")["total"]
    exported = batch.read_lines("export", "batch", "--what", "attempts")
    charged = batch.count("SELECT total(cost) FROM attempts")
    possible = batch.count(
        "SELECT total(CASE billed WHEN 'maybe' THEN price ELSE possible END) FROM attempts"
    )
    _agree(
        "charged",
        ledger=charged,
        status=_micros(status["cost"]["charged"]),
        cost=_micros(cost["charged"]),
        export=sum(_micros(row["cost"]) for row in exported),
    )
    _agree(
        "possible",
        ledger=possible,
        status=_micros(status["cost"]["maybe"]),
        cost=_micros(cost["maybe"]),
    )
    _agree("attempts", status=status["attempts"]["total"], export=len(exported))


def counts(batch: Batch) -> None:
    """Compare jobs and images of `status`, `export` and `report`."""
    status, report = batch.read("status", "batch"), batch.read("report", "batch")
    jobs = Counter(row["state"] for row in batch.read_lines("export", "batch"))
    shown = {state: count for state, count in status["jobs"].items() if count}
    if acknowledged := shown.pop("acknowledged", 0):  # the ledger's state is the same
        shown["uncertain"] = shown.get("uncertain", 0) + acknowledged
    _agree("jobs", export=dict(jobs), status=shown)
    _agree("jobs", report=report["jobs"], status=status["jobs"])
    images = batch.read_lines("export", "batch", "--what", "images")
    _agree("saved images", status=status["images"]["saved"], export=len(images))
    waiting = f"SELECT count(*) {JOINED} WHERE images.state = 'saved' AND unpublished = 1"
    _agree(
        "unpublished images",
        ledger=batch.count(f"{waiting} AND retired = 0"),
        status=sum(status["images"]["unpublished"].values()),
    )
    _agree(
        "unpublished images",
        ledger=batch.count(waiting),
        export=sum(row["state"] == "unpublished" for row in images),
    )
    _last_run(batch, report)


def _last_run(batch: Batch, report: Mapping[str, Any]) -> None:
    """Compare the money and the images of the run that `report` shows."""
    if not (run := report["run"]):
        return
    made = (
        "SELECT count(*) FROM images JOIN attempts ON attempts.id = attempt_id"
        " WHERE run_id = ? AND images.state IN ('saved', 'replaced') AND position = 0"
    )
    _agree(
        "charged in a run",
        ledger=batch.count("SELECT total(cost) FROM attempts WHERE run_id = ?", run["id"]),
        report=_micros(run["charged"]),
    )
    _agree(
        "images of a run", ledger=batch.count(made, run["id"]), report=sum(report["made"].values())
    )


def failed_manifest(batch: Batch) -> None:
    """`export --failed` prints nothing, or a manifest that can be planned."""
    code, text = batch.lookup("export", "batch", "--failed")
    if code != ExitCode.DONE:
        raise Disagreement(f"export --failed ended with {code}: {text}")
    if not text.strip():
        return
    (batch.directory / "failed.yaml").write_text(text, encoding="utf-8")
    for command in (("check", "failed.yaml"), ("plan", "failed.yaml", "--adopt")):
        code, said = batch.lookup(*command)
        if code != ExitCode.DONE:
            raise Disagreement(f"{' '.join(command)} ended with {code}: {said}\n{text}")


def _micros(dollars: str | float) -> int:
    return round(float(dollars) * 1e6)


def _agree(what: str, **found: object) -> None:
    first, *others = found.values()
    if any(other != first for other in others):
        shown = ", ".join(f"{source}: {value}" for source, value in found.items())
        raise Disagreement(f"{what} differ: {shown}")


CHECKS: Final[tuple[Check, ...]] = (money, tallies, sums, counts, failed_manifest)
