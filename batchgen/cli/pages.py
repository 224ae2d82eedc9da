"""Commands that show images as pages: review, gallery."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.number_options import WholeNumber
from batchgen.cli.options import (
    FILE,
    PATH,
    UTC_TIME,
    Decorator,
    batch_argument,
    db_option,
    json_option,
    only_option,
    option,
    presigned_option,
    refuse_given,
)

if TYPE_CHECKING:
    from batchgen.errors import ExitCode
    from batchgen.ledger.key_patterns import Only


def _run_option(default: str | None = None) -> Decorator:
    return option(
        "--run",
        type=WholeNumber(min=1),
        metavar="ID",
        show_default=default or True,
        help="Show the images of this run.",
    )


since_option = option(
    "--since", type=UTC_TIME, metavar="DATE", help="Show images saved since this time (UTC)."
)
decision_option = option(
    "--decision",
    "decisions",
    type=click.Choice(["undecided", "accept", "reject", "redo"]),
    multiple=True,
    help="Show images with this decision. Repeatable.",
)
tag_option = option(
    "--tag", "tags", multiple=True, metavar="TAG", help="Show images with this tag. Repeatable."
)


@click.command()
@batch_argument
@db_option
@_run_option("the newest run with images")
@since_option
@only_option
@decision_option
@tag_option
@option("--by", metavar="NAME", show_default="your user name", help="Record decisions as NAME.")
@option(
    "--port",
    type=WholeNumber(0, 65535),
    default=0,
    metavar="N",
    help="Listen on this port; 0 takes a free one.",
)
@option(
    "--import",
    "picks",
    type=FILE,
    metavar="FILE",
    help="Record decisions from picks.csv of a gallery or a file of `export`; serve no page.",
)
@option("--no-open", is_flag=True, help="Do not open a browser.")
@option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the URL, its token and what the page shows as JSON; open no browser.",
)
def review(
    name: str,
    db: Path | None,
    run: int | None,
    since: datetime | None,
    only: Only | None,
    decisions: tuple[str, ...],
    tags: tuple[str, ...],
    by: str | None,
    port: int,
    picks: Path | None,
    no_open: bool,
    as_json: bool,
) -> ExitCode:
    """Accept, reject or redo images in the browser.

    Serves a page on this machine until Ctrl-C. The page never spends: the next `run` regenerates
    what was rejected.
    """
    from batchgen.commands.review import Served
    from batchgen.commands.review import review as command
    from batchgen.commands.shown_images import ShownImages
    from batchgen.system.process_table import user_name

    reviewer = by or user_name()
    if picks is not None:
        from batchgen.commands.import_decisions import import_decisions

        unused = ("run", "since", "only", "decisions", "tags", "port", "no_open")
        refuse_given(*unused, why="cannot be combined with --import")
        return import_decisions(name, db, picks, by=reviewer, as_json=as_json)
    shown = ShownImages(run=run, since=since, only=only, decisions=decisions, tags=tags)
    served = Served(host="127.0.0.1", port=port, opens_browser=not no_open, by=reviewer)
    return command(name, db, shown, served, as_json=as_json)


@click.command()
@batch_argument
@db_option
@json_option
@option(
    "--output",
    "-o",
    type=PATH,
    metavar="DIR|FILE.html",
    show_default="gallery-BATCH",
    help="Write to this directory, or to one HTML file as --single does.",
)
@_run_option()
@since_option
@only_option
@decision_option
@tag_option
@option("--title", metavar="TEXT", show_default="the name of the batch", help="Set the heading.")
@option(
    "--columns",
    metavar="NAMES",
    help="Show these columns of the manifest's table, separated by commas.",
)
@option(
    "--show",
    metavar="NAMES",
    show_default="none; with --compare prompt,cost,seconds",
    help="Include key, prompt, cost, model or seconds, separated by commas.",
)
@option(
    "--compare",
    metavar="AXES",
    help="Show a grid with a column for each value of these axes of the matrix, such as model or"
    " model,quality.",
)
@option(
    "--size",
    type=click.Choice(["320", "640", "full"]),
    default="320",
    help="Set the longest side of the thumbnails in pixels; full adds the images themselves to a"
    " directory.",
)
@presigned_option(
    "Link the full images in buckets, for a time like 24h or 7d. The links work for anyone who has"
    " the page."
)
@option("--single", is_flag=True, help="Write one HTML file of at most 25 MB.")
@option(
    "--before",
    is_flag=True,
    help="Show each image next to the one that it replaced, with a slider.",
)
@option(
    "--unpublished",
    is_flag=True,
    help="Show the images that wait for a decision, not the published ones.",
)
@option("--pick", is_flag=True, help="Let viewers choose images and write comments.")
@option("--keep-metadata", is_flag=True, help="Keep EXIF and XMP data in full images.")
def gallery(
    name: str,
    db: Path | None,
    output: Path | None,
    run: int | None,
    since: datetime | None,
    only: Only | None,
    decisions: tuple[str, ...],
    tags: tuple[str, ...],
    title: str | None,
    columns: str | None,
    show: str | None,
    compare: str | None,
    size: str,
    presigned: timedelta | None,
    single: bool,
    before: bool,
    unpublished: bool,
    pick: bool,
    keep_metadata: bool,
    as_json: bool,
) -> ExitCode:
    """Write a page of images that opens without a server.

    The page holds no prompt, cost, model, key or metadata unless requested. With `--pick`, viewers
    download picks.csv, which `review BATCH --import` reads.
    """
    from batchgen.commands.gallery import gallery as command
    from batchgen.commands.shown_images import ShownImages
    from batchgen.review.gallery import SHOWABLE, GalleryOptions

    axes = _names(compare)
    shown = ("prompt", "cost", "seconds") if axes and show is None else _names(show)
    unknown = [one for one in shown if one not in SHOWABLE]
    if unknown:
        raise click.UsageError(f"--show: got {unknown[0]!r}; expected {', '.join(SHOWABLE)}")
    _check_size(size)
    images = ShownImages(
        run=run,
        since=since,
        only=only,
        decisions=decisions,
        tags=tags,
        which="unpublished" if unpublished else "published",
    )
    options = GalleryOptions(
        title=title or name,
        size=size,
        show=shown,
        columns=_names(columns),
        single=single,
        before=before,
        compare=axes,
        pick=pick,
        presigned=presigned,
        keep_metadata=keep_metadata,
    )
    return command(name, db, images, output, options, as_json=as_json)


def _check_size(size: str) -> None:
    if size == "full":
        refuse_given("presigned", why="cannot be combined with --size full")
    else:
        refuse_given("keep_metadata", why="needs --size full")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(one.strip() for one in (text or "").split(",") if one.strip())
