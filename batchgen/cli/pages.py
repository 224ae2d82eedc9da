"""Commands that show images as pages: review, gallery."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.options import FILE, UTC_TIME, batch_argument, db_option, only_option, option

if TYPE_CHECKING:
    from batchgen.errors import ExitCode
    from batchgen.ledger.only import Only

_DECISIONS = ("undecided", "accept", "reject", "redo")

run_option = option(
    "--run", type=click.IntRange(min=1), metavar="ID", help="Show the images of this run."
)
since_option = option(
    "--since", type=UTC_TIME, metavar="DATE", help="Show images saved since this time (UTC)."
)
tag_option = option(
    "--tag", "tags", multiple=True, metavar="TAG", help="Show images with this tag. Repeatable."
)


@click.command()
@batch_argument
@db_option
@option(
    "--run",
    type=click.IntRange(min=1),
    metavar="ID",
    show_default="the newest run with images",
    help="Show the images of this run.",
)
@since_option
@only_option
@option(
    "--decision",
    "decisions",
    type=click.Choice(_DECISIONS),
    multiple=True,
    help="Show images with this decision. Repeatable.",
)
@tag_option
@option("--by", metavar="NAME", show_default="your user name", help="Record decisions as NAME.")
@option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Listen on this port; 0 takes a free one.",
)
@option(
    "--import",
    "picks",
    type=FILE,
    metavar="FILE",
    help="Record decisions from a CSV file of a gallery or of `export`, and serve no page.",
)
@option("--no-open", is_flag=True, help="Do not open a browser.")
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
) -> ExitCode:
    """Accept, reject or redo images in the browser.

    Serves a page on this machine until Ctrl-C. The page never spends: the next `run` regenerates
    what was rejected.
    """
    import getpass

    from batchgen.commands.review import Served, Shown
    from batchgen.commands.review import review as command

    reviewer = by or getpass.getuser()
    if picks is not None:
        from batchgen.commands.import_decisions import import_decisions

        return import_decisions(name, db, picks, by=reviewer)
    shown = Shown(run=run, since=since, only=only, decisions=decisions, tags=tags)
    served = Served(host="127.0.0.1", port=port, opens_browser=not no_open, by=reviewer)
    return command(name, db, shown, served)


@click.command()
@batch_argument
@db_option
@option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="DIR|FILE.html",
    show_default="gallery-BATCH",
    help="Write here.",
)
@run_option
@since_option
@only_option
@option(
    "--decision",
    "decisions",
    type=click.Choice(_DECISIONS),
    multiple=True,
    help="Show images with this decision. Repeatable.",
)
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
    help="Show key, prompt, cost or model, separated by commas; otherwise none of them is in it.",
)
@option(
    "--size",
    type=click.Choice(["320", "640", "full"]),
    default="320",
    help="Set the width of the images in pixels; full adds the images themselves.",
)
@option("--single", is_flag=True, help="Write one HTML file of at most 25 MB.")
@option("--before", is_flag=True, help="Show the image that each replaced, with a slider.")
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
    size: str,
    single: bool,
    before: bool,
    unpublished: bool,
    pick: bool,
    keep_metadata: bool,
) -> ExitCode:
    """Write a page of images that opens without a server.

    It holds no prompt, cost, model, key or metadata unless requested. With `--pick`, viewers
    download picks.csv, which `review BATCH --import` reads.
    """
    from batchgen.commands.gallery import GalleryImages
    from batchgen.commands.gallery import gallery as command
    from batchgen.review.gallery import SHOWABLE, GalleryOptions

    shown = _names(show)
    unknown = [one for one in shown if one not in SHOWABLE]
    if unknown:
        raise click.UsageError(f"--show: got {unknown[0]!r}; expected {', '.join(SHOWABLE)}")
    if single and size == "full":
        raise click.UsageError("--single: not with --size full; expected 320 or 640")
    wanted = GalleryImages(
        run=run,
        since=since,
        only=only,
        decisions=decisions,
        tags=tags,
        with_before=before,
        unpublished=unpublished,
    )
    options = GalleryOptions(
        title=title or name,
        size=size,
        show=shown,
        columns=_names(columns),
        single=single,
        pick=pick,
        keep_metadata=keep_metadata,
    )
    return command(name, db, wanted, output, options)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(one.strip() for one in (text or "").split(",") if one.strip())
