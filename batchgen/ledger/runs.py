"""Start, heartbeat and end of a run. Each function is one step in a transaction of its caller."""

from __future__ import annotations

from dataclasses import dataclass

from batchgen.job import BatchId, RunId
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.owners import Claim, open_runs, refuse_while_owned, take_over_runs
from batchgen.money import Micros
from batchgen.system.process_owner import Owner


class RunTakenOver(Exception):
    """Another run took over what this one left open; this one must not write any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousEnd:
    """How the runs before one ended."""

    was_killed: bool
    """Whether this run took over one that recorded no end."""
    stopped: str | None
    """Why the newest of them stopped; None if nothing stopped it."""


def start_run(
    ledger: Ledger,
    batch: BatchId,
    *,
    estimate: Micros,
    max_cost: Micros | None,
    max_waste: Micros,
    claim: Claim | None = None,
) -> RunId:
    """Insert a run, and take over what killed runs of the batch left open.

    Raises BatchLockedError if the owner of another run may be alive.
    """
    if claim is not None:
        runs = open_runs(ledger.conn, _batch_name(ledger, batch))
        refuse_while_owned(runs, claim.here, ledger.now(), take_over=claim.take_over)
    now = ledger.timestamp()
    owner, spool = (None, None) if claim is None else (claim.here.me.as_json(), claim.spool)
    cursor = ledger.conn.execute(
        "INSERT INTO runs (batch_id, started_at, estimate, max_cost, max_waste, owner,"
        " heartbeat_at, spool) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (batch, now, estimate, max_cost, max_waste, owner, now, spool),
    )
    run = RunId(int(cursor.lastrowid or 0))
    take_over_runs(ledger.conn, batch, run)
    ledger.current_run = run
    return run


def continue_run(ledger: Ledger, run: RunId) -> None:
    """Keep the heartbeat of a run that another connection of this process started."""
    ledger.current_run = run
    record_heartbeat(ledger)


def record_heartbeat(ledger: Ledger) -> None:
    """Record that the run of this process is alive; without a run, do nothing.

    Raises RunTakenOver.
    """
    run = ledger.current_run
    if run is None:
        return
    updated = ledger.conn.execute(
        "UPDATE runs SET heartbeat_at = ? WHERE id = ? AND taken_by IS NULL",
        (ledger.timestamp(), run),
    )
    if updated.rowcount != 1:
        raise taken_over_error(ledger, run)


def previous_end(ledger: Ledger, run: RunId) -> PreviousEnd:
    """Return how earlier runs of the batch of a run ended."""
    taken, stopped = ledger.conn.execute(
        "SELECT EXISTS (SELECT 1 FROM runs WHERE taken_by = own.id),"
        " (SELECT stopped FROM runs WHERE batch_id = own.batch_id AND id < own.id"
        " ORDER BY id DESC LIMIT 1) FROM runs AS own WHERE id = ?",
        (run,),
    ).fetchone()
    return PreviousEnd(was_killed=bool(taken), stopped=stopped)


def end_run(ledger: Ledger, run: RunId, *, stopped: str | None, exit_code: int) -> None:
    """Record how the run ended; ``stopped`` is None for a run that nothing stopped."""
    ledger.current_run = None
    ledger.conn.execute(
        "UPDATE runs SET ended_at = ?, stopped = ?, exit_code = ? WHERE id = ?",
        (ledger.timestamp(), stopped, exit_code, run),
    )


def end_open_run(ledger: Ledger, run: RunId, *, stopped: str | None, exit_code: int) -> None:
    """Record how a run ended that failed before its first request; an ended run stays as it is."""
    ledger.conn.execute(
        "UPDATE runs SET ended_at = ?, stopped = ?, exit_code = ?"
        " WHERE id = ? AND ended_at IS NULL",
        (ledger.timestamp(), stopped, exit_code, run),
    )


def taken_over_error(ledger: Ledger, run: RunId) -> RunTakenOver:
    """Return the error that names the run which took over this one."""
    row = ledger.conn.execute(
        "SELECT taken_by, (SELECT owner FROM runs AS next WHERE next.id = runs.taken_by)"
        " AS owner FROM runs WHERE id = ?",
        (run,),
    ).fetchone()
    by = f" ({Owner.from_json(row['owner'])})" if row["owner"] else ""
    return RunTakenOver(f"run {run} was taken over by run {row['taken_by']}{by}")


def _batch_name(ledger: Ledger, batch: BatchId) -> str:
    row = ledger.conn.execute("SELECT name FROM batches WHERE id = ?", (batch,)).fetchone()
    return str(row["name"])
