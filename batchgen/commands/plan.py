"""`batchgen plan`: show what a run would do and cost."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from batchgen.console.progress import write_line, write_text
from batchgen.errors import ExitCode, Fault, SettingsError
from batchgen.ledger.batches import batch_id
from batchgen.ledger.database import in_memory, open_for_reading
from batchgen.ledger.reference_urls import NeededUrls
from batchgen.ledger.selection import EVERYTHING, Selection
from batchgen.ledger.staging import Staging
from batchgen.ledger.staging_rows import unpriced_models
from batchgen.ledger.unpublished import ALL_PUBLISHED, unpublished_counts
from batchgen.report.costs import unpriced_text
from batchgen.report.plan_summary import plan_record, plan_summary_text
from batchgen.report.plan_text import why_record, why_text
from batchgen.session.fresh_prices import with_kept_prices
from batchgen.session.overrides import Overrides
from batchgen.session.prepare import Prepared, RunSpec, belongs, prepare
from batchgen.session.proposal import PlanSummary, propose
from batchgen.session.stage_plan import PlanObserver, stage
from batchgen.session.unpriced import OpenPrices, refuse_unpriced, unpriced_jobs


def plan(manifests: list[Path], overrides: Overrides, *, as_json: bool) -> ExitCode:
    """Show what a run would do; needs no key and no network, and writes nothing."""
    directory = manifests[0].absolute().parent
    for path in manifests:
        prepared = prepare(path, overrides.db, ledger_directory=directory)
        _plan_one(RunSpec.of(prepared, overrides), as_json=as_json)
    return ExitCode.DONE


def _plan_one(spec: RunSpec, *, as_json: bool) -> None:
    prepared = spec.prepared
    with closing(ledger_of(prepared)) as conn:
        profile = with_kept_prices(prepared.profile, conn)
        prepared = replace(prepared, profile=profile)
        prepared = belongs(conn, prepared, adopt=spec.overrides.adopt)
        spec = replace(spec, prepared=prepared)
        urls = NeededUrls(conn, prepared.references)
        open_prices = OpenPrices(profile)
        staging = stage(
            Staging(conn),
            prepared,
            accept_unknown_price=spec.overrides.accept_unknown_price,
            reference_urls=urls,
            selection=spec.selection,
            observer=PlanObserver(priced=open_prices.note, warned=warn),
        )
        models = unpriced_models(conn)
        refuse_unpriced(conn, spec, models)
        batch = batch_id(conn, spec.name)
        waiting = ALL_PUBLISHED if batch is None else unpublished_counts(conn, batch)
        summary = PlanSummary(
            batch=spec.name,
            provider=profile.name,
            price_source=profile.price_source,
            proposal=propose(conn, staging, spec),
            unpublished=waiting,
            unfetched=urls.missing,
            unpriced=unpriced_jobs(profile, models),
        )
    for text in open_prices.lines():
        write_line(sys.stderr, f"warning: {text}")
    if summary.unpriced:
        write_line(sys.stderr, f"warning: {spec.name}: {unpriced_text(summary.unpriced)}")
    if as_json:
        write_line(sys.stdout, json.dumps(plan_record(summary)))
    else:
        write_text(sys.stdout, plan_summary_text(summary))


def why(manifest: Path, key: str, overrides: Overrides, *, as_json: bool = False) -> ExitCode:
    """Show what a run would do with one job, and what has changed since its image was made."""
    prepared = prepare(manifest, overrides.db)
    with closing(ledger_of(prepared)) as conn:
        staging = staged(conn, prepared, overrides.selection)
        proposal = propose(conn, staging, RunSpec.of(prepared, overrides))
        found = staging.explain(proposal.batch, key)
    if found is None:
        raise SettingsError(f"{manifest}: the manifest plans no job with the key {key!r}")
    text = json.dumps(why_record(key, found)) if as_json else why_text(key, found)
    write_line(sys.stdout, text)
    return ExitCode.DONE


def staged(
    conn: sqlite3.Connection, prepared: Prepared, selection: Selection = EVERYTHING
) -> Staging:
    """Plan the jobs of a manifest to look at them; unknown prices and URLs do not matter."""
    return stage(
        Staging(conn),
        prepared,
        accept_unknown_price=True,
        reference_urls=NeededUrls(conn, prepared.references),
        selection=selection,
    )


def ledger_of(prepared: Prepared) -> sqlite3.Connection:
    """Open the ledger for reading, or an empty one if it does not exist."""
    return open_for_reading(prepared.ledger) if prepared.ledger.exists() else in_memory()


def warn(warning: Fault) -> None:
    """Write a warning of the provider's rules to stderr."""
    write_line(sys.stderr, f"warning: {warning}")
