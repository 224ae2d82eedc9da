"""The plain answer of the Images route."""

from __future__ import annotations

import time

import orjson

from batchgen.endpoint.faults import Behaviour, Fault
from batchgen.endpoint.orders import Order
from batchgen.endpoint.studio import Studio


def answer(order: Order, behaviour: Behaviour, fault: Fault | None, studio: Studio) -> bytes:
    """Make the pictures and write the body that hands them over."""
    wanted = order.wanted
    count = 0 if fault is Fault.BILL_EMPTY else wanted.n
    results = (studio.picture(order, behaviour, fault, index) for index in range(1, count + 1))
    document = {
        "created": int(time.time()),
        # The gateway's struct sends all three, the absent ones as empty strings.
        "data": [
            {"url": result.url, "b64_json": result.b64_json, "revised_prompt": ""}
            for result in results
        ],
        "output_format": wanted.output_format,
        "quality": wanted.quality,
        "size": wanted.size,
    }
    return orjson.dumps(document)
