"""`batchgen review`: serve the review page of a batch on this machine."""

from __future__ import annotations

import json
import sys
import webbrowser
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from batchgen.commands.shown_images import ShownImages
from batchgen.console.ask import has_browser
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, LedgerBusyError, LedgerError
from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.ledger.review import image_index
from batchgen.ledger.review_summary import newest_run_with_images
from batchgen.ledger.saved_places import saved_roots
from batchgen.review.batch import ReviewBatch, View
from batchgen.review.page_url import page_url
from batchgen.review.server import serve
from batchgen.session.settings import Environment
from batchgen.session.storage import check_opened
from batchgen.system.shell_command import batch_command


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Where the page is served, and who decides on it."""

    host: str
    port: int
    opens_browser: bool
    by: str


def review(
    name: str, db: Path | None, shown: ShownImages, served: Served, *, as_json: bool = False
) -> ExitCode:
    """Serve the page until interrupted; with ``as_json`` no browser opens. Raises BatchgenError."""
    environment = Environment.load()
    ledger = environment.ledger_path(db, None)
    batch = ReviewBatch(ledger, name, _view(ledger, name, shown, served.by))
    _check_saves(ledger, name)

    def ready(url: str) -> None:
        if as_json:
            write_line(sys.stdout, json.dumps(_record(batch, url)))
            return
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


def _check_saves(ledger: Path, name: str) -> None:
    """Raise LedgerError if decisions could not be saved; a run that writes now is waited for."""
    try:
        open_for_writing(ledger, checked=True).close()
    except LedgerBusyError:
        pass
    except LedgerError as exc:
        gallery = batch_command("gallery", name)
        raise LedgerError(
            f"{exc}; no decision could be saved. `{gallery}` shows the images"
        ) from None


def _record(batch: ReviewBatch, url: str) -> dict[str, object]:
    """Return where the page is and what it shows, for a program that opens it."""
    view = batch.view
    return {
        "batch": batch.row.name,
        "url": url,
        "token": urlsplit(url).fragment,
        "run_url": page_url(url, "run", with_token=False),
        "compare_url": page_url(url, "compare", with_token=False),
        "images": len(batch.read(image_index, batch.id, view.chosen).ids),
        "runs": list(view.chosen.runs),
        "by": view.by,
        "ledger": str(batch.ledger),
    }


def _view(ledger: Path, name: str, shown: ShownImages, by: str) -> View:
    """Return the images to offer: by default those of the newest run that saved any."""
    with closing(open_for_reading(ledger)) as conn:
        batch = find_batch(conn, name)
        check_opened(ledger, batch, saved_roots(conn, batch.id))
        is_open = shown.run is None and shown.only is None and shown.since is None
        is_newest = is_open and not shown.tags
        if is_newest:
            shown = replace(shown, run=newest_run_with_images(conn, batch.id))
        return View(by=by, chosen=shown.of_batch(conn, batch), is_newest_run=is_newest)
