"""The response of the Images route without a stream."""

from __future__ import annotations

import time

import orjson

from batchgen.simulator.faults import Behavior, Fault
from batchgen.simulator.image_generator import Result, Studio
from batchgen.simulator.models import grok, rules
from batchgen.simulator.models.rules import ImageRequest
from batchgen.simulator.orders import Order


def response(
    studio: Studio, order: Order[ImageRequest], behavior: Behavior, fault: Fault | None
) -> bytes:
    """Make the images and return the response body."""
    wanted = order.wanted
    form = wanted.response or behavior.response
    count = 0 if fault is Fault.BILL_EMPTY else wanted.n
    results = (studio.image(order, behavior, fault, i, form) for i in range(1, count + 1))
    document: dict[str, object] = {
        "created": int(time.time()),
        "data": [_item(wanted, result) for result in results],
    }
    if wanted.model == rules.MODEL:
        document |= {
            "output_format": wanted.output_format,
            "quality": wanted.quality,
            "size": wanted.size,
        }
    return orjson.dumps(document)


def _item(wanted: ImageRequest, result: Result) -> dict[str, str]:
    if wanted.model == grok.MODEL:
        mime_type = f"image/{wanted.output_format}"
        return {"url": result.url, "mime_type": mime_type, "revised_prompt": wanted.prompt}
    # The gateway's struct sends all three fields, absent ones as empty strings.
    return {"url": result.url, "b64_json": result.b64_json, "revised_prompt": ""}
