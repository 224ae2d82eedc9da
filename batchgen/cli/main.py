"""The command line: arguments to plain values, errors to exit codes. Nothing else is decided here.

Commands are imported when they are called, so that ``--help`` and ``status`` start at once.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchgen.console.standard_streams import discard_output, lost_output, prepare_streams
from batchgen.errors import BatchgenError, ExitCode, message_of
from batchgen.job import JobState
from batchgen.version import __version__

if TYPE_CHECKING:
    from batchgen.ledger.only import Only

_DEFAULT_MANIFEST = Path("batch.yaml")
"""What `init` writes; the commands that take manifests use it where none is named."""


def _or_default(
    context: click.Context, parameter: click.Parameter, manifests: tuple[Path, ...]
) -> tuple[Path, ...]:
    if manifests or context.resilient_parsing:
        return manifests
    if not _DEFAULT_MANIFEST.is_file():
        raise click.UsageError(
            f"no manifest is named, and there is no {_DEFAULT_MANIFEST} in this directory;"
            " `batchgen init` writes one"
        )
    return (_DEFAULT_MANIFEST,)


_MANIFESTS = click.argument(
    "manifests", nargs=-1, type=click.Path(path_type=Path), callback=_or_default
)
_NAME = click.argument("name")
_DB = click.option(
    "--db", type=click.Path(path_type=Path, dir_okay=False), help="The ledger's file."
)
_ADOPT = click.option(
    "--adopt", is_flag=True, help="Continue a batch that belongs to another manifest."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for programs.")


def _only(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> Only | None:
    """The keys and patterns of ``--only``, those in files included. Raises click.UsageError."""
    if not given:
        return None
    patterns = list[str]()
    for one in given:
        if one != "-" and not one.startswith("@"):
            patterns.append(one)
            continue
        try:
            with click.open_file(one if one == "-" else one[1:], encoding="utf-8-sig") as stream:
                text = str(stream.read())
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"--only {one}: cannot be read: {error}") from None
        lines = (line.strip() for line in text.splitlines())
        listed = [line for line in lines if line and not line.startswith("#")]
        if not listed:
            raise click.UsageError(f"--only {one}: lists no key")
        patterns += listed
    from batchgen.ledger.only import Only

    return Only.of(patterns)


_ONLY = click.option(
    "--only",
    metavar="KEY",
    multiple=True,
    callback=_only,
    help="Only these jobs: a key or a pattern like 'mug/*', @FILE with one a line, - for stdin;"
    " may be repeated.",
)


@contextmanager
def _kept_for_good() -> Iterator[None]:
    """For imports that a long run needs to its end: the garbage collector never looks at them."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _renewal_options(command: Any) -> Any:
    options = [
        click.option(
            "--refresh", metavar="WHEN", help="Over the manifest's: changed, always or 30d."
        ),
        click.option(
            "--since",
            type=click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S")),
            help="Make anew what was made before (UTC).",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _utc(options: dict[str, Any]) -> dict[str, Any]:
    """The options, with the moment of ``--since`` in its zone."""
    since = options.get("since")
    return options | {"since": since.replace(tzinfo=UTC)} if since is not None else options


def _run_options(command: Any) -> Any:
    options = [
        _DB,
        _JSON,
        click.option("--quiet", is_flag=True, help="Say nothing unless something is wrong."),
        click.option(
            "--concurrency", type=click.IntRange(1, 4096), help="Requests in flight at most."
        ),
        click.option("--max-cost", metavar="DOLLARS", help="Budget of this run."),
        click.option(
            "--max-waste", metavar="SHARE", help="Doubt that may be bought again: 5% or dollars."
        ),
        click.option(
            "--limit", type=click.IntRange(min=1), help="Take up so many pending jobs at most."
        ),
        _ONLY,
        click.option(
            "--until", metavar="TIME", help="Start nothing after it: 06:00, or a date and time."
        ),
        click.option(
            "--log-file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Write what happens as JSON lines, ten files of 10 MB at most.",
        ),
        click.option(
            "--grace",
            "grace_s",
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            help="How long requests in flight may finish after a signal.",
        ),
        click.option(
            "--overwrite",
            is_flag=True,
            help="Replace images of another provider, and files that stand in the way.",
        ),
        click.option(
            "--accept-unknown-price",
            is_flag=True,
            help="Run without budgets although a price is unknown.",
        ),
        click.option(
            "--take-over",
            is_flag=True,
            help="Continue a run of another host or container that you know is dead.",
        ),
        click.option(
            "--yes",
            is_flag=True,
            help="Ask nothing, pay prices that have risen, go as far as the budget reaches.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class _ReaderGone(Exception):
    """The reader of our output left, as `head` does."""


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as exc:
            # Click itself would end the process with 1, which means that some jobs failed.
            raise _ReaderGone from exc


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="batchgen")
def cli() -> None:
    """Make images by the thousand, pay for each once, and lose none.

    \b
    Exit codes: 0 all done; 1 some jobs failed, blocked or uncertain; 2 bad manifest,
    settings or usage; 3 stopped by budget, quota, key or breaker; 4 a bug;
    75 another run holds this batch; 130/143 stopped by a signal, state safe.
    """
    from batchgen.ledger.busy import DEFAULT_WAIT_S, patience
    from batchgen.session.settings import Environment

    def report(text: str) -> None:
        from batchgen.console.progress import write_line

        write_line(sys.stderr, text)

    wait_s = Environment.load().ledger_wait_s
    patience.wait_s = DEFAULT_WAIT_S if wait_s is None else wait_s
    patience.report = report


@cli.command()
@_MANIFESTS
@_renewal_options
@_ADOPT
@_run_options
def run(manifests: tuple[Path, ...], as_json: bool, quiet: bool, **options: Any) -> ExitCode:
    """Plan, generate, download and record; resume what is unfinished."""
    with _kept_for_good():
        from batchgen.commands.run import run as command
        from batchgen.session.plan_and_enroll import Faces
        from batchgen.session.prepare import Overrides

    return command(list(manifests), Overrides(**_utc(options)), Faces(json=as_json, quiet=quiet))


@cli.command()
@_NAME
@_run_options
def resume(name: str, as_json: bool, quiet: bool, **options: Any) -> ExitCode:
    """Go on with a batch without its manifest file."""
    with _kept_for_good():
        from batchgen.commands.run import resume as command
        from batchgen.session.plan_and_enroll import Faces
        from batchgen.session.prepare import Overrides

    return command(name, Overrides(**options), Faces(json=as_json, quiet=quiet))


@cli.command()
@_MANIFESTS
@_DB
@_JSON
@click.option("--accept-unknown-price", is_flag=True, help="Plan although a price is not known.")
@click.option("--max-cost", metavar="DOLLARS", help="Budget of the run.")
@_ONLY
@_ADOPT
@_renewal_options
@click.option("--concurrency", type=click.IntRange(1, 4096), help="Requests in flight at most.")
@click.option("--again", metavar="SHARE", help="What if so many are made again, like 8%.")
@click.option("--accepted", metavar="SHARE", help="What if so many are accepted, like 70%.")
@click.option("--why", "key", metavar="KEY", help="What changed since this job's image.")
def plan(manifests: tuple[Path, ...], as_json: bool, key: str | None, **options: Any) -> ExitCode:
    """Show what a run would do and cost; no key, no network, nothing written."""
    from batchgen.commands.plan import plan as command
    from batchgen.commands.plan import why
    from batchgen.session.prepare import Overrides

    if key is not None:
        if len(manifests) > 1:
            raise click.UsageError("--why looks at one manifest")
        return why(manifests[0], key, Overrides(**_utc(options)))
    return command(list(manifests), Overrides(**_utc(options)), as_json=as_json)


@cli.command()
@_DB
@_JSON
@click.option("--day", metavar="DOLLARS", help="Limit of a day (UTC), or none.")
@click.option("--month", metavar="DOLLARS", help="Limit of a month (UTC), or none.")
def budget(db: Path | None, as_json: bool, day: str | None, month: str | None) -> ExitCode:
    """Show or set what all batches of the ledger may cost in a day and a month."""
    from batchgen.commands.budget import budget as command

    return command(db, day=day, month=month, as_json=as_json)


@cli.command()
@_NAME
@_DB
@_JSON
@click.option(
    "--repair", is_flag=True, help="Let the next run download missing and lost images again."
)
@click.option(
    "--changed",
    is_flag=True,
    help="With --repair: changed files too; they are kept below .previous/.",
)
def verify(name: str, db: Path | None, as_json: bool, repair: bool, changed: bool) -> ExitCode:
    """Compare the files of a batch with its ledger."""
    from batchgen.commands.verify import Finding
    from batchgen.commands.verify import verify as command

    if changed and not repair:
        raise click.UsageError("--changed needs --repair")
    wanted = {Finding.MISSING: repair, Finding.LOST: repair, Finding.CHANGED: changed}
    findings = {finding for finding, is_wanted in wanted.items() if is_wanted}
    return command(name, db, repair=findings, as_json=as_json)


@cli.command()
@_MANIFESTS
def check(manifests: tuple[Path, ...]) -> ExitCode:
    """Say what is wrong with a manifest, all of it at once."""
    from batchgen.commands.plan import check as command

    return command(list(manifests))


@cli.command()
@click.argument("name", required=False)
@_DB
@_JSON
@click.option(
    "--watch",
    "watch_s",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Show it again every so many seconds.",
)
@click.option("--uncertain", is_flag=True, help="List the jobs that may be billed in vain.")
@click.option("--metrics", is_flag=True, help="OpenMetrics text, for a node-exporter textfile.")
def status(
    name: str | None,
    db: Path | None,
    as_json: bool,
    watch_s: float | None,
    uncertain: bool,
    metrics: bool,
) -> ExitCode:
    """Show counts, money and what is wrong."""
    from batchgen.commands import status as command

    if metrics:
        return command.metrics(name, db)
    if uncertain:
        if name is None:
            raise click.UsageError("--uncertain needs the NAME of a batch")
        return command.uncertain(name, db, as_json=as_json)
    return command.status(name, db, as_json=as_json, watch_s=watch_s)


@cli.command()
@_NAME
@_DB
@click.option("--run", type=click.IntRange(min=1), metavar="ID", help="Not the newest run.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
)
def report(name: str, db: Path | None, run: int | None, file_format: str) -> ExitCode:
    """Tell what a run made, what failed and where to mend it, and what it cost."""
    from batchgen.commands.report import report as command

    return command(name, db, run=run, file_format=file_format)


@cli.command()
@_NAME
@_DB
@click.option("--failed", is_flag=True, help="Failed jobs; this is what is done by default.")
@click.option("--blocked", is_flag=True, help="Jobs that the provider's safety system refused.")
@click.option("--uncertain", is_flag=True, help="Jobs that may be paid for; may pay them again.")
@_ONLY
@click.option("--reason", metavar="CODE", help="Only jobs with it, as `status` names it.")
@click.option(
    "--since",
    type=click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S")),
    help="Only jobs that came to wait since (UTC).",
)
@click.option(
    "--buy",
    is_flag=True,
    help="Buy lost images again without another download; covers paid jobs that wait for one.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing, only say how many.")
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
) -> ExitCode:
    """Put failed, blocked or uncertain jobs back to pending; lost images are downloaded first."""
    from batchgen.commands.retry import retry as command
    from batchgen.ledger.retry_selection import Chosen

    wanted = {
        JobState.FAILED: failed,
        JobState.BLOCKED: blocked,
        JobState.UNCERTAIN: uncertain,
    }
    states = frozenset(state for state, is_wanted in wanted.items() if is_wanted)
    by_default = frozenset({JobState.FAILED, JobState.PAID} if buy else {JobState.FAILED})
    chosen = Chosen(
        states=states or by_default,
        only=only,
        code=reason,
        since=since.replace(tzinfo=UTC) if since else None,
    )
    return command(name, db, chosen, buy=buy, dry_run=dry_run)


@cli.command()
@_NAME
@_DB
@_JSON
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    help="Only jobs with this key or pattern; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing, only say how many.")
def acknowledge(
    name: str, db: Path | None, as_json: bool, only: tuple[str, ...], dry_run: bool
) -> ExitCode:
    """Close uncertain jobs that you have looked at, so that later runs exit with 0.

    They stay uncertain in `status`, counted apart, and can still be retried or reconciled.
    """
    from batchgen.commands.acknowledge import acknowledge as command

    return command(name, db, only, dry_run=dry_run, as_json=as_json)


@cli.command()
@_NAME
@_DB
@_ONLY
@click.option("--run", type=click.IntRange(min=1), metavar="ID", help="Only what this run made.")
def rollback(name: str, db: Path | None, only: Only | None, run: int | None) -> ExitCode:
    """Put back the images that the present ones replaced."""
    from batchgen.commands.rollback import rollback as command

    return command(name, db, only=only, run=run)


@cli.command()
@_NAME
@_DB
@click.option("--yes", is_flag=True, help="Remove them; without it they are only listed.")
def prune(name: str, db: Path | None, yes: bool) -> ExitCode:
    """Remove the images of jobs that left the manifest."""
    from batchgen.commands.prune import prune as command

    return command(name, db, yes=yes)


_DAY = click.DateTime(["%Y-%m-%d"])


@cli.command()
@click.argument("name", required=False)
@_DB
@click.option(
    "--by",
    multiple=True,
    metavar="WORDS",
    help="batch (default), run, day, model, provider, tag; several with commas.",
)
@click.option("--since", type=_DAY, metavar="DATE", help="From this day on, in UTC.")
@click.option("--until", type=_DAY, metavar="DATE", help="Up to the end of this day, in UTC.")
@click.option("--json", "file_format", flag_value="json", help="JSON on stdout, for programs.")
@click.option("--csv", "file_format", flag_value="csv", help="CSV on stdout, without the total.")
def cost(
    name: str | None,
    db: Path | None,
    by: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    file_format: str | None,
) -> ExitCode:
    """Sum up what was made, estimated, charged and possibly charged."""
    from batchgen.commands.cost import Days
    from batchgen.commands.cost import cost as command

    days = Days(since=since and since.date(), until=until and until.date())
    return command(name, db, by=by, days=days, file_format=file_format or "text")


@cli.command()
@_NAME
@_DB
@_JSON
@click.option(
    "--log",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The log as an exported CSV; nothing is fetched then.",
)
@click.option(
    "--settle",
    "settle_minutes",
    type=click.IntRange(0, 10_080),
    default=60,
    show_default=True,
    metavar="MINUTES",
    help="How late a charge may come.",
)
@click.option("--since", type=_DAY, metavar="DATE", help="Only requests from this day on, in UTC.")
@click.option("--token-name", metavar="NAME", help="Only charges to the key of this name.")
def reconcile(
    name: str, db: Path | None, as_json: bool, since: datetime | None, **options: Any
) -> ExitCode:
    """Match requests with the provider's billing log, refunds included; send and buy nothing."""
    from batchgen.commands.reconcile import Question
    from batchgen.commands.reconcile import reconcile as command

    return command(name, db, Question(since=since and since.date(), **options), as_json=as_json)


@cli.command()
@_NAME
@_DB
@click.option(
    "--what", type=click.Choice(["jobs", "attempts", "images"]), default="jobs", show_default=True
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write."
)
@click.option(
    "--failed", is_flag=True, help="A manifest of the failed and blocked jobs, to be mended."
)
def export(
    name: str, db: Path | None, what: str, file_format: str, output: Path | None, failed: bool
) -> ExitCode:
    """Write jobs, attempts or images as jsonl or csv."""
    from batchgen.commands.export import export as command
    from batchgen.commands.export import export_failed

    if failed:
        return export_failed(name, db, output=output)
    return command(name, db, what=what, file_format=file_format, output=output)


_PROVIDER = click.option("--provider", metavar="NAME", help="crazyrouter (default), openai, local.")
_MANIFEST = click.argument(
    "manifest", required=False, type=click.Path(path_type=Path, dir_okay=False)
)


@cli.command()
@_MANIFEST
@_PROVIDER
@click.option("--model", metavar="GLOB", help="Only models whose name fits.")
@click.option("--offline", is_flag=True, help="Fetch nothing; show the newest list known here.")
@_DB
@_JSON
def prices(
    manifest: Path | None,
    provider: str | None,
    model: str | None,
    offline: bool,
    db: Path | None,
    as_json: bool,
) -> ExitCode:
    """Show the price list of a provider, or of a manifest's provider."""
    from batchgen.commands.prices import prices as command

    return command(manifest, db, provider=provider, model=model, offline=offline, as_json=as_json)


@cli.command()
@_MANIFEST
@_PROVIDER
@_JSON
def models(manifest: Path | None, provider: str | None, as_json: bool) -> ExitCode:
    """List the models that the key sees; check those that a manifest needs."""
    from batchgen.commands.models import models as command

    return command(manifest, provider=provider, as_json=as_json)


@cli.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Run the embedded endpoint on its own; see `batchgen serve --help`."""
    from batchgen.simulator.__main__ import main as endpoint

    endpoint.main(args=list(arguments), prog_name="batchgen serve")


@cli.command()
@click.argument("path", type=click.Path(path_type=Path), default=_DEFAULT_MANIFEST)
def init(path: Path) -> ExitCode:
    """Write a first manifest, batch.yaml by default; it runs on the local endpoint."""
    from batchgen.commands.init import init as command

    return command(path)


@cli.command()
def schema() -> ExitCode:
    """Print the JSON Schema of a manifest, for editors."""
    from batchgen.commands.init import schema as command

    return command()


@cli.command()
@click.argument("topic", required=False)
def guide(topic: str | None) -> ExitCode:
    """Print a page of the user guide, or list its topics."""
    from batchgen.commands.guide import guide as command

    return command(topic)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and give the exit code; expected errors show no traceback.

    Output that could not be written is never exit 0.
    """
    prepare_streams()
    code = _run(arguments)
    lost = lost_output()
    if lost is None:
        return code
    click.echo(f"stdout: the output could not be written: {lost}", err=True)
    return ExitCode.STOPPED if code == ExitCode.DONE else code


def _run(arguments: list[str] | None) -> int:
    try:
        Path.cwd()
    except FileNotFoundError:
        click.echo("the current directory was removed; change into one that exists", err=True)
        return ExitCode.USAGE
    try:
        code = cli.main(args=arguments, prog_name="batchgen", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return ExitCode.USAGE
    except click.Abort:
        return ExitCode.INTERRUPTED
    except BatchgenError as exc:
        click.echo(message_of(exc), err=True)
        return exc.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except _ReaderGone:
        discard_output()
        return ExitCode.DONE
    except Exception as exc:
        return _unexpected(exc)
    return code if isinstance(code, int) else ExitCode.DONE


def _unexpected(exc: Exception) -> ExitCode:
    """Report what the machine refuses, or a bug of ours."""
    # Imported here: only what nobody expects needs them.
    import traceback

    from batchgen.system.os_errors import refusal

    refused = refusal(exc)
    if refused is not None:
        click.echo(str(refused), err=True)
        return refused.exit_code
    click.echo(traceback.format_exc(limit=-8), err=True)
    click.echo("this is a bug in batchgen; the ledger is safe, please report it", err=True)
    return ExitCode.BUG
