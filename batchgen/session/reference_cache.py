"""Fetch or revalidate reference images given by URL, once per run, into files named by content.

Planning comes before and after; this module knows no jobs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from batchgen.errors import SettingsError
from batchgen.http.deadlines import Deadlines
from batchgen.http.download import Downloader, Validators
from batchgen.http.network import Access, Network
from batchgen.images.formats import BadImage
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.reference_urls import FetchedUrl, NeededUrls
from batchgen.outcomes.classify import clean
from batchgen.outcomes.download_policy import FetchResult, reference_wait_s
from batchgen.planning.reference_images import read_content
from batchgen.session.bucket_references import fetch_object
from batchgen.storage.stores import Stores
from batchgen.system.atomic_files import (
    PART_SUFFIX,
    PRIVATE_FILE,
    PartFile,
    make_private_directory,
)
from batchgen.system.threads import in_disk_thread, in_store_thread
from batchgen.urls import is_bucket

WIDTH: Final = 8
"""URLs requested at the same time."""
_SETTLED_AT_ONCE: Final = 100
_SILENT_HOST: Final = 4
"""After this many consecutive URLs of a host without a response, its others are not requested."""


@dataclass(slots=True)
class Fetched:
    """The result for the URLs that a plan needs."""

    fetched: int = 0
    """New images, and URLs that return another image than before."""
    unchanged: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """Return the number of settled URLs."""
        return self.fetched + self.unchanged + self.failed


class ReferenceCache:
    """Updates the URLs of one plan. Used by one run at a time, for ``owner``."""

    def __init__(
        self,
        directory: Path,
        *,
        owner: str,
        network: Network,
        allow_loopback: bool,
        fresh_since: datetime,
        stores: Stores,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._directory = directory
        self._owner = owner
        self._network = network
        self._allow_loopback = allow_loopback
        self._fresh_since = timestamp(fresh_since)
        self._stores = stores
        self._progress = progress
        self._deadlines = Deadlines()
        self._silent: Counter[str] = Counter()
        self._found: list[FetchedUrl] = []
        self._problems: list[tuple[str, str]] = []
        self._result = Fetched()
        self._error: OSError | SettingsError | None = None
        """What keeps any image from being fetched; the URLs are not to blame."""

    async def bring(self, urls: NeededUrls) -> Fetched:
        """Request every URL not requested since ``fresh_since``, and record the results.

        A URL that fails is recorded and stops nothing. Raises OSError if the directory cannot be
        written, and SettingsError if a bucket cannot be opened.
        """
        await in_disk_thread(make_private_directory, self._directory)
        send, receive = anyio.create_memory_object_stream[tuple[str, FetchedUrl | None]]()
        async with anyio.create_task_group() as services:
            services.start_soon(self._deadlines.watch)
            async with anyio.create_task_group() as tasks:
                with receive:
                    for _ in range(WIDTH):
                        tasks.start_soon(self._work, receive.clone(), urls)
                async with send:
                    with suppress(anyio.BrokenResourceError):  # the disk refused then
                        for needed in urls:
                            await send.send(needed)
            services.cancel_scope.cancel()
        self._settle(urls)
        if self._error is not None:
            raise self._error
        return self._result

    async def _work(
        self, needed: MemoryObjectReceiveStream[tuple[str, FetchedUrl | None]], urls: NeededUrls
    ) -> None:
        async with (
            needed,
            Downloader(
                network=self._network,
                deadlines=self._deadlines,
                access=Access(allow_loopback=self._allow_loopback),
            ) as downloader,
        ):
            async for url, known in needed:
                if self._error is not None:
                    return
                try:
                    await self._bring_one(downloader, url, known)
                except (OSError, SettingsError) as exc:
                    self._error = exc
                    return
                if len(self._found) + len(self._problems) >= _SETTLED_AT_ONCE:
                    self._settle(urls)
                if self._progress is not None:
                    self._progress(self._result.total)

    def _settle(self, urls: NeededUrls) -> None:
        found, self._found = self._found, []
        problems, self._problems = self._problems, []
        urls.settle(found, problems)

    async def _bring_one(self, downloader: Downloader, url: str, known: FetchedUrl | None) -> None:
        if known is not None and not await in_disk_thread(self._is_whole, known):
            known = None
        if known is not None and known.fetched_at >= self._fresh_since:
            self._result.unchanged += 1
            return
        found = await self._ask(downloader, url, known)
        if isinstance(found, str):
            self._problems.append((url, clean(found)))
            self._result.failed += 1
            return
        self._found.append(found)
        if known is not None and found.sha256 == known.sha256:
            self._result.unchanged += 1
        else:
            self._result.fetched += 1

    def _is_whole(self, known: FetchedUrl) -> bool:
        try:
            return read_content(self._directory / known.file_name).sha256 == known.sha256
        except (OSError, BadImage):
            return False

    async def _ask(
        self, downloader: Downloader, url: str, known: FetchedUrl | None
    ) -> FetchedUrl | str:
        """Return what the URL returns now, or why it failed."""
        if is_bucket(url):
            part = self._directory / f"{self._part_name(url)}{PART_SUFFIX}"
            return await in_store_thread(fetch_object, self._stores, url, known, part)
        host = urlsplit(url).netloc.lower()
        if self._silent[host] >= _SILENT_HOST:
            return "its host gave no response for others, and was not asked again"
        for tries in count(1):
            result = await self._fetch(downloader, url, known)
            if not isinstance(result, FetchResult):
                break
            wait_s = reference_wait_s(result, tries=tries)
            if wait_s is None:
                break
            await anyio.sleep(wait_s)
        if isinstance(result, FetchResult) and result.status is None and result.detail:
            self._silent[host] += 1
        else:
            self._silent.pop(host, None)
        return _why(result) if isinstance(result, FetchResult) else result

    async def _fetch(
        self, downloader: Downloader, url: str, known: FetchedUrl | None
    ) -> FetchedUrl | FetchResult:
        validators = Validators()
        if known is not None:
            validators = Validators(etag=known.etag, last_modified=known.last_modified)
        part = PartFile(self._directory / self._part_name(url), mode=PRIVATE_FILE)
        async with part:
            result = await downloader.fetch_changed(url, part, validators)
            if isinstance(result, FetchResult):
                if result.status == 304 and known is not None:
                    return replace(known, fetched_at=timestamp(utc_now()))
                return result
            try:
                content = await part.seal(read_content)
            except BadImage as exc:
                return FetchResult(bad_image=str(exc))
            found = FetchedUrl(
                url=url,
                sha256=content.sha256,
                format=content.image.format,
                etag=result.etag,
                last_modified=result.last_modified,
                fetched_at=timestamp(utc_now()),
            )
            await part.commit(self._directory / found.file_name)
            return found

    def _part_name(self, url: str) -> str:
        """Return a name per URL and owner; the next run overwrites the part file of a killed
        one.
        """
        return hashlib.sha256(f"{self._owner}\n{url}".encode()).hexdigest()[:32]


def _why(result: FetchResult) -> str:
    if result.bad_image:
        return f"no reference image: {result.bad_image}"
    if result.status is not None:
        return f"HTTP {result.status}"
    return result.forbidden or result.detail
