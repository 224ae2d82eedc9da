"""Commands that show batches and change nothing: status, report, cost."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.number_options import Number, WholeNumber
from batchgen.cli.options import (
    DAY,
    FILE,
    batch_argument,
    db_option,
    json_option,
    option,
    optional_batch_argument,
    refuse_given,
)

if TYPE_CHECKING:
    from batchgen.errors import ExitCode


@click.command()
@optional_batch_argument
@db_option
@json_option
@option(
    "--watch",
    "watch_s",
    type=Number(min=0.1),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Repeat until interrupted, every 2 seconds unless SECONDS is given.",
)
@option("--uncertain", is_flag=True, help="List jobs that may have been charged without a result.")
@option(
    "--metrics",
    is_flag=True,
    help="Print OpenMetrics text, for the textfile collector of node_exporter.",
)
def status(
    name: str | None,
    db: Path | None,
    as_json: bool,
    watch_s: float | None,
    uncertain: bool,
    metrics: bool,
) -> ExitCode:
    """Show job counts, cost and problems of one batch or of all."""
    from batchgen.commands import status as command

    if metrics:
        unused = ("as_json", "watch_s", "uncertain")
        refuse_given(*unused, why="cannot be combined with --metrics")
        return command.metrics(name, db)
    if uncertain:
        if name is None:
            raise click.UsageError("--uncertain: no batch named; expected BATCH")
        refuse_given("watch_s", why="cannot be combined with --uncertain")
        return command.uncertain(name, db, as_json=as_json)
    return command.status(name, db, as_json=as_json, watch_s=watch_s)


@click.command()
@batch_argument
@db_option
@option(
    "--run",
    type=WholeNumber(min=1),
    metavar="ID",
    show_default="the newest run",
    help="Report this run.",
)
@option(
    "--format",
    "file_format",
    type=click.Choice(["text", "markdown", "json", "html"]),
    show_default="html if -o names an .html file, else text",
    help="Choose the output format; html is one file for a mail, with thumbnails.",
)
@option(
    "--json", "file_format", flag_value="json", help="Print JSON to stdout, as --format json does."
)
@option(
    "--output",
    "-o",
    type=FILE,
    metavar="FILE",
    show_default="stdout",
    help="Write to a new file; a report in HTML replaces an earlier one.",
)
@option("--list", "is_list", is_flag=True, help="List the runs of the batch, the newest first.")
def report(
    name: str,
    db: Path | None,
    run: int | None,
    file_format: str | None,
    output: Path | None,
    is_list: bool,
) -> ExitCode:
    """Summarize a run: images, failures with source lines, cost."""
    from batchgen.commands.report import list_runs
    from batchgen.commands.report import report as command
    from batchgen.text import names_html

    chosen = file_format or ("html" if output and names_html(output) else "text")
    if is_list:
        if chosen == "markdown":
            raise click.UsageError("--list: the format markdown; expected text, json or html")
        if run is not None:
            raise click.UsageError("--list: not with --run; expected one of them")
        return list_runs(name, db, file_format=chosen, output=output)
    return command(name, db, run=run, file_format=chosen, output=output)


@click.command()
@optional_batch_argument
@db_option
@option(
    "--by",
    multiple=True,
    metavar="COLUMN",
    show_default="batch",
    help="Group by batch, run, day, month, model, provider or tag. Repeatable, or with commas.",
)
@option("--since", type=DAY, metavar="DATE", help="Include requests from this day on (UTC).")
@option(
    "--until", type=DAY, metavar="DATE", help="Include requests up to the end of this day (UTC)."
)
@option("--json", "file_format", flag_value="json", help="Print JSON to stdout.")
@option("--csv", "file_format", flag_value="csv", help="Print CSV to stdout, without the total.")
def cost(
    name: str | None,
    db: Path | None,
    by: tuple[str, ...],
    since: date | None,
    until: date | None,
    file_format: str | None,
) -> ExitCode:
    """Sum up estimated, charged and possibly charged costs."""
    from batchgen.commands.cost import Days
    from batchgen.commands.cost import cost as command

    days = Days(since=since, until=until)
    return command(name, db, by=by, days=days, file_format=file_format or "text")
