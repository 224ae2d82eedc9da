"""Record an image that is at its output path as saved."""

from __future__ import annotations

from batchgen.engine.context import RunContext
from batchgen.engine.delivery_results import Saved
from batchgen.engine.executor import FetchOrder
from batchgen.engine.placing import Placer
from batchgen.job import SavedImage
from batchgen.ledger.images import Placement, mark_images_saved
from batchgen.system.failpoints import Point, hit


async def record_saved(
    context: RunContext, placer: Placer, order: FetchOrder, saved: SavedImage
) -> Saved:
    """Write the sidecar of a placed image, and record the image as saved.

    Raises Conflict, OSError and LedgerWriteError.
    """
    await placer.describe(order.job, order.image, saved)
    placement = Placement(order.image.id, order.job.root, saved)
    finished = await context.ledger.run_one_of_many(mark_images_saved, placement)
    hit(Point.SAVED)
    return Saved(image=saved, finished=finished)
