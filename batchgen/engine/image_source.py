"""Get the bytes of a paid image: from disk, from another job, by download, or from the spool."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit, urlunsplit

from batchgen.engine.compressed_response import Compressed
from batchgen.engine.context import RunContext
from batchgen.engine.failed_download import is_overdue
from batchgen.engine.placing import Placer
from batchgen.engine.spooled_image import SpoolUnreadable, StillCompressed, spooled_image
from batchgen.http.download import MAX_IMAGE_BYTES, Downloader
from batchgen.images.base64_scanner import unpack_base64
from batchgen.ledger.clock import utc_now
from batchgen.ledger.copies import find_original
from batchgen.ledger.records import DueImage
from batchgen.outcomes.download_policy import FetchLater, FetchResult, FetchSpoiled
from batchgen.providers.adapters.video import is_video_task
from batchgen.system.atomic_files import PartFile
from batchgen.system.threads import in_decode_thread
from batchgen.urls import image_urls, is_loopback

MAX_VIDEO_BYTES: Final = 1024 * 1024 * 1024


class ImageSource:
    """Writes the bytes of paid images to temporary files."""

    def __init__(self, context: RunContext, downloader: Downloader, placer: Placer) -> None:
        self._context = context
        self._downloader = downloader
        self._placer = placer

    async def write_to(
        self, image: DueImage, part: PartFile
    ) -> FetchResult | FetchLater | FetchSpoiled | Compressed | None:
        """Write an image to a temporary file; return why it failed, or None for success."""
        placer = self._placer
        if placer.may_have_bytes(image) and await placer.call(placer.adopt_kept, image, part):
            return None
        if image.copy_of is not None:
            return await self._copy_original(image, part)
        if image.url is not None:
            max_bytes = MAX_VIDEO_BYTES if is_video_task(image.task) else MAX_IMAGE_BYTES
            return await self._downloader.fetch(self.url_of(image), part, max_bytes=max_bytes)
        try:
            await in_decode_thread(self._unpack, image, part)
        except SpoolUnreadable as exc:
            return FetchLater(f"spool: {exc}")
        except StillCompressed as exc:
            return Compressed(exc.response)
        except ValueError as exc:
            return FetchSpoiled(f"invalid base64: {exc}")
        return None

    async def _copy_original(self, image: DueImage, part: PartFile) -> FetchSpoiled | None:
        original = await self._context.ledger.run(find_original, image)
        placer = self._placer
        if original is not None and await placer.call(placer.copy_original, original, part):
            return None
        return FetchSpoiled("its image is missing or changed")

    def _unpack(self, image: DueImage, part: PartFile) -> None:
        """Write an inline image. Raises what `spooled_image` does, and ValueError for no base64."""
        base64, source = spooled_image(self._context.spool, image.attempt_id, image.position)
        if source is not None:
            part.adopt(source)
        else:
            part.write_blocking(unpack_base64(base64))

    def url_of(self, image: DueImage) -> str:
        """Return the absolute URL of an image; every second try is of another reading.

        It is at the current port of an endpoint that is restarted for each run.
        """
        url, *others = image_urls(image.url or "", self._context.base_url)
        if others and image.tries % 2 == 1 and not is_overdue(image, utc_now()):
            url = others[image.tries // 2 % len(others)]
        if not self._context.profile.moves_results:
            return url
        parts = urlsplit(url)
        if not is_loopback(parts.hostname or ""):
            return url
        return urlunsplit(parts._replace(netloc=urlsplit(self._context.base_url).netloc))
