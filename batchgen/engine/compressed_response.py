"""Read a paid response that was stored compressed, for lack of a library to decompress it.

Such a response counts as one image that is due until it can be read: its job is ``paid``, and every
run tries again. What it really holds is recorded then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from batchgen.engine.attempt import expiry, stored_reference
from batchgen.engine.context import RunContext
from batchgen.engine.recovery import habits_of
from batchgen.http.content_coding import MAX_EXPANSION, BadCoding, ContentDecoder
from batchgen.job import AttemptId, Job, Outcome
from batchgen.ledger.attempts import record_decompressed, record_task_failure
from batchgen.ledger.records import DueImage
from batchgen.outcomes.classify import Classification, Exchange, Reach, classify
from batchgen.outcomes.retry_policy import Next
from batchgen.providers.adapters.registry import adapter_of
from batchgen.providers.adapters.tasks import followed
from batchgen.spool.redaction import redacted
from batchgen.spool.response_file import SpooledResponse
from batchgen.spool.writer import SpoolWriter
from batchgen.system.threads import in_decode_thread, in_disk_thread


@dataclass(frozen=True, slots=True)
class Compressed:
    """The response of an image is still compressed."""

    response: SpooledResponse


@dataclass(frozen=True, slots=True)
class StillUnread:
    """The library is still missing; the reason says which."""

    reason: str


async def read_compressed(
    context: RunContext, job: Job, attempt: AttemptId, stored: SpooledResponse
) -> list[DueImage] | Next | StillUnread:
    """Decompress a response, and return its images, which are due now.

    Without an image, the attempt is settled, and what follows is returned. Raises LedgerWriteError,
    and OSError for the spool.
    """
    try:
        body = await in_decode_thread(_decompressed, stored)
    except BadCoding as exc:
        topic = f"coding {stored.coding}"
        context.notice(topic, f"a response is {exc}. It is kept, and the next run reads it")
        return StillUnread(f"response: {exc}")
    adapter = adapter_of(stored.route)
    response = await in_decode_thread(adapter.read_response, body, stored.headers)
    response = followed(response, context.base_url)
    exchange = Exchange(reach=Reach.COMPLETE, status=stored.status, headers=stored.headers)
    found = classify(exchange, response, habits_of(context.profile), prompt=job.prompt)
    if found.outcome is not Outcome.OK:
        return await _settle(context, job, attempt, found)
    usage = response.usage
    cost = context.profile.cost_of(job.model, usage) if usage else None
    images = [(stored_reference(context, one), expiry(one.url)) for one in response.images]
    # The ledger first: a kill in between leaves a response that is read once more.
    due = await context.ledger.run(record_decompressed, attempt, images, cost=cost)
    async with context.spool.part(attempt) as part:
        writer = SpoolWriter(
            part, stored.status, stored.headers, route=stored.route, hide=context.redactor
        )
        await writer.write(body)
        await writer.commit()
    return due


async def _settle(context: RunContext, job: Job, attempt: AttemptId, found: Classification) -> Next:
    """Record that the response holds no image. Its class decides whether it was charged."""
    found = replace(
        found,
        code=redacted(found.code, context.redactor),
        message=redacted(found.message, context.redactor),
    )
    context.guard.concluded(job, found)
    if found.outcome is Outcome.STOP:
        context.throttle.stop(f"{found.code}: {found.message}")
    following = await context.ledger.run(record_task_failure, attempt, found, context.run)
    if found.outcome not in (Outcome.SPOILED, Outcome.AMBIGUOUS):
        await in_disk_thread(context.spool.remove, attempt)
    return following


def _decompressed(stored: SpooledResponse) -> bytes:
    """Return the body; of a broken one as much as can be decompressed. Raises BadCoding."""
    decoder, body = ContentDecoder(stored.coding, max_expansion=MAX_EXPANSION), bytearray()
    try:
        for piece in decoder.feed(stored.text()):
            body += piece
        for piece in decoder.end():
            body += piece
    except BadCoding:
        pass
    decoder.refuse_unsupported()
    return bytes(body)
