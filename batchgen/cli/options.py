"""Options and arguments that several commands share, with the types of their values.

A command that passes its options on as keywords declares them with a ``TypedDict``, so that mypy
compares them with the parameters of the function that receives them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar

import click
from click.core import ParameterSource

from batchgen.cli.completion import complete_batch, complete_key
from batchgen.cli.number_options import Number, WholeNumber

if TYPE_CHECKING:
    from batchgen.ledger.key_patterns import Only

DEFAULT_MANIFEST = Path("batch.yaml")
"""Written by `init`, and used by commands that take manifests if none is named."""

Decorated = TypeVar("Decorated", bound=Callable[..., object])


class Decorator(Protocol):
    """A decorator that leaves the type of a command function as it is."""

    def __call__(self, function: Decorated, /) -> Decorated:
        """Add options to a command function."""


class _Option(click.Option):
    """An option whose help shows its default as written, and no range in mathematical notation."""

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        return extra


def option(*names: str, **attributes: Any) -> Decorator:
    """Declare an option; the parameters are those of `click.option`."""
    return click.option(*names, cls=_Option, **attributes)


class RefreshOptions(TypedDict):
    """The values of `refresh_options`."""

    refresh: str | None
    since: datetime | None
    keep_rejected: bool


class RunOptions(TypedDict):
    """The values of ``--db`` and `run_options` that are passed on as overrides of the manifest."""

    db: Path | None
    concurrency: int | None
    max_cost: str | None
    max_waste: str | None
    limit: int | None
    only: Only | None
    until: str | None
    log_file: Path | None
    grace_s: float | None
    overwrite: bool
    accept_unknown_price: bool
    on: str | None
    actors: int | None
    take_over: bool
    yes: bool


class _UtcTime(click.ParamType[datetime]):
    """A date, or a date and time, in UTC."""

    name = "date"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"):
            try:
                return datetime.strptime(value, form).replace(tzinfo=UTC)
            except ValueError:
                continue
        expected = "expected a date such as 2026-11-28 or 2026-11-28T06:00:00"
        raise click.BadParameter(f"not a date: {value!r}; {expected}", ctx, param)


class _Day(click.ParamType[date]):
    """A date in UTC."""

    name = "date"

    def convert(
        self, value: str | date, param: click.Parameter | None, ctx: click.Context | None
    ) -> date:
        if isinstance(value, date):
            return value
        try:
            return datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC).date()
        except ValueError:
            expected = "expected a date such as 2026-11-28"
            raise click.BadParameter(f"not a date: {value!r}; {expected}", ctx, param) from None


class _LocalPath(click.Path):
    """A path on this machine; a URL is refused before it names a directory."""

    def __init__(self, *, dir_okay: bool = True, buckets: bool = False) -> None:
        super().__init__(path_type=Path, dir_okay=dir_okay)
        self._buckets = buckets

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        from batchgen.urls import check_local_path

        try:
            check_local_path(os.fspath(value), buckets=self._buckets)
        except ValueError as exc:
            raise click.BadParameter(str(exc), ctx, param) from None
        return super().convert(value, param, ctx)


UTC_TIME = _UtcTime()
DAY = _Day()
FILE = _LocalPath(dir_okay=False)
PATH = _LocalPath()
LEDGER = _LocalPath(dir_okay=False, buckets=True)


def _or_default(
    context: click.Context, _parameter: click.Parameter, manifests: tuple[Path, ...]
) -> tuple[Path, ...]:
    if context.resilient_parsing:
        return manifests
    if manifests:
        _refuse_repeated(manifests)
        return manifests
    if not DEFAULT_MANIFEST.is_file():
        raise click.UsageError(
            f"no manifest named, and no {DEFAULT_MANIFEST} in this directory;"
            " `batchgen init` writes one"
        )
    return (DEFAULT_MANIFEST,)


def refuse_given(*names: str, why: str) -> None:
    """Refuse the parameters of this name if the command line has them: they would do nothing.

    ``why`` continues the message after the option. Raises click.UsageError.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in names and (
            context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
        ):
            raise click.UsageError(f"{parameter.opts[0]} {why}")


def _refuse_repeated(manifests: tuple[Path, ...]) -> None:
    """Refuse a manifest that is named twice: with --refresh, a run would pay for it twice."""
    named = dict[Path, Path]()
    for manifest in manifests:
        first = named.setdefault(Path(os.path.realpath(manifest)), manifest)
        if first is not manifest:
            again = "twice" if first == manifest else f"again as {manifest}"
            raise click.UsageError(f"{first}: named {again}; expected each manifest once")


def _read_only(
    _context: click.Context, _option: click.Parameter, given: tuple[str, ...]
) -> Only | None:
    """Return the keys and patterns of ``--only``, including those listed in files.

    None if the option is not given. Raises click.UsageError for a file that lists no key.
    """
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
            from batchgen.text import cause_of

            raise click.UsageError(f"--only {one}: cannot be read: {cause_of(error)}") from None
        lines = (line.strip() for line in text.splitlines())
        listed = [line for line in lines if line and not line.startswith("#")]
        if not listed:
            raise click.UsageError(f"--only {one}: lists no key")
        patterns += listed
    from batchgen.ledger.key_patterns import Only

    return Only.of(patterns)


