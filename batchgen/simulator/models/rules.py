"""Read request fields for gpt-image-2 into a normalized request, or raise ApiError. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from batchgen.simulator.errors import CARRIER, ApiError, invalid_value, no_channel
from batchgen.simulator.faults import Response
from batchgen.simulator.models.fields import check_allowed, choice, field, number, prompt_of

MODEL = "gpt-image-2"
FORMATS = ("png", "jpeg", "webp")

_SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")
_SIZE_STEP = 16
_MAX_EDGE = 3840
_MAX_RATIO = 3
_MIN_PIXELS = 655_360
_MAX_PIXELS = 8_294_400
_MAX_PROMPT_CHARACTERS = 32_000
_MAX_IMAGES = 10
_MAX_PARTIAL_IMAGES = 3

_AUTO_SIZE = (1024, 1024)
_AUTO_QUALITY = "low"
"""The quality that an omitted or `auto` quality was observed to resolve to."""

_QUALITIES = {"auto": _AUTO_QUALITY, "low": "low", "medium": "medium", "high": "high", "hd": "high"}

_UNSUPPORTED = {
    "response_format": "response_format is not supported for gpt-image-2; "
    "use output_format instead",
    "style": "style is not supported for gpt-image-2",
    "input_fidelity": "input_fidelity is not supported for gpt-image-2",
}

_WHOLE_NUMBERS = ("n", "output_compression", "partial_images")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A reference image: its SHA-256 and its size in pixels.

    For an image given by URL, which is not fetched: the SHA-256 of the URL, and no size.
    """

    digest: str
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """A valid request with all defaults filled in; fields unknown to the model are empty.

    `references` are the caller's images, then the mask if one was uploaded. `resolution` is the
    word that determines the price. `response` is the form of the images if the caller or the model
    decides it.
    """

    model: str
    prompt: str
    n: int
    width: int
    height: int
    quality: str
    output_format: str
    output_compression: int | None
    references: tuple[Reference, ...] = ()
    background: str = "auto"
    stream: bool = False
    partial_images: int = 0
    resolution: str = ""
    response: Response | None = None

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"


def generation(fields: Mapping[str, object], *, block_word: str) -> ImageRequest:
    """Return the request of the JSON object `fields`, ignoring unknown fields.

    The rules are the strict ones of https://docs.crazyrouter.com/images/gpt-image. Raises ApiError.
    """
    model = _model(fields)
    _refuse_unsupported(fields)
    prompt = prompt_of(fields, _MAX_PROMPT_CHARACTERS)
    width, height = parse_size(field(fields, "size", str) or "auto")
    output_format = choice(fields, "output_format", FORMATS) or "png"
    choice(fields, "moderation", ("auto", "low"))
    field(fields, "user", str)
    stream, partial_images = _streaming(fields)
    request = ImageRequest(
        model=model,
        prompt=prompt,
        n=number(fields, "n", 1, _MAX_IMAGES) or 1,
        width=width,
        height=height,
        quality=_QUALITIES[choice(fields, "quality", tuple(_QUALITIES)) or "auto"],
        output_format=output_format,
        output_compression=_compression(fields, output_format),
        background=choice(fields, "background", ("auto", "opaque")) or "auto",
        stream=stream,
        partial_images=partial_images,
    )
    check_allowed(prompt, block_word)
    return request


def edit(texts: Mapping[str, str], *, block_word: str) -> ImageRequest:
    """Return the request of the text parts of a multipart form, without its references.

    Raises ApiError.
    """
    fields: dict[str, object] = {}
    for name, text in texts.items():
        if name in _WHOLE_NUMBERS and re.fullmatch(r"-?[0-9]{1,9}", text):
            fields[name] = int(text)
        elif name == "stream" and text.lower() in ("true", "false"):
            fields[name] = text.lower() == "true"
        elif name != "moderation":  # for generations only; unknown in the form, so ignored
            fields[name] = text
    return generation(fields, block_word=block_word)


def parse_size(size: str) -> tuple[int, int]:
    """Return width and height in pixels of `size`, which is `auto` or `WxH`. Raises ApiError."""
    if size == "auto":
        return _AUTO_SIZE
    match = _SIZE.fullmatch(size)
    if match is None:
        raise invalid_value(
            "size", f"Invalid size '{size[:40]}'. Expected 'auto' or 'WIDTHxHEIGHT'."
        )
    width, height = int(match[1]), int(match[2])
    fault = _size_fault(width, height)
    if fault is not None:
        raise invalid_value("size", f"Invalid size '{size}'. {fault}")
    return width, height


def _size_fault(width: int, height: int) -> str | None:
    if width % _SIZE_STEP or height % _SIZE_STEP:
        return f"Width and height must both be divisible by {_SIZE_STEP}."
    if max(width, height) > _MAX_EDGE:
        return f"The longest edge must be at most {_MAX_EDGE} pixels."
    if max(width, height) > _MAX_RATIO * min(width, height):
        return f"The long edge must be at most {_MAX_RATIO} times the short edge."
    if width * height < _MIN_PIXELS:
        return f"The size is under the current minimum pixel budget of {_MIN_PIXELS}."
    if width * height > _MAX_PIXELS:
        return f"The size is over the current maximum pixel budget of {_MAX_PIXELS}."
    return None


def _model(fields: Mapping[str, object]) -> str:
    model = field(fields, "model", str)
    if not model:
        raise ApiError(400, "The model name must not be empty")
    if model != MODEL:
        raise no_channel(model)
    return model


def _refuse_unsupported(fields: Mapping[str, object]) -> None:
    for name, message in _UNSUPPORTED.items():
        if fields.get(name) not in (None, ""):
            raise ApiError(400, message, type=CARRIER, code="unknown_parameter", param=name)


def _compression(fields: Mapping[str, object], output_format: str) -> int | None:
    compression = number(fields, "output_compression", 0, 100)
    if compression is not None and output_format == "png":
        raise invalid_value(
            "output_compression", "output_compression needs output_format jpeg or webp."
        )
    return compression


def _streaming(fields: Mapping[str, object]) -> tuple[bool, int]:
    stream = field(fields, "stream", bool) or False
    partial_images = number(fields, "partial_images", 0, _MAX_PARTIAL_IMAGES)
    if partial_images is not None and not stream:
        raise invalid_value("partial_images", "partial_images needs stream to be true.")
    return stream, partial_images or 0
