"""Steps of the ledger for one attempt or image, which a run takes for many at once."""

from __future__ import annotations

import json
from collections.abc import Sequence

from batchgen.job import AttemptId, ImageRef, Job, RunId, SavedImage
from batchgen.ledger.attempt_ends import AttemptEnd
from batchgen.ledger.images import Placement, mark_images_saved, record_placements
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.paid_responses import PaidResponse, record_responses
from batchgen.ledger.records import DueImage, JobFinished
from batchgen.ledger.reservations import Reply, Reservation, reserve_attempts
from batchgen.money import Micros, PriceTerms
from batchgen.outcomes.classify import Classification

_PRICED = PriceTerms()


def reserve_attempt(
    ledger: Ledger,
    run: RunId,
    job: Job,
    attempt: AttemptId,
    *,
    provider: str,
    terms: PriceTerms = _PRICED,
) -> Reply:
    order = Reservation(run=run, job=job, attempt=attempt, provider=provider, terms=terms)
    return reserve_attempts(ledger, [order])[0]


def record_response(
    ledger: Ledger,
    attempt: AttemptId,
    classification: Classification,
    images: Sequence[tuple[ImageRef, str | None]],
    *,
    response: str | None,
    body: bytes | None = None,
    cost: Micros | None = None,
) -> list[DueImage]:
    end = AttemptEnd(attempt=attempt, classification=classification, response=response, cost=cost)
    return record_responses(ledger, [PaidResponse(end=end, images=images, body=body)])[0]


def record_placement(ledger: Ledger, image: int, root: str, saved: SavedImage) -> None:
    record_placements(ledger, [Placement(image, root, saved)])


def mark_image_saved(ledger: Ledger, image: int) -> JobFinished | None:
    row = ledger.conn.execute("SELECT * FROM images WHERE id = ?", (image,)).fetchone()
    saved = SavedImage(
        **{name: row[name] for name in ("path", "sha256", "bytes", "width", "height", "format")},
        warnings=tuple(json.loads(row["warnings"] or "[]")),
    )
    return mark_images_saved(ledger, [Placement(image, row["root"], saved)])[0]
