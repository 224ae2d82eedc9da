"""From a paid job to verified images under their final names. Never asks for a new image.

Download or unpack to ``.part``, verify, sync, write where it goes, rename, sync the directory, and
write ``done``. Everything here is free to repeat.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import anyio

from batchgen.engine.events import JobDone, JobHeld
from batchgen.engine.failed_download import failed_download, is_overdue, wait_asked_before
from batchgen.engine.placing import OF_ONE_PATH, Conflict, Placer, examine
from batchgen.engine.redelivery import Redelivery
from batchgen.engine.spooled_image import SpoolUnreadable, spooled_image
from batchgen.engine.video_tasks import TaskFailed, TaskLater, TaskMade, TaskWatch
from batchgen.engine.worker import Again, Paid, RunContext, expiry, new_attempt, note_internal_error
from batchgen.http.download import MAX_IMAGE_BYTES, Downloader
from batchgen.images.base64_scanner import unpack_base64
from batchgen.images.inspect import BadImage, ImageInfo, inspect, is_blank, mismatches
from batchgen.images.xmp import embed
from batchgen.job import (
    EXT_PLACEHOLDER,
    PATH_REASON,
    AttemptId,
    Billed,
    Job,
    JobId,
    JobState,
    Outcome,
    SavedImage,
)
from batchgen.ledger.copies import begin_copy, give_up_copy, original_of
from batchgen.ledger.ledger import DueImage, JobFinished, Provenance, utc_now
from batchgen.ledger.writer import LedgerWriteError
from batchgen.outcomes.classify import NO_MONEY, Classification, ErrorBody, classify_failed_task
from batchgen.outcomes.download_policy import (
    FetchAgain,
    FetchLater,
    FetchLost,
    FetchResult,
    FetchSpoiled,
)
from batchgen.output.sidecar import described, write_sidecar
from batchgen.planning.naming import final_path
from batchgen.system.atomic_files import PartFile, write_whole
from batchgen.system.failpoints import Point, reach
from batchgen.system.threads import in_turn, on_disk
from batchgen.urls import is_loopback

MAX_VIDEO_BYTES: Final = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saved:
    """An image is in its place, and the job is done if it was the last."""

    image: SavedImage
    finished: JobFinished | None


_Placed = _Saved | FetchAgain | FetchLater | FetchLost | FetchSpoiled | TaskFailed


@dataclass(frozen=True, slots=True)
class _Waits:
    """The job is tried again later in this run."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A whole image, and whether something stands in its place."""

    info: ImageInfo
    sha256: str
    taken: bool


