"""`batchgen review`: serve the review page of a batch on this machine."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from batchgen.console.ask import has_browser
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode
from batchgen.ledger.batches import find_batch
from batchgen.ledger.clock import timestamp
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.only import Only, resolve_jobs
from batchgen.ledger.review import ImageFilter
from batchgen.ledger.review_summary import newest_run_with_images
from batchgen.review.batch import ReviewBatch, View
from batchgen.review.server import serve
from batchgen.session.settings import Environment
from batchgen.session.storage import refuse_buckets


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Which images the page offers, by the options of the command."""

    run: int | None = None
    since: datetime | None = None
    only: Only | None = None
    decisions: Sequence[str] = ()
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Where the page is served, and who decides on it."""

    host: str
    port: int
    opens_browser: bool
    by: str


def review(name: str, db: Path | None, shown: Shown, served: Served) -> ExitCode:
    """Serve the page until interrupted. Raises BatchgenError."""
    environment = Environment.load()
    ledger = environment.ledger_path(db, None)
    view = View(by=served.by, chosen=_filter(ledger, name, shown))
    batch = ReviewBatch(ledger, name, view)

    def ready(url: str) -> None:
        write_line(sys.stdout, f"{name}: review page at {url}")
        if environment.get("SSH_CONNECTION"):
            port = urlsplit(url).port
            write_line(
                sys.stdout, f"on your own machine: ssh -L {port}:{served.host}:{port} THIS_HOST"
            )
        elif served.opens_browser and has_browser(environment.get):
            webbrowser.open(url)
        write_line(sys.stdout, "stop it with Ctrl-C; decisions are saved as you make them")

    with suppress(KeyboardInterrupt):
        serve(batch, host=served.host, port=served.port, on_ready=ready)
    return ExitCode.DONE


def _filter(ledger: Path, name: str, shown: Shown) -> ImageFilter:
    """Return the images to offer: by default those of the newest run that saved any."""
    with closing(open_for_reading(ledger)) as conn:
        batch = find_batch(conn, name)
        refuse_buckets(conn, batch, "review")
        only = resolve_jobs(conn, shown.only, batch.id, name)
        run = shown.run
        if run is None and only is None and shown.since is None and not shown.tags:
            run = newest_run_with_images(conn, batch.id)
    return ImageFilter(
        runs=() if run is None else (run,),
        since=timestamp(shown.since) if shown.since is not None else None,
        only=only,
        decisions=shown.decisions,
        tags=shown.tags,
    )
