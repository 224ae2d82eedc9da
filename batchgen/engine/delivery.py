"""Bring the images of paid jobs to disk. Nothing here sends a paid request.

The steps for an image: fetch it into a temporary file, verify, fsync, link it to its output path,
fsync the directory, record the path and that the image is saved, remove the temporary name. An
image that replaces another or has metadata, and one on a file system without hard links, is
renamed, and its path is recorded before. Every step can be repeated at no cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio

from batchgen.engine.attempt import expiry
from batchgen.engine.compressed_response import Compressed, StillUnread, read_compressed
from batchgen.engine.context import PaidJob, Requeue, RunContext, new_attempt_id
from batchgen.engine.delivery_results import (
    ImageResult,
    Saved,
    Waiting,
)
from batchgen.engine.events import JobDone, JobHeld
from batchgen.engine.executor import Executor, FetchOrder
from batchgen.engine.failed_download import failed_download, is_overdue, wait_asked_before
from batchgen.engine.image_source import ImageSource
from batchgen.engine.placing import ERRORS_OF_ONE_PATH, Placer
from batchgen.engine.redelivery import Redelivery
from batchgen.engine.saving import record_saved
from batchgen.engine.stop_reasons import DISK, STORAGE
from batchgen.engine.verification import (
    verify_file,
)
from batchgen.engine.video_tasks import (
    TaskDone,
    TaskFailed,
    TaskPoller,
    TaskUnresolved,
)
from batchgen.images.formats import BadImage
from batchgen.job import (
    PATH_REASON,
    AttemptId,
    Billed,
    Job,
    JobId,
    JobState,
    Outcome,
    SavedImage,
)
from batchgen.ledger.attempts import mark_response_spoiled, read_provenance, record_task_failure
from batchgen.ledger.clock import utc_now
from batchgen.ledger.copies import begin_copy, give_up_copy
from batchgen.ledger.group_commit import LedgerWriteError
from batchgen.ledger.images import (
    due_images,
    mark_extra_image_lost,
    mark_image_lost,
    record_download_failure,
    record_task_url,
)
from batchgen.ledger.jobs import read_job, set_job_reason
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.records import DueImage, JobFinished
from batchgen.outcomes.classify import (
    NO_MONEY,
    Classification,
    ErrorBody,
    classify_failed_task,
    clean,
)
from batchgen.outcomes.download_policy import (
    FetchAgain,
    FetchLater,
    FetchLost,
    FetchResult,
    FetchSpoiled,
)
from batchgen.outcomes.retry_policy import Next
from batchgen.output.final_names import Conflict
from batchgen.providers.adapters.video import is_video_task
from batchgen.spool.response_file import SpooledResponse
from batchgen.storage.store import StoreError
from batchgen.system.failpoints import Point, hit
from batchgen.system.threads import in_disk_thread
from batchgen.urls import path_below


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryTools:
    """The objects that the deliveries of a run share, besides its context."""

    executor: Executor
    source: ImageSource
    placer: Placer
    tasks: TaskPoller
    redelivery: Redelivery


class Delivery:
    """Brings the images of one paid job at a time to disk."""

    def __init__(self, context: RunContext, tools: DeliveryTools) -> None:
        self._context = context
        self._tools = tools
        self._redelivery = tools.redelivery
        self._placer = tools.placer

    async def deliver_left(self, job: JobId) -> Requeue | None:
        """Deliver a job that an earlier run, or an earlier try, left paid; see `deliver`."""
        try:
            paid = await self._context.ledger.run(_read_paid, job)
        except LedgerWriteError:
            self._redelivery.leave(job, [])
            raise
        return await self.deliver(paid)

    async def copy(self, job: JobId) -> Requeue | None:
        """Copy the image of another job that this one shares. Raises LedgerWriteError."""
        run, attempt = self._context.run, new_attempt_id()
        begun = await self._context.ledger.run(begin_copy, run, job, attempt)
        hit(Point.COPYING)
        return await self.deliver_left(job) if begun else None

    async def deliver(self, paid: PaidJob) -> Requeue | None:
        """Bring a job to ``done``, or leave it ``paid`` with the reason.

        Return the job if its response was spoiled and it may be sent again. A disk error stops
        dispatch. Raises LedgerWriteError.
        """
        end: Requeue | Waiting | None = None
        try:
            end = await self._deliver_or_leave(paid)
        finally:
            if not isinstance(end, Waiting):
                self._context.guard.given_up(paid.job)
                self._redelivery.leave(paid.job.id, [image.id for image in paid.due])
        return end if isinstance(end, Requeue) else None

    async def _deliver_or_leave(self, paid: PaidJob) -> Requeue | Waiting | None:
        """Deliver a job; leave it paid after an error of the disk or a bug."""
        context, job = self._context, paid.job
        try:
            return await self._deliver_recreating_directories(paid)
        except OSError as exc:
            place = STORAGE if isinstance(exc, StoreError) else DISK
            await self._leave_paid(job, f"{place}: {exc}")
            if exc.errno not in ERRORS_OF_ONE_PATH:
                context.throttle.stop(f"{place}: {exc}")
            await self._keep_images_in_spool(job)
        except Conflict as exc:
            reason = f"{PATH_REASON}: {exc.path} is not an image of this job; move it"
            await self._leave_paid(job, reason)
            await self._keep_images_in_spool(job)
        except LedgerWriteError:
            raise
        except Exception as exc:
            context.record_internal_error(exc)
            await self._leave_paid(job, f"internal_error: {exc!r}")
        return None

    async def _deliver_recreating_directories(self, paid: PaidJob) -> Requeue | Waiting | None:
        try:
            due: Sequence[DueImage] = paid.due
            if paid.is_left:
                due = await self._placer.call(self._placer.find_linked, paid.job, due)
            return await self._deliver_images(paid.job, due)
        except FileNotFoundError:
            # The output directory was removed during the run. Once is enough: the second try
            # creates it, and if it vanishes again the next run places the image.
            self._placer.forget_directories()
            due = await self._context.ledger.run(due_images, paid.job.id)
            return await self._deliver_images(paid.job, due)

    async def _keep_images_in_spool(self, job: Job) -> None:
        """Download the images of a job whose output path can't be written into the spool.

        Their URLs may have expired when the next run places them. The next run downloads what
        fails here.
        """
        for image in await self._context.ledger.run(due_images, job.id):
            if image.url is not None and not self._placer.may_have_bytes(image):
                with suppress(OSError, BadImage):
                    await self._keep_image_in_spool(job, image)

    async def _keep_image_in_spool(self, job: Job, image: DueImage) -> None:
        images, attempt = self._context.spool.images, image.attempt_id
        is_video = is_video_task(image.task)
        async with images.part(attempt, image.position) as part:
            if await self._tools.source.write_to(image, part) is None:
                await part.seal(lambda path: verify_file(path, job.verify, is_video=is_video))
                await in_disk_thread(images.keep, attempt, image.position, part.part)

    async def _deliver_images(self, job: Job, due: Iterable[DueImage]) -> Requeue | Waiting | None:
        saved: list[SavedImage] = []
        warnings: list[str] = []
        for image in due:
            result = await self._deliver_image(job, image)
            if image.rank and isinstance(result, FetchLater | FetchLost | FetchSpoiled):
                # The requested image decides about the job; an extra one is only a warning.
                warnings.append(f"extra image {image.rank} was not saved: {result.reason}")
                finished = await self._context.ledger.run(
                    mark_extra_image_lost, image.id, result.reason
                )
                if finished is not None:
                    await self._finish_job(job, finished, saved, warnings)
                continue
            match result:
                case Saved(image=one, finished=finished):
                    saved.append(one)
                    if image.copy_of is None:  # a copy says nothing about the provider
                        await self._context.guard.saved(job, self._context.ledger)
                    if finished is not None:
                        await self._finish_job(job, finished, saved, warnings)
                case FetchAgain(wait_s, reason):
                    if await self._redelivery.put(job, wait_s, reason):
                        return Waiting()
                    await self._leave_paid(job, reason)
                    return None
                case FetchLater(reason):
                    await self._leave_paid(job, reason)
                    return None
                case FetchLost(reason):
                    await self._mark_lost(job, image, reason)
                    return None
                case FetchSpoiled(reason) if image.copy_of is not None:
                    await self._give_up_copy(job, image.attempt_id, reason)
                    return None
                case FetchSpoiled(reason):
                    return await self._mark_spoiled(job, image.attempt_id, reason)
                case Compressed(response):
                    return await self._read_compressed(job, image.attempt_id, response)
                case TaskFailed(error):
                    await self._record_failed_task(job, image.attempt_id, error)
                    return None
                case TaskUnresolved(reason):
                    await self._hold_unknown_task(job, image.attempt_id, reason)
                    return None
        return None

    async def _deliver_image(self, job: Job, image: DueImage) -> ImageResult:
        """Try to save one image; decide what follows a failure."""
        if image.path and image.sha256:
            placed = await self._placer.call(self._placer.find_placed, job, image)
            if placed is not None:
                order = FetchOrder(job, image)
                found = await record_saved(self._context, self._placer, order, placed)
                await self._placer.call(self._placer.drop_left_part, image)
                return found
        if image.task is not None and image.url is None and image.copy_of is None:
            end = await self._tools.tasks.poll_until_done(image.task)
            match end:
                case TaskFailed():
                    return end
                case TaskUnresolved(unknown=True) if not is_video_task(image.task):
                    return end
                case TaskUnresolved(reason, unknown):
                    is_lost = unknown and is_overdue(image, utc_now())
                    return FetchLost(reason) if is_lost else FetchLater(f"task: {reason}")
                case TaskDone(url):
                    image = await self._record_task_url(image, url)
        began = utc_now()
        asked = wait_asked_before(image, began)
        if asked is not None and not self._placer.may_have_bytes(image):
            return asked
        result = await self._tools.executor.fetch(FetchOrder(job, image))
        if not isinstance(result, FetchResult):
            return result
        tries = self._redelivery.count(image.id)
        failed = failed_download(image, result, tries=tries, began=began)
        self._context.guard.failing(job, failed.trouble)
        await self._context.ledger.run(
            record_download_failure,
            image.id,
            job.id,
            trouble=failed.trouble,
            reason=failed.reason,
            not_before=failed.not_before,
        )
        return failed.decision

    async def _record_task_url(self, image: DueImage, url: str) -> DueImage:
        expires = expiry(url)
        await self._context.ledger.run(record_task_url, image.id, url, expires)
        return replace(image, url=url, expires_at=expires)

    async def _finish_job(
        self,
        job: Job,
        finished: JobFinished,
        saved: list[SavedImage],
        warnings: Sequence[str],
    ) -> None:
        context = self._context
        if finished.replaced or job.keep_partials:
            with anyio.CancelScope(shield=True):
                origin = await context.ledger.run(read_provenance, finished.attempt_id)
                await self._placer.call(self._placer.clean_up, job, finished, saved, origin.batch)
        context.tally.jobs_done += 1
        warnings = (*(warning for image in saved for warning in image.warnings), *warnings)
        paths = tuple(path_below(job.root, image.path) for image in saved)
        context.observe(JobDone(key=job.key, paths=paths, warnings=warnings))
        if finished.has_spool_file:
            await context.spool.remove_later(finished.attempt_id)

    async def _leave_paid(self, job: Job, reason: str) -> None:
        self._context.guard.failing(job, reason)
        await self._context.ledger.run(set_job_reason, job.id, reason)
        self._context.observe(JobHeld(key=job.key, state=JobState.PAID, reason=reason))

    async def _mark_lost(self, job: Job, image: DueImage, reason: str) -> None:
        self._context.guard.failing(job, reason)
        await self._context.ledger.run(mark_image_lost, image.id, job.id, reason)
        self._context.observe(JobHeld(key=job.key, state=JobState.FAILED, reason=reason))

    async def _record_failed_task(self, job: Job, attempt: AttemptId, error: ErrorBody) -> None:
        context = self._context
        classification = classify_failed_task(
            error, context.profile.failed_tasks_billed, prompt=job.prompt
        )
        context.guard.concluded(job, classification)
        if classification.outcome is Outcome.STOP or classification.code == NO_MONEY:
            context.throttle.stop(f"{classification.code}: {classification.message}")
        following = await context.ledger.run(
            record_task_failure, attempt, classification, context.run
        )
        context.observe(JobHeld(key=job.key, state=following.state, reason=following.reason))

    async def _hold_unknown_task(self, job: Job, attempt: AttemptId, reason: str) -> None:
        """Hold a job as uncertain whose task is unknown at its polling URL."""
        classification = Classification(
            outcome=Outcome.AMBIGUOUS, billed=Billed.MAYBE, code="task", message=clean(reason)
        )
        self._context.guard.concluded(job, classification)
        following = await self._context.ledger.run(
            record_task_failure, attempt, classification, self._context.run, hold=True
        )
        self._context.observe(JobHeld(key=job.key, state=following.state, reason=following.reason))

    async def _read_compressed(
        self, job: Job, attempt: AttemptId, stored: SpooledResponse
    ) -> Requeue | Waiting | None:
        """Deliver the images of a response that could not be decompressed when it arrived."""
        found = await read_compressed(self._context, job, attempt, stored)
        match found:
            case list():
                return await self._deliver_images(job, found)
            case Next():
                return await self._continue_after(job, found)
            case StillUnread(reason):
                await self._leave_paid(job, reason)
                return None

    async def _give_up_copy(self, job: Job, attempt: AttemptId, why: str) -> None:
        reason = await self._context.ledger.run(give_up_copy, job.id, attempt, why)
        self._context.observe(JobHeld(key=job.key, state=JobState.PENDING, reason=reason))

    async def _mark_spoiled(self, job: Job, attempt: AttemptId, reason: str) -> Requeue | None:
        context = self._context
        context.guard.failing(job, reason)
        classification = Classification(
            outcome=Outcome.SPOILED, billed=Billed.YES, code="bad_image", message=reason
        )
        following = await context.ledger.run(
            mark_response_spoiled, attempt, classification, context.run
        )
        return await self._continue_after(job, following)

    async def _continue_after(self, job: Job, following: Next) -> Requeue | None:
        """Report what follows a paid response without an image, and return a job to be resent."""
        context = self._context
        context.observe(JobHeld(key=job.key, state=following.state, reason=following.reason))
        if following.state is not JobState.PENDING:
            return None
        fresh = await context.ledger.run(read_job, job.id)
        return Requeue(job=fresh, wait_s=following.wait_s)


def _read_paid(ledger: Ledger, job: JobId) -> PaidJob:
    return PaidJob(read_job(ledger, job), tuple(due_images(ledger, job)), is_left=True)
