"""Makes the images of an order and hands them over, as a file to fetch or inside the response."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pybase64

from batchgen.simulator.drawing import Drawing, draw, draw_fast, draw_partial
from batchgen.simulator.faults import Behaviour, Fault, Response
from batchgen.simulator.models.rules import ImageRequest
from batchgen.simulator.mp4 import still_video
from batchgen.simulator.orders import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An image handed over; one of the two is empty."""

    url: str = ""
    b64_json: str = ""


@dataclass(frozen=True, slots=True)
class Studio:
    """Draws, and keeps the files that are served under `base_url`."""

    files: Path
    base_url: str

    def partial(
        self, order: Order[ImageRequest], behaviour: Behaviour, index: int, step: int
    ) -> str:
        """An early state of an image in base64; steps count from 0."""
        image = _image(order, f"{order.request_id}-{index}p{step}")
        if behaviour.fast_images:
            return _base64(draw_fast(image))
        return _base64(draw_partial(image, step))

    def image(
        self,
        order: Order[ImageRequest],
        behaviour: Behaviour,
        fault: Fault | None,
        index: int,
        form: Response,
    ) -> Result:
        """A finished image in that form; images count from 1."""
        name = f"{order.request_id}-{index}"
        content = (draw_fast if behaviour.fast_images else draw)(_image(order, name))
        if fault is Fault.BILL_TRUNCATED:
            content = content[: len(content) // 2]
        embedded = form is Response.B64_JSON or (
            form is Response.MIXED and behaviour.chance(f"answer/{index}", order.number) < 0.5
        )
        if embedded:
            return Result(b64_json=_base64(content))
        file_name = f"{name}.{order.wanted.output_format}"
        (self.files / file_name).write_bytes(content)
        return Result(url=self.address(file_name))

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
        """A finished video as a file, `truncated` to the first half of its bytes."""
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

    def address(self, file_name: str) -> str:
        """Where a file is served."""
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
