"""`batchgen plan` and `check`: what a run would do and cost, and what is wrong with a manifest."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, Fault, ManifestError, SettingsError
from batchgen.ledger.database import in_memory, open_for_reading
from batchgen.ledger.reference_urls import NeededUrls
from batchgen.ledger.staging import Staging
from batchgen.ledger.staging_rows import unpriced_models
from batchgen.money import decimal_string
from batchgen.report.costs import unpriced_text
from batchgen.report.status import plan_heading, plan_text, unfetched_text, why_text
from batchgen.session.fresh_prices import with_kept_prices
from batchgen.session.prepare import Overrides, Prepared, belongs, prepare, stage
from batchgen.session.proposal import propose
from batchgen.session.quote import quote_record
from batchgen.session.unpriced import OpenPrices, refuse_unpriced


def plan(manifests: list[Path], overrides: Overrides, *, as_json: bool) -> ExitCode:
    """Show what a run would do; needs no key and no network, and writes nothing."""
    directory = manifests[0].absolute().parent
    for path in manifests:
        prepared = prepare(path, overrides.db, ledger_directory=directory)
        _plan_one(prepared, overrides, as_json=as_json)
    return ExitCode.DONE


def _plan_one(prepared: Prepared, overrides: Overrides, *, as_json: bool) -> None:
    name = prepared.loaded.name
    with closing(_ledger(prepared)) as conn:
        profile = with_kept_prices(prepared.profile, conn)
        prepared = belongs(conn, replace(prepared, profile=profile), adopt=overrides.adopt)
        urls = NeededUrls(conn, prepared.references)
        open_prices = OpenPrices(profile)
        staging = stage(
            Staging(conn),
            prepared,
            accept_unknown_price=overrides.accept_unknown_price,
            warned=_warn,
            priced=open_prices.note,
            addresses=urls,
            selection=overrides.selection,
        )
        unfetched = urls.missing
        unpriced = unpriced_models(conn) if profile.flat_price is None else {}
        refuse_unpriced(conn, prepared, overrides, unpriced)
        found = propose(conn, staging, prepared, overrides)
    for text in open_prices.lines():
        write_line(sys.stderr, f"warning: {text}")
    if unpriced:
        write_line(sys.stderr, f"warning: {name}: {unpriced_text(sum(unpriced.values()))}")
    if as_json:
        record = {
            "batch": name,
            "provider": profile.name,
            "price_source": profile.price_source,
            "unfetched": unfetched,
            "unpriced": sum(unpriced.values()),
            "groups": {
                group.value: {
                    "jobs": one.jobs,
                    "cost": decimal_string(one.cost) if group.is_sent else "0.000000",
                }
                for group, one in found.groups.items()
            },
            "repeats": {
                "jobs": found.repeats.jobs,
                "cost": decimal_string(found.repeats.cost),
            },
            **quote_record(found.quote, found.budgets),
        }
        write_line(sys.stdout, json.dumps(record))
    else:
        heading = plan_heading(name, profile.name, profile.price_source)
        text = plan_text(
            heading,
            found.groups,
            found.quote,
            found.budgets,
            unfetched=unfetched,
            repeats=found.repeats,
        )
        write_line(sys.stdout, text)


def why(manifest: Path, key: str, overrides: Overrides) -> ExitCode:
    """Say what a run would do with one job, and what changed since its image was made."""
    prepared = prepare(manifest, overrides.db)
    with closing(_ledger(prepared)) as conn:
        staging = stage(
            Staging(conn),
            prepared,
            accept_unknown_price=True,
            addresses=NeededUrls(conn, prepared.references),
            selection=overrides.selection,
        )
        proposal = propose(conn, staging, prepared, overrides)
        found = staging.explain(proposal.batch, key)
    if found is None:
        raise SettingsError(f"{manifest}: the manifest plans no job with the key {key!r}")
    write_line(sys.stdout, why_text(key, found))
    return ExitCode.DONE


def _ledger(prepared: Prepared) -> sqlite3.Connection:
    """The ledger for reading, or an empty one where none exists yet."""
    return open_for_reading(prepared.ledger) if prepared.ledger.exists() else in_memory()


def _warn(warning: Fault) -> None:
    write_line(sys.stderr, f"warning: {warning}")


def check(manifests: list[Path]) -> ExitCode:
    """Say what is wrong with each manifest, all of it, down to its rows and templates.

    Exits with 1 where single rows are at fault: a run would do the others.
    Of reference images that are given by address, those are looked at that a run has fetched.
    """
    directory = manifests[0].absolute().parent
    faults: list[Fault] = []
    code = ExitCode.DONE
    for path in manifests:
        try:
            prepared = prepare(path, None, ledger_directory=directory)
            with closing(_ledger(prepared)) as conn:
                urls = NeededUrls(conn, prepared.references)
                staging = stage(
                    Staging(conn),
                    prepared,
                    accept_unknown_price=True,
                    warned=_warn,
                    addresses=urls,
                )
                jobs, at_fault = staging.jobs, staging.rows_at_fault()
                unfetched = urls.missing
        except ManifestError as exc:
            faults += exc.faults
        else:
            more = f"; {unfetched:,} {unfetched_text(unfetched)}" if unfetched else ""
            what = f"{_rows(at_fault)} at fault" if at_fault else "no faults"
            write_line(sys.stdout, f"{path}: {what}, {jobs:,} jobs{more}")
            code = ExitCode.UNFINISHED if at_fault else code
    if faults:
        raise ManifestError(faults)
    return code


def _rows(number: int) -> str:
    return "1 row is" if number == 1 else f"{number:,} rows are"
