"""Commands for jobs that need a decision: retry, acknowledge, rollback, verify and others."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from batchgen.cli.number_options import WholeNumber
from batchgen.cli.options import (
    DAY,
    FILE,
    UTC_TIME,
    batch_argument,
    db_option,
    dry_run_option,
    json_option,
    only_option,
    option,
    presigned_option,
    refuse_given,
)

if TYPE_CHECKING:
    from batchgen.errors import ExitCode
    from batchgen.ledger.key_patterns import Only

_ROW_OPTIONS: Final = ("what", "file_format", "run", "presigned")
"""Options of `export` that are about rows."""


@click.command()
@batch_argument
@db_option
@option("--failed", is_flag=True, help="Retry failed jobs, as without any of these three options.")
@option("--blocked", is_flag=True, help="Retry jobs that the safety system refused.")
@option("--uncertain", is_flag=True, help="Retry jobs that may have been charged; may pay twice.")
@only_option
@option("--reason", metavar="CODE", help="Select jobs with this reason code, as shown by `status`.")
@option(
    "--since",
    type=UTC_TIME,
    metavar="DATE",
    help="Select jobs that entered their state since this time (UTC).",
)
@option(
    "--buy",
    is_flag=True,
    help="Request lost images again without another download; includes paid jobs that wait for"
    " their download.",
)
@dry_run_option
@json_option
def retry(
    name: str,
    db: Path | None,
    failed: bool,
    blocked: bool,
    uncertain: bool,
    only: Only | None,
    reason: str | None,
    since: datetime | None,
    buy: bool,
    dry_run: bool,
    as_json: bool,
) -> ExitCode:
    """Return failed, blocked or uncertain jobs to pending.

    Sends nothing; the next run sends the requests. A lost image is downloaded once more before
    its job is requested again.
    """
    from batchgen.commands.retry import retry as command
    from batchgen.job import JobState
    from batchgen.ledger.retry_selection import RetrySelection

    wanted = {
        JobState.FAILED: failed,
        JobState.BLOCKED: blocked,
        JobState.UNCERTAIN: uncertain,
    }
    states = frozenset(state for state, is_wanted in wanted.items() if is_wanted)
    by_default = frozenset({JobState.FAILED, JobState.PAID} if buy else {JobState.FAILED})
    chosen = RetrySelection(states=states or by_default, only=only, code=reason, since=since)
    return command(name, db, chosen, buy=buy, dry_run=dry_run, as_json=as_json)


@click.command()
@batch_argument
@db_option
@json_option
@only_option
@dry_run_option
def acknowledge(
    name: str, db: Path | None, as_json: bool, only: Only | None, dry_run: bool
) -> ExitCode:
    """Close uncertain jobs, so that later runs exit with 0.

    The jobs stay uncertain in `status`, counted separately. They can still be retried or
    reconciled.
    """
    from batchgen.commands.acknowledge import acknowledge as command

    return command(name, db, only, dry_run=dry_run, as_json=as_json)


@click.command()
@batch_argument
@db_option
@only_option
@option(
    "--run",
    type=WholeNumber(min=1),
    metavar="ID",
    help="Restore only the images that this run replaced.",
)
@json_option
def rollback(
    name: str, db: Path | None, only: Only | None, run: int | None, as_json: bool
) -> ExitCode:
    """Restore the previous versions of replaced images.

    A second rollback restores the newer versions.
    """
    from batchgen.commands.rollback import rollback as command

    return command(name, db, only=only, run=run, as_json=as_json)


@click.command()
@batch_argument
@db_option
@json_option
@option("--repair", is_flag=True, help="Let the next run download missing and lost images again.")
@option(
    "--changed",
    is_flag=True,
    help="With --repair: download changed images too; the changed files move to .previous/.",
)
def verify(name: str, db: Path | None, as_json: bool, repair: bool, changed: bool) -> ExitCode:
    """Check the files of a batch against the ledger."""
    from batchgen.commands.verify import Finding
    from batchgen.commands.verify import verify as command

    if changed and not repair:
        raise click.UsageError("--changed needs --repair")
    wanted = {Finding.MISSING: repair, Finding.LOST: repair, Finding.CHANGED: changed}
    findings = {finding for finding, is_wanted in wanted.items() if is_wanted}
    return command(name, db, repair=findings, as_json=as_json)


@click.command()
@batch_argument
@db_option
@json_option
@option(
    "--log",
    type=FILE,
    metavar="FILE",
    show_default="fetch it from the provider",
    help="Read the billing log from an exported CSV file.",
)
@option(
    "--settle",
    "settle_minutes",
    type=WholeNumber(0, 10_080),
    default=60,
    metavar="MINUTES",
    help="Allow a charge to be logged this long after its request.",
)
@option("--since", type=DAY, metavar="DATE", help="Match requests from this day on (UTC).")
@option("--token-name", metavar="NAME", help="Match only charges to the API key of this name.")
def reconcile(
    name: str,
    db: Path | None,
    as_json: bool,
    log: Path | None,
    settle_minutes: int,
    since: date | None,
    token_name: str | None,
) -> ExitCode:
    """Match requests with the provider's billing log.

    Settles requests of unknown outcome, refunds included. Sends no image request.
    """
    from batchgen.commands.reconcile import Question
    from batchgen.commands.reconcile import reconcile as command

    question = Question(log=log, settle_minutes=settle_minutes, since=since, token_name=token_name)
    return command(name, db, question, as_json=as_json)


@click.command()
@batch_argument
@db_option
@option("--yes", is_flag=True, help="Delete the images instead of listing them.")
@json_option
def prune(name: str, db: Path | None, yes: bool, as_json: bool) -> ExitCode:
    """List or delete images of jobs that left the manifest."""
    from batchgen.commands.prune import prune as command

    return command(name, db, yes=yes, as_json=as_json)


@click.command()
@batch_argument
@db_option
@option(
    "--what",
    type=click.Choice(["jobs", "attempts", "images", "decisions"]),
    default="jobs",
    help="Choose the records to export.",
)
@option(
    "--format",
    "file_format",
    type=click.Choice(["jsonl", "csv", "csv-raw"]),
    default="jsonl",
    help="Choose the output format. csv puts ' before text that a spreadsheet would compute.",
)
@option(
    "--json",
    "as_json",
    is_flag=True,
    help="The same as --format jsonl; with --dataset, print the summary as JSON.",
)
@option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE",
    show_default="stdout",
    help="Write to a new file.",
)
@option(
    "--failed",
    is_flag=True,
    help="Export failed and blocked jobs as a manifest to fix and rerun.",
)
@option(
    "--dataset",
    metavar="DIR",
    help="Write the verified images with their prompts as a dataset, to a directory or a bucket.",
)
@option(
    "--layout",
    type=click.Choice(["webdataset", "imagefolder", "index"]),
    default="webdataset",
    help="With --dataset: choose tar files, directories of images, or a table of URLs.",
)
@option(
    "--part-images",
    type=WholeNumber(1, 1_000_000),
    default=10_000,
    metavar="N",
    help="With --dataset: put N images into each part.",
)
@option(
    "--decision",
    type=click.Choice(["accepted"]),
    help="With --dataset: take only images that were accepted in review.",
)
@option(
    "--run",
    type=WholeNumber(min=1),
    metavar="ID",
    help="Export only what this run requested or made; `report --list` shows the runs.",
)
@presigned_option(
    "With --what images: add links to images in buckets that work for anyone, for a time like 30m,"
    " 24h or 7d."
)
def export(
    name: str,
    db: Path | None,
    what: str,
    file_format: str,
    as_json: bool,
    output: Path | None,
    failed: bool,
    dataset: str | None,
    layout: str,
    part_images: int,
    decision: str | None,
    run: int | None,
    presigned: timedelta | None,
) -> ExitCode:
    """Export jobs, attempts, images or review decisions as rows, or images as a dataset."""
    from batchgen.commands.export import export as command
    from batchgen.commands.export import export_failed

    if dataset is not None:
        from batchgen.commands.export_dataset import Choice, export_dataset
        from batchgen.dataset.layout import Layout

        refuse_given(*_ROW_OPTIONS, "failed", "output", why="cannot be combined with --dataset")
        choice = Choice(
            layout=Layout(layout), part_images=part_images, accepted=decision is not None
        )
        return export_dataset(name, db, dataset=dataset, choice=choice, as_json=as_json)
    refuse_given("layout", "part_images", "decision", why="needs --dataset")
    if failed:
        refuse_given(
            *_ROW_OPTIONS,
            "as_json",
            why="cannot be combined with --failed, which writes a manifest",
        )
        return export_failed(name, db, output=output)
    if what == "decisions":
        refuse_given("run", why="cannot be combined with --what decisions")
    if what != "images":
        refuse_given("presigned", why="needs --what images")
    if file_format != "jsonl":
        refuse_given("as_json", why=f"cannot be combined with --format {file_format}")
    return command(
        name,
        db,
        what=what,
        file_format=file_format,
        output=output,
        run=run,
        presigned=presigned,
    )