manifests_argument = click.argument(
    "manifests",
    metavar="[MANIFEST]...",
    nargs=-1,
    type=PATH,
    callback=_or_default,
)
manifest_argument = click.argument("manifest", metavar="[MANIFEST]", required=False, type=FILE)
batch_argument = click.argument("name", metavar="BATCH", shell_complete=complete_batch)
optional_batch_argument = click.argument(
    "name", metavar="[BATCH]", required=False, shell_complete=complete_batch
)

manifest_db_option = option(
    "--db",
    type=LEDGER,
    metavar="FILE",
    show_default="BATCHGEN_DB, else batchgen.db next to the manifest",
    help="Use this ledger: a file, or s3://BUCKET/PREFIX to back it up there during `run`.",
)
db_option = option(
    "--db",
    type=LEDGER,
    metavar="FILE",
    show_default="BATCHGEN_DB, else batchgen.db here or in jobs/",
    help="Use this ledger.",
)


def _lifetime(ctx: click.Context, param: click.Parameter, text: str | None) -> timedelta | None:
    from batchgen.output.presigned_links import parse_lifetime

    try:
        return None if text is None else parse_lifetime(text)
    except ValueError as exc:
        raise click.UsageError(f"--presigned: {exc}") from exc


def presigned_option(text: str) -> Decorator:
    """Declare the option for links to objects that end; its value is a timedelta."""
    return option("--presigned", metavar="LIFETIME", callback=_lifetime, help=text)


json_option = option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")
adopt_option = option(
    "--adopt", is_flag=True, help="Continue a batch that belongs to another manifest."
)
only_option = option(
    "--only",
    metavar="KEY",
    multiple=True,
    callback=_read_only,
    shell_complete=complete_key,
    help="Select jobs by key or by a pattern such as 'mug/*'; @FILE reads one per line, - reads"
    " stdin. Repeatable.",
)
concurrency_option = option(
    "--concurrency",
    type=WholeNumber(1, 4096),
    metavar="N",
    show_default="limits.concurrency of the manifest, else 8",
    help="Send at most N requests at the same time.",
)
max_cost_option = option(
    "--max-cost",
    metavar="DOLLARS",
    show_default="limits.max_cost of the manifest",
    help="Set the budget of this run.",
)
accept_unknown_price_option = option(
    "--accept-unknown-price",
    is_flag=True,
    help="Run without a budget if the price of a model is unknown.",
)
dry_run_option = option("--dry-run", is_flag=True, help="Count the jobs and change nothing.")


def _combined(*options: Decorator) -> Decorator:
    """Return one decorator that adds the options in the order in which help lists them."""

    def decorate(function: Decorated) -> Decorated:
        for add in reversed(options):
            function = add(function)
        return function

    return decorate


refresh_options = _combined(
    option(
        "--refresh",
        metavar="POLICY",
        help="Override the manifest's refresh policy: changed, always or an age such as 30d.",
    ),
    option(
        "--since",
        type=UTC_TIME,
        metavar="DATE",
        help="Regenerate images created before this time (UTC).",
    ),
    option(
        "--keep-rejected",
        is_flag=True,
        help="Do not regenerate images that were rejected in review.",
    ),
)

run_options = _combined(
    json_option,
    option("--quiet", is_flag=True, help="Print nothing unless something is wrong."),
    concurrency_option,
    max_cost_option,
    option(
        "--max-waste",
        metavar="SHARE",
        show_default="limits.max_waste of the manifest, else 5%",
        help="Limit rebuying requests of unknown outcome: a share such as 5%, or dollars.",
    ),
    option(
        "--limit",
        type=WholeNumber(min=1),
        metavar="N",
        help="Process at most N pending jobs.",
    ),
    only_option,
    option(
        "--until",
        metavar="TIME",
        help="Start no request after this time: 06:00, or an ISO date and time.",
    ),
    option(
        "--log-file",
        type=FILE,
        metavar="FILE",
        show_default="BATCHGEN_LOG, else no log",
        help="Log events as JSON lines; at most ten files of 10 MB are kept.",
    ),
    option(
        "--grace",
        "grace_s",
        type=Number(min=0),
        metavar="SECONDS",
        show_default="limits.deadline of the manifest, else 300",
        help="Wait this long for requests in flight after a signal.",
    ),
    option(
        "--overwrite",
        is_flag=True,
        help="Replace images of another provider and unrelated files at output paths.",
    ),
    accept_unknown_price_option,
    option(
        "--on",
        metavar="CLUSTER",
        show_default="this process",
        help="Run on a cluster: ray, ray://HOST:PORT or ray=HOST:PORT. See `guide cluster`.",
    ),
    option(
        "--actors",
        type=WholeNumber(1, 1024),
        metavar="N",
        show_default="one for each node, at least 2",
        help="Start N actors on the cluster of --on.",
    ),
    option(
        "--take-over",
        is_flag=True,
        help="Continue a run of another host or container that you know has ended.",
    ),
    option(
        "--yes",
        is_flag=True,
        help="Skip confirmation; accept price increases; run until the budget is used up.",
    ),
)
