"""Server-sent events of images.

Source: https://platform.openai.com/docs/api-reference/images-streaming
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import orjson

from batchgen.simulator.faults import Behavior, Fault
from batchgen.simulator.image_generator import Studio
from batchgen.simulator.models import tokens
from batchgen.simulator.models.rules import ImageRequest
from batchgen.simulator.orders import Order

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEvents:
    """Makes the events of one order, each complete and ready to send."""

    studio: Studio
    order: Order[ImageRequest]
    behavior: Behavior
    fault: Fault | None

    def partials(self) -> list[Callable[[], bytes]]:
        """Return a function per partial image, starting with those of the first image."""
        wanted = self.order.wanted
        return [
            functools.partial(self._partial, index, step)
            for index in range(1, wanted.n + 1)
            for step in range(wanted.partial_images)
        ]

    def _partial(self, index: int, step: int) -> bytes:
        return self._event(
            "partial_image",
            b64_json=self.studio.partial(self.order, self.behavior, index, step),
            partial_image_index=step,
        )

    def completed(self) -> list[bytes]:
        """Return one event per image, with the image in one form only."""
        count = 0 if self.fault is Fault.BILL_EMPTY else self.order.wanted.n
        return [self._completed(index) for index in range(1, count + 1)]

    def _completed(self, index: int) -> bytes:
        form = self.behavior.response
        result = self.studio.image(self.order, self.behavior, self.fault, index, form)
        handed = {"url": result.url} if result.url else {"b64_json": result.b64_json}
        return self._event("completed", **handed, usage=tokens.usage(self.order.wanted))

    def _event(self, kind: str, **fields: object) -> bytes:
        wanted = self.order.wanted
        route = "image_edit" if wanted.references else "image_generation"
        document = {
            "type": f"{route}.{kind}",
            "created_at": int(time.time()),
            "size": wanted.size,
            "quality": wanted.quality,
            "background": wanted.background,
            "output_format": wanted.output_format,
            **fields,
        }
        return _event(document)


async def pings(seconds: float, interval: float) -> AsyncGenerator[bytes, None]:
    """Wait, and yield a comment line after every `interval` seconds."""
    whole = max(0, math.ceil(seconds / interval) - 1)
    for _ in range(whole):
        await asyncio.sleep(interval)
        yield PING
    await asyncio.sleep(seconds - whole * interval)


def failure() -> bytes:
    """Return the upstream error in the middle of a stream; it is the last event."""
    error = {
        "message": "The image could not be made.",
        "type": "image_generation_server_error",
        "code": "image_generation_failed",
        "param": None,
    }
    return _event({"type": "error", "error": error})


def _event(document: dict[str, object]) -> bytes:
    name = str(document["type"]).encode("ascii")
    return b"event: " + name + b"\ndata: " + orjson.dumps(document) + b"\n\n"
