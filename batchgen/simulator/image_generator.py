"""Make the images of an order, as files to download or as data inside the response."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pybase64

from batchgen.simulator.drawing import Drawing, draw, draw_fast, draw_partial
from batchgen.simulator.faults import Behavior, Fault, Response
from batchgen.simulator.models.rules import ImageRequest
from batchgen.simulator.mp4 import still_video
from batchgen.simulator.orders import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A generated image; one of the two fields is empty."""

    url: str = ""
    b64_json: str = ""


@dataclass(frozen=True, slots=True)
class Studio:
    """Draws images and keeps the files that are served under `base_url`."""

    files: Path
    base_url: str

    def partial(self, order: Order[ImageRequest], behavior: Behavior, index: int, step: int) -> str:
        """Return a partial image in base64; steps count from 0."""
        image = _image(order, f"{order.request_id}-{index}p{step}")
        if behavior.fast_images:
            return _base64(draw_fast(image))
        return _base64(draw_partial(image, step))

    def image(
        self,
        order: Order[ImageRequest],
        behavior: Behavior,
        fault: Fault | None,
        index: int,
        form: Response,
    ) -> Result:
        """Make a finished image in that form; images count from 1."""
        name = f"{order.request_id}-{index}"
        content = (draw_fast if behavior.fast_images else draw)(_image(order, name))
        if fault is Fault.BILL_TRUNCATED:
            content = content[: len(content) // 2]
        embedded = form is Response.B64_JSON or (
            form is Response.MIXED and behavior.chance(f"form/{index}", order.number) < 0.5
        )
        if embedded:
            return Result(b64_json=_base64(content))
        file_name = f"{name}.{order.wanted.output_format}"
        (self.files / file_name).write_bytes(content)
        return Result(url=self.url(file_name))

    def video(
        self,
        *,
        file_name: str,
        prompt: str,
        model: str,
        size: tuple[int, int],
        seconds: int,
        truncated: bool,
    ) -> None:
        """Write a finished video to a file; `truncated` cuts it to the first half of its bytes."""
        width, height = size
        frame = Drawing(
            name=file_name.removesuffix(".mp4"),
            prompt=prompt,
            model=model,
            quality=f"{seconds} s",
            width=width,
            height=height,
            output_format="jpeg",
            compression=None,
            references=0,
        )
        content = still_video(draw(frame), width=width, height=height, seconds=seconds)
        kept = len(content) // 2 if truncated else len(content)
        (self.files / file_name).write_bytes(content[:kept])

    def url(self, file_name: str) -> str:
        """Return the URL of a file."""
        return f"{self.base_url}/files/{file_name}"


def _image(order: Order[ImageRequest], name: str) -> Drawing:
    wanted = order.wanted
    return Drawing(
        name=name,
        prompt=wanted.prompt,
        model=wanted.model,
        quality=wanted.quality,
        width=wanted.width,
        height=wanted.height,
        output_format=wanted.output_format,
        compression=wanted.output_compression,
        references=len(wanted.references),
    )


def _base64(content: bytes) -> str:
    return pybase64.b64encode(content).decode("ascii")
