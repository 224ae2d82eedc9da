"""Commands that make images: init, check, plan, try, run, resume."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from batchgen.cli.completion import complete_key
from batchgen.cli.number_options import WholeNumber
from batchgen.cli.options import (
    DEFAULT_MANIFEST,
    PATH,
    RefreshOptions,
    RunOptions,
    accept_unknown_price_option,
    adopt_option,
    batch_argument,
    concurrency_option,
    db_option,
    json_option,
    manifest_db_option,
    manifests_argument,
    max_cost_option,
    only_option,
    option,
    refresh_options,
    refuse_given,
    run_options,
)

if TYPE_CHECKING:
    from batchgen.errors import ExitCode
    from batchgen.ledger.key_patterns import Only


class ManifestRunOptions(RunOptions, RefreshOptions):
    """The options of `run` that are passed on as overrides of the manifest."""

    adopt: bool


class PlanOptions(RefreshOptions):
    """The options of `plan` that are passed on as overrides of the manifest."""

    db: Path | None
    accept_unknown_price: bool
    max_cost: str | None
    only: Only | None
    adopt: bool
    concurrency: int | None
    again: str | None
    accepted: str | None


@contextmanager
def _permanent_imports() -> Iterator[None]:
    """Exclude modules imported in this block from garbage collection: a plan or run needs them.

    The pages of a plan outlive young generations, so that each dozen pages would scan all of them.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@click.command()
@click.argument("path", metavar="[FILE]", type=PATH, default=DEFAULT_MANIFEST)
@option(
    "--provider",
    metavar="NAME",
    show_default="ask at a terminal, else local",
    help="Choose the provider: local, crazyrouter or openai.",
)
@option(
    "--rows",
    metavar="TABLE",
    show_default="ask at a terminal, else a list of prompts",
    help="Make one image per row of this table.",
)
@json_option
def init(path: Path, provider: str | None, rows: str | None, as_json: bool) -> ExitCode:
    """Write a first manifest, by default for the local endpoint.

    FILE defaults to batch.yaml. An existing file is not overwritten.
    """
    from batchgen.commands.init import init as command

    return command(path, provider=provider, rows=rows, as_json=as_json)


@click.command()
@manifests_argument
@json_option
def check(manifests: tuple[Path, ...], as_json: bool) -> ExitCode:
    """Validate manifests and report all errors.

    MANIFEST defaults to batch.yaml. Exits with 1 if only single rows are at fault.
    """
    from batchgen.commands.check import check as command

    return command(list(manifests), as_json=as_json)


@click.command()
@manifests_argument
@manifest_db_option
@json_option
@accept_unknown_price_option
@max_cost_option
@only_option
@adopt_option
@refresh_options
@concurrency_option
@option(
    "--again",
    metavar="SHARE",
    help="Add the cost if this share of the images is made again, such as 8%.",
)
@option(
    "--accepted",
    metavar="SHARE",
    help="Add the cost per accepted image if this share is accepted, such as 70%.",
)
@option(
    "--why",
    "key",
    metavar="KEY",
    shell_complete=complete_key,
    help="Explain what a run would do with one job, and what changed since its image was made.",
)
@option(
    "--show",
    "shown",
    metavar="KEY",
    multiple=True,
    shell_complete=complete_key,
    help="Print prompt, request body, output path and price of a job. Repeatable.",
)
@option(
    "--sample",
    type=WholeNumber(min=1, max=100),
    metavar="N",
    help="Print prompt, request body, output path and price of the N most different jobs.",
)
def plan(
    manifests: tuple[Path, ...],
    as_json: bool,
    key: str | None,
    shown: tuple[str, ...],
    sample: int | None,
    **options: Unpack[PlanOptions],
) -> ExitCode:
    """Show what a run would do and cost.

    MANIFEST defaults to batch.yaml. Needs no key and no network; writes nothing.
    """
    with _permanent_imports():
        from batchgen.commands.plan import plan as command
        from batchgen.commands.plan import why
        from batchgen.session.overrides import Overrides

    overrides = Overrides(**options)
    if (key is not None or shown or sample) and len(manifests) > 1:
        raise click.UsageError(f"--why, --show, --sample: {len(manifests)} manifests; expected one")
    if key is not None:
        refuse_given("shown", "sample", "again", "accepted", why="cannot be combined with --why")
        return why(manifests[0], key, overrides, as_json=as_json)
    if shown or sample:
        from batchgen.commands.show_plan import show_jobs

        refuse_given("again", "accepted", why="cannot be combined with --show or --sample")
        return show_jobs(manifests[0], shown, overrides, sample=sample or 0, as_json=as_json)
    return command(list(manifests), overrides, as_json=as_json)


@click.command()
@manifests_argument
@refresh_options
@adopt_option
@manifest_db_option
@option("--dry-run", is_flag=True, help="Only show what the run would do and cost, as `plan` does.")
@run_options
def run(
    manifests: tuple[Path, ...],
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Unpack[ManifestRunOptions],
) -> ExitCode:
    """Generate the images of manifests; resume unfinished jobs.

    MANIFEST defaults to batch.yaml.
    """
    _check_cluster(options["on"])
    if dry_run:
        with _permanent_imports():
            from batchgen.commands.plan import plan
            from batchgen.session.overrides import Overrides

        return plan(list(manifests), Overrides(**options), as_json=as_json)
    with _permanent_imports():
        from batchgen.commands.run import run as command
        from batchgen.console.terminal import TerminalPresenter
        from batchgen.session.overrides import Overrides

    presenter = TerminalPresenter(as_json=as_json, quiet=quiet)
    return command(list(manifests), Overrides(**options), presenter)


def _check_cluster(on: str | None) -> None:
    if on is None:
        refuse_given("actors", why="needs --on")


@click.command()
@batch_argument
@db_option
@run_options
def resume(name: str, as_json: bool, quiet: bool, **options: Unpack[RunOptions]) -> ExitCode:
    """Continue a batch from its ledger, without its manifest file."""
    _check_cluster(options["on"])
    with _permanent_imports():
        from batchgen.commands.run import resume as command
        from batchgen.console.terminal import TerminalPresenter
        from batchgen.session.overrides import Overrides

    presenter = TerminalPresenter(as_json=as_json, quiet=quiet)
    return command(name, Overrides(**options), presenter)


@click.command("try")
@click.argument("manifest", metavar="[MANIFEST]", type=PATH, default=DEFAULT_MANIFEST)
@option(
    "--sample",
    type=WholeNumber(1, 100),
    default=3,
    metavar="N",
    help="Make at most this many images, of the most different jobs.",
)
@manifest_db_option
@json_option
@max_cost_option
@accept_unknown_price_option
@option("--yes", is_flag=True, help="Skip the confirmation of the cost.")
def try_(
    manifest: Path,
    sample: int,
    db: Path | None,
    as_json: bool,
    max_cost: str | None,
    accept_unknown_price: bool,
    yes: bool,
) -> ExitCode:
    """Make a few images of a manifest, then ask to make the others.

    MANIFEST defaults to batch.yaml. The images belong to the batch and are not made again. At a
    terminal with a browser it offers their review page; elsewhere it prints their paths.
    """
    with _permanent_imports():
        from batchgen.commands.try_sample import try_sample
        from batchgen.console.terminal import TerminalPresenter
        from batchgen.session.overrides import Overrides

    overrides = Overrides(
        db=db, max_cost=max_cost, accept_unknown_price=accept_unknown_price, yes=yes
    )
    presenter = TerminalPresenter(as_json=as_json)
    return try_sample(manifest, overrides, presenter, sample=sample)
