"""Fetch the reference images given by URL before a run sends anything."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from batchgen.errors import SettingsError
from batchgen.http.session import open_network
from batchgen.job import REFERENCE_REASON, BatchId, JobId
from batchgen.ledger.clock import utc_now
from batchgen.ledger.reference_urls import (
    NeededUrls,
    pending_references,
    urls_of_content,
)
from batchgen.session.prepare import Prepared
from batchgen.session.presenter import Presenter
from batchgen.urls import is_loopback, is_url

if TYPE_CHECKING:
    from batchgen.session.reference_cache import Fetched


class ReferenceImages:
    """Fetches what plans need; a URL that several manifests share is requested once."""

    def __init__(self, presenter: Presenter) -> None:
        self._presenter = presenter
        self._began = utc_now()

    def bring(self, prepared: Prepared, urls: NeededUrls) -> Fetched:
        """Fetch or revalidate the URLs, and report the result. Raises SettingsError."""
        # Imported here: few manifests name URLs, and the import would delay all runs.
        from batchgen.session.reference_cache import ReferenceCache

        with self._presenter.fetching(len(urls)) as progress:
            cache = ReferenceCache(
                prepared.references,
                owner=prepared.loaded.name,
                network=open_network(prepared.profile.network),
                allow_loopback=_is_on_loopback(prepared),
                fresh_since=self._began,
                stores=prepared.stores(),
                progress=progress,
            )
            try:
                result = anyio.run(cache.bring, urls, backend="asyncio")
            except OSError as exc:
                raise SettingsError(
                    f"{prepared.references}: reference images can't be kept: {exc.strerror};"
                    " nothing was sent"
                ) from exc
        self._presenter.detail(_result_text(prepared.loaded.name, result))
        return result

    def restore(
        self, conn: sqlite3.Connection, prepared: Prepared, batch: BatchId
    ) -> tuple[NeededUrls, Iterator[tuple[JobId, str]]]:
        """Fetch missing copies before a batch continues without its manifest.

        Returns what was fetched, and the jobs whose image is not available, with the reason. Raises
        SettingsError.
        """
        urls = NeededUrls(conn, prepared.references)
        for _, references in pending_references(conn, batch):
            for copy in _lost_copies(references, prepared.references):
                for known in urls_of_content(conn, copy.stem)[:1]:
                    urls.find(known.url)
        if len(urls):
            self.bring(prepared, urls)
        return urls, _refusals(conn, prepared.references, batch, urls)


def _lost_copies(references: Iterable[str], directory: Path) -> Iterator[Path]:
    for reference in references:
        path = Path(reference)
        if path.parent == directory and not path.is_file():
            yield path


def _refusals(
    conn: sqlite3.Connection, directory: Path, batch: BatchId, urls: NeededUrls
) -> Iterator[tuple[JobId, str]]:
    """Yield each pending job that lacks an image, and the reason."""
    for job, references in pending_references(conn, batch):
        reasons = [f"{url} is not fetched" for url in references if is_url(url)]
        for copy in _lost_copies(references, directory):
            why = "its URL has another image by now"
            for known in urls_of_content(conn, copy.stem)[:1]:
                why = f"{known.url} failed: {urls.find(known.url).problem}"
            reasons.append(f"the copy {copy.name} is gone, and {why}")
        if reasons:
            yield job, f"{REFERENCE_REASON}: {reasons[0]}; run the manifest, which fetches it"


def _is_on_loopback(prepared: Prepared) -> bool:
    """Return whether the provider is on this machine; only then may an image be."""
    base_url = prepared.profile.base_url
    return base_url is None or is_loopback(urlsplit(base_url).hostname or "")


def _result_text(name: str, result: Fetched) -> str:
    text = (
        f"{name}: reference images by URL: {result.fetched:,} fetched,"
        f" {result.unchanged:,} unchanged"
    )
    return f"{text}, {result.failed:,} failed" if result.failed else text
