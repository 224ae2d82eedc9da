"""What gpt-image-2 accepts: request fields in, a normalised request or an ApiError out. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from batchgen.endpoint.errors import CARRIER, ApiError, invalid_value

MODEL = "gpt-image-2"
FORMATS = ("png", "jpeg", "webp")

_SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")
_SIZE_STEP = 16
_MAX_EDGE = 3840
_MAX_RATIO = 3
_MIN_PIXELS = 655_360
_MAX_PIXELS = 8_294_400
_MAX_PROMPT_CHARACTERS = 32_000
_MAX_PICTURES = 10
_MAX_PARTIAL_IMAGES = 3

_AUTO_SIZE = (1024, 1024)
_AUTO_QUALITY = "low"
"""What an omitted or `auto` quality was seen to resolve to (openai-images sheet, 1.1)."""

_QUALITIES = {"auto": _AUTO_QUALITY, "low": "low", "medium": "medium", "high": "high", "hd": "high"}

_UNSUPPORTED = {
    "response_format": "response_format is not supported for gpt-image-2; "
    "use output_format instead",
    "style": "style is not supported for gpt-image-2",
    "input_fidelity": "input_fidelity is not supported for gpt-image-2",
}

_WHOLE_NUMBERS = ("n", "output_compression", "partial_images")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A picture that the caller gave; its SHA-256, and its size in pixels."""

    digest: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRequest:
    """A valid request with every default filled in.

    `references` are the uploaded images, the mask's last; empty for a generation.
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

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"


def generation(fields: Mapping[str, object], *, block_word: str) -> PictureRequest:
    """The request that the JSON object `fields` makes; fields nobody knows are ignored.

    Rules: the provider's gpt-image-2 page in its strict form (crazyrouter sheet, section 2).
    Raises ApiError.
    """
    model = _model(fields)
    _refuse_unsupported(fields)
    prompt = _prompt(fields)
    width, height = parse_size(_field(fields, "size", str) or "auto")
    output_format = _choice(fields, "output_format", FORMATS) or "png"
    _choice(fields, "moderation", ("auto", "low"))
    _field(fields, "user", str)
    stream, partial_images = _streaming(fields)
    request = PictureRequest(
        model=model,
        prompt=prompt,
        n=_number(fields, "n", 1, _MAX_PICTURES) or 1,
        width=width,
        height=height,
        quality=_QUALITIES[_choice(fields, "quality", tuple(_QUALITIES)) or "auto"],
        output_format=output_format,
        output_compression=_compression(fields, output_format),
        background=_choice(fields, "background", ("auto", "opaque")) or "auto",
        stream=stream,
        partial_images=partial_images,
    )
    if block_word and block_word.lower() in prompt.lower():
        raise ApiError(
            400,
            "Your request was rejected by the safety system.",
            type=CARRIER,
            code="moderation_blocked",
        )
    return request


def edit(texts: Mapping[str, str], *, block_word: str) -> PictureRequest:
    """The request that the text parts of a multipart form make, still without its references.

    Raises ApiError.
    """
    fields: dict[str, object] = {}
    for name, text in texts.items():
        if name in _WHOLE_NUMBERS and re.fullmatch(r"-?[0-9]{1,9}", text):
            fields[name] = int(text)
        elif name == "stream" and text.lower() in ("true", "false"):
            fields[name] = text.lower() == "true"
        elif name != "moderation":  # generation only; unknown to the form, so ignored
            fields[name] = text
    return generation(fields, block_word=block_word)


def parse_size(size: str) -> tuple[int, int]:
    """Width and height in pixels of `size`, which is `auto` or `WxH`. Raises ApiError."""
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
    model = _field(fields, "model", str)
    if not model:
        raise ApiError(400, "The model name must not be empty")
    if model != MODEL:
        raise ApiError(
            503,
            f"No available channel for model {model[:80]} under group default (distributor)",
            code="model_not_found",
        )
    return model


def _refuse_unsupported(fields: Mapping[str, object]) -> None:
    for name, message in _UNSUPPORTED.items():
        if fields.get(name) not in (None, ""):
            raise ApiError(400, message, type=CARRIER, code="unknown_parameter", param=name)


def _prompt(fields: Mapping[str, object]) -> str:
    prompt = _field(fields, "prompt", str)
    if not prompt:
        raise ApiError(
            400,
            "Missing required parameter: 'prompt'.",
            type="invalid_request_error",
            code="missing_required_parameter",
            param="prompt",
        )
    if len(prompt) > _MAX_PROMPT_CHARACTERS:
        raise invalid_value(
            "prompt",
            f"The prompt is longer than {_MAX_PROMPT_CHARACTERS} characters ({len(prompt)}).",
        )
    return prompt


def _compression(fields: Mapping[str, object], output_format: str) -> int | None:
    compression = _number(fields, "output_compression", 0, 100)
    if compression is not None and output_format == "png":
        raise invalid_value(
            "output_compression", "output_compression needs output_format jpeg or webp."
        )
    return compression


def _streaming(fields: Mapping[str, object]) -> tuple[bool, int]:
    stream = _field(fields, "stream", bool) or False
    partial_images = _number(fields, "partial_images", 0, _MAX_PARTIAL_IMAGES)
    if partial_images is not None and not stream:
        raise invalid_value("partial_images", "partial_images needs stream to be true.")
    return stream, partial_images or 0


def _field(fields: Mapping[str, object], name: str, kind: type[T]) -> T | None:
    """The field's value; None when absent, null or empty, as the gateway's structs drop those."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    if type(value) is not kind:  # exact, because a bool is an int to isinstance
        raise ApiError(
            400,
            f"Invalid type for '{name}': expected {kind.__name__}, got {type(value).__name__}.",
            type="invalid_request_error",
            code="invalid_type",
            param=name,
        )
    return value


def _choice(fields: Mapping[str, object], name: str, allowed: tuple[str, ...]) -> str | None:
    value = _field(fields, name, str)
    if value is not None and value not in allowed:
        raise invalid_value(
            name, f"Invalid value '{value[:40]}' for {name}. Supported: {', '.join(allowed)}."
        )
    return value


def _number(fields: Mapping[str, object], name: str, least: int, most: int) -> int | None:
    value = _field(fields, name, int)
    if value is not None and not least <= value <= most:
        raise invalid_value(name, f"Invalid value {value} for {name}: {least} to {most} allowed.")
    return value