class Delivery:
    """Puts the images of one paid job at a time on disk."""

    def __init__(
        self,
        context: RunContext,
        downloader: Downloader,
        base: Path,
        *,
        tasks: TaskWatch,
        redelivery: Redelivery,
        overwrite: bool = False,
    ) -> None:
        self._context = context
        self._downloader = downloader
        self._base = base
        self._tasks = tasks
        self._redelivery = redelivery
        self._placer = Placer(context, base, overwrite=overwrite)

    async def deliver_left(self, job: JobId) -> Again | None:
        """As `deliver`, for a job that an earlier run left paid."""
        try:
            paid = await self._context.ledger(
                lambda ledger: Paid(ledger.job(job), tuple(ledger.due(job)))
            )
        except LedgerWriteError:
            self._redelivery.leave(job, [])
            raise
        return await self.deliver(paid)

    async def copy(self, job: JobId) -> Again | None:
        """Give a job a copy of the image of the job that it shares. Raises LedgerWriteError."""
        run, attempt = self._context.run, new_attempt()
        begun = await self._context.ledger(lambda ledger: begin_copy(ledger, run, job, attempt))
        reach(Point.COPYING)
        return await self.deliver_left(job) if begun else None

    async def deliver(self, paid: Paid) -> Again | None:
        """Bring the job to ``done``, or leave it ``paid`` with the reason.

        Gives the job back where its response was spoiled and may be bought again. A disk that
        refuses stops dispatch. Raises LedgerWriteError.
        """
        end: Again | _Waits | None = None
        try:
            end = await self._deliver_or_hold(paid)
        finally:
            if not isinstance(end, _Waits):
                self._context.guard.given_up(paid.job)
                self._redelivery.leave(paid.job.id, [image.id for image in paid.due])
        return end if isinstance(end, Again) else None

    async def _deliver_or_hold(self, paid: Paid) -> Again | _Waits | None:
        context, job = self._context, paid.job
        try:
            try:
                return await self._deliver(job, paid.due)
            except FileNotFoundError:
                self._placer.forget_directories()
                return await self._deliver(job, await self._still_due(job))
        except OSError as exc:
            await self._leave(job, f"disk: {exc}")
            if exc.errno not in OF_ONE_PATH:
                context.throttle.stop(f"disk: {exc}")
            await self._rescue(job)
        except Conflict as exc:
            await self._leave(
                job, f"{PATH_REASON}: {exc.path} is not an image of this job; move it"
            )
            await self._rescue(job)
        except LedgerWriteError:
            raise
        except Exception as exc:
            note_internal_error(context, exc)
            await self._leave(job, f"internal_error: {exc!r}")
        return None

    async def _rescue(self, job: Job) -> None:
        """Bring the images of a job whose place can't be written into the spool.

        Their URLs may have expired when the next run places them. What fails here, that run
        downloads.
        """
        for image in await self._still_due(job):
            if image.url is not None and not self._placer.has_kept(image):
                with suppress(OSError, BadImage):
                    await self._bring_into_spool(job, image)

    async def _bring_into_spool(self, job: Job, image: DueImage) -> None:
        images, attempt = self._context.spool.images, image.attempt_id
        async with images.part(attempt, image.position) as part:
            if await self._fill(image, part) is None:
                await part.seal(lambda path: examine(path, job.verify, image.task is not None))
                await on_disk(images.keep, attempt, image.position, part.part)

    async def _still_due(self, job: Job) -> list[DueImage]:
        return await self._context.ledger(lambda ledger: ledger.due(job.id))

    async def _deliver(self, job: Job, due: Iterable[DueImage]) -> Again | _Waits | None:
        saved: list[SavedImage] = []
        warnings: list[str] = []
        for image in due:
            placed = await self._bring(job, image)
            if image.rank and isinstance(placed, FetchLater | FetchLost | FetchSpoiled):
                warnings.append(f"extra image {image.rank} was not saved: {placed.reason}")
                finished = await self._forgo(image, placed.reason)
                if finished is not None:
                    await self._finish(job, finished, saved, warnings)
                continue
            match placed:
                case _Saved(image=one, finished=finished):
                    saved.append(one)
                    if image.copy_of is None:  # a copy proves nothing of the provider
                        await self._context.guard.saved(job, self._context.ledger)
                    if finished is not None:
                        await self._finish(job, finished, saved, warnings)
                case FetchAgain(wait_s, reason):
                    if await self._redelivery.put(job, wait_s, reason):
                        return _Waits()
                    await self._leave(job, reason)
                    return None
                case FetchLater(reason):
                    await self._leave(job, reason)
                    return None
                case FetchLost(reason):
                    await self._lose(job, image, reason)
                    return None
                case FetchSpoiled(reason) if image.copy_of is not None:
                    await self._give_up_copy(job, image.attempt_id, reason)
                    return None
                case FetchSpoiled(reason):
                    return await self._spoil(job, image.attempt_id, reason)
                case TaskFailed(error):
                    await self._task_failed(job, image.attempt_id, error)
                    return None
        return None

    async def _bring(self, job: Job, image: DueImage) -> _Placed:
        """Try to get one image onto disk, and decide what follows where that fails."""
        if image.path and image.sha256:
            placed = await on_disk(self._placer.already_placed, job, image)
            if placed is not None:
                return await self._save(job, image, placed)
        if image.task is not None and image.url is None and image.copy_of is None:
            end = await self._tasks.until_over(image.task)
            match end:
                case TaskFailed():
                    return end
                case TaskLater(reason, unknown):
                    lost = unknown and is_overdue(image, utc_now())
                    return FetchLost(reason) if lost else FetchLater(f"task: {reason}")
                case TaskMade(url):
                    image = await self._made(image, url)
        began = utc_now()
        asked = wait_asked_before(image, began)
        if asked is not None and not self._placer.has_kept(image):
            return asked
        result = await self._try(job, image)
        if not isinstance(result, FetchResult):
            return result
        tries = self._redelivery.count(image.id)
        failed = failed_download(image, result, tries=tries, began=began)
        self._context.guard.failing(job, failed.trouble)
        await self._context.ledger(
            lambda ledger: ledger.fetch_failed(
                image.id,
                job.id,
                trouble=failed.trouble,
                reason=failed.reason,
                not_before=failed.not_before,
            )
        )
        return failed.decision

    async def _made(self, image: DueImage, url: str) -> DueImage:
        expires = expiry(url)
        await self._context.ledger(lambda ledger: ledger.task_made(image.id, url, expires))
        return replace(image, url=url, expires_at=expires)

    async def _try(
        self, job: Job, image: DueImage
    ) -> _Saved | FetchResult | FetchLater | FetchSpoiled:
        # The format, and with it the rest of the path, is not known before the image is here.
        directory = await self._placer.directory(job.root, job.path.partition(EXT_PLACEHOLDER)[0])
        # Named by the attempt alone: long names of two jobs may differ in their last bytes only.
        name = f".{image.attempt_id}.{image.position}"
        async with PartFile(directory / name, mode=0o666) as part:
            failed = await self._fill(image, part)
            if failed is not None:
                return failed
            try:
                seen = await part.seal(lambda path: self._look(path, job, image))
            except BadImage as exc:
                self._context.spool.images.drop(image.attempt_id, image.position)
                reason = f"{exc.reason}: {exc}"
                # A response does not change by reading it again; what a URL serves may.
                return FetchSpoiled(reason) if image.url is None else FetchResult(bad_image=reason)
            info, sha256 = seen.info, seen.sha256
            if job.metadata and image.task is None:
                origin = await self._origin(image)
                info, sha256 = await on_disk(_describe, part.part, job, origin)
            saved = SavedImage(
                path=final_path(job.path, info.format.extension, image.rank),
                sha256=sha256,
                bytes=info.size_bytes,
                width=info.width,
                height=info.height,
                format=info.format.value,
                warnings=mismatches(info, job.options),
            )
            if image.replaces is not None and image.rank == 0:
                worse = await on_disk(_worse, part.part, saved, image)
                if worse is not None:
                    return FetchSpoiled(worse)
            # From here to the row there is nothing to wait for but our own disk.
            with anyio.CancelScope(shield=True):
                await self._placer.place(job, image, part, saved, taken=seen.taken)
                placed = await self._save(job, image, saved)
                if self._placer.has_kept(image):
                    await on_disk(self._placer.forget_kept, job, image, saved)
            return placed

    def _look(self, part: Path, job: Job, image: DueImage) -> _Seen:
        """Verify what came, and see whether its place is free. Raises BadImage and OSError."""
        info, sha256 = examine(part, job.verify, image.task is not None)
        final = self._base / job.root / final_path(job.path, info.format.extension, image.rank)
        return _Seen(info, sha256, os.path.lexists(final))

    async def _fill(
        self, image: DueImage, part: PartFile
    ) -> FetchResult | FetchLater | FetchSpoiled | None:
        if self._placer.has_kept(image) and await on_disk(self._placer.adopt_kept, image, part):
            return None
        if image.copy_of is not None:
            return await self._copy(image, part)
        if image.url is not None:
            most = MAX_IMAGE_BYTES if image.task is None else MAX_VIDEO_BYTES
            return await self._downloader.fetch(self._moved(image.url), part, max_bytes=most)
        try:
            await in_turn(self._unpack, image, part)
        except SpoolUnreadable as exc:
            return FetchLater(f"spool: {exc}")
        except ValueError as exc:
            return FetchSpoiled(f"no base64: {exc}")
        return None

    async def _copy(self, image: DueImage, part: PartFile) -> FetchSpoiled | None:
        original = await self._context.ledger(lambda ledger: original_of(ledger.conn, image))
        if original is not None and await on_disk(self._placer.copy_original, original, part):
            return None
        return FetchSpoiled("its image is missing or changed")

    def _unpack(self, image: DueImage, part: PartFile) -> None:
        """Raises SpoolUnreadable, and ValueError for base64 that is broken in the response."""
        spool = self._context.spool
        base64, source = spooled_image(spool, image.attempt_id, image.position)
        if source is not None:
            part.adopt(source)
        else:
            part.write_here(unpack_base64(base64))

    def _moved(self, url: str) -> str:
        """The address at the endpoint's present port, for one that is started anew for each run."""
        if not self._context.profile.moves_results:
            return url
        parts = urlsplit(url)
        if not is_loopback(parts.hostname or ""):
            return url
        return urlunsplit(parts._replace(netloc=urlsplit(self._context.base_url).netloc))

    async def _origin(self, image: DueImage) -> Provenance:
        return await self._context.ledger(lambda ledger: ledger.provenance(image.attempt_id))

    async def _save(self, job: Job, image: DueImage, saved: SavedImage) -> _Saved:
        if job.sidecar:
            final = self._base / job.root / saved.path
            origin = await self._origin(image)
            await on_disk(write_sidecar, final, job, saved, origin)
        finished = await self._context.ledger(lambda ledger: ledger.image_saved(image.id))
        reach(Point.SAVED)
        return _Saved(image=saved, finished=finished)

    async def _forgo(self, image: DueImage, reason: str) -> JobFinished | None:
        """Give up an extra image: the requested one decides what becomes of the job."""
        return await self._context.ledger(lambda ledger: ledger.extra_lost(image.id, reason))

    async def _finish(
        self,
        job: Job,
        finished: JobFinished,
        saved: list[SavedImage],
        lacking: Sequence[str] = (),
    ) -> None:
        context = self._context
        if finished.replaced or job.keep_partials:
            with anyio.CancelScope(shield=True):
                origin = await context.ledger(lambda ledger: ledger.provenance(finished.attempt_id))
                await on_disk(self._placer.tidy, job, finished, saved, origin.batch)
        context.made += 1
        warnings = (*(warning for image in saved for warning in image.warnings), *lacking)
        paths = tuple(str(PurePosixPath(job.root) / image.path) for image in saved)
        context.observe(JobDone(key=job.key, paths=paths, warnings=warnings))
        await context.spool.no_longer(finished.attempt_id)

    async def _leave(self, job: Job, reason: str) -> None:
        self._context.guard.failing(job, reason)
        await self._context.ledger(lambda ledger: ledger.note(job.id, reason))
        self._context.observe(JobHeld(key=job.key, state=JobState.PAID, reason=reason))

    async def _lose(self, job: Job, image: DueImage, reason: str) -> None:
        self._context.guard.failing(job, reason)
        await self._context.ledger(lambda ledger: ledger.image_lost(image.id, job.id, reason))
        self._context.observe(JobHeld(key=job.key, state=JobState.FAILED, reason=reason))

    async def _task_failed(self, job: Job, attempt: AttemptId, error: ErrorBody) -> None:
        context = self._context
        classification = classify_failed_task(
            error, context.profile.failed_tasks_billed, prompt=job.prompt
        )
        context.guard.concluded(job, classification)
        if classification.outcome is Outcome.STOP or classification.code == NO_MONEY:
            context.throttle.stop(f"{classification.code}: {classification.message}")
        following = await context.ledger(
            lambda ledger: ledger.task_failed(attempt, classification, context.run)
        )
        context.observe(JobHeld(key=job.key, state=following.state, reason=following.reason))

    async def _give_up_copy(self, job: Job, attempt: AttemptId, why: str) -> None:
        reason = await self._context.ledger(
            lambda ledger: give_up_copy(ledger.conn, job.id, attempt, why)
        )
        self._context.observe(JobHeld(key=job.key, state=JobState.PENDING, reason=reason))

    async def _spoil(self, job: Job, attempt: AttemptId, reason: str) -> Again | None:
        context = self._context
        context.guard.failing(job, reason)
        classification = Classification(
            outcome=Outcome.SPOILED, billed=Billed.YES, code="bad_image", message=reason
        )
        following = await context.ledger(
            lambda ledger: ledger.spoil(attempt, classification, context.run)
        )
        context.observe(JobHeld(key=job.key, state=following.state, reason=following.reason))
        if following.state is not JobState.PENDING:
            return None
        fresh = await context.ledger(lambda ledger: ledger.job(job.id))
        return Again(job=fresh, wait_s=following.wait_s)


def _describe(path: Path, job: Job, origin: Provenance) -> tuple[ImageInfo, str]:
    """Write into a verified image what it is; examined again, it is as good as before."""
    values = {"batch": origin.batch, "key": job.key, **described(job, origin)}
    plain = path.read_bytes()
    data = embed(plain, {name: text for name, text in values.items() if text})
    try:
        info = inspect(data)
    except BadImage:  # as large as an image may be already
        data, info = plain, inspect(plain)
    write_whole(path, data)
    return info, hashlib.sha256(data).hexdigest()


def _worse(path: Path, saved: SavedImage, image: DueImage) -> str | None:
    """Why a new image must not replace the good one that is there; None where it may."""
    like_the_old = image.replaces == f"{saved.width}x{saved.height} {saved.format}"
    if saved.warnings and not like_the_old:
        return f"worse than the image it would replace: {saved.warnings[0]}"
    if image.task is None and is_blank(path):
        return "worse than the image it would replace: all of it is one colour"
    return None
