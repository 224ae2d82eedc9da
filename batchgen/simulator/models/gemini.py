"""Native Gemini, `generateContent`, for the nano-banana family.

Source: https://docs.crazyrouter.com/en/chat/gemini/image-gen
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Mapping

import orjson
import pybase64

from batchgen.simulator.errors import invalid_value, no_channel
from batchgen.simulator.faults import Behavior, Fault, GeminiResponse, Response
from batchgen.simulator.image_generator import Studio
from batchgen.simulator.models import nano_banana
from batchgen.simulator.models.fields import check_allowed, choice, field, missing
from batchgen.simulator.models.rules import ImageRequest, Reference
from batchgen.simulator.models.sizes import GOOGLE_RATIOS, google_size
from batchgen.simulator.models.tokens import text_tokens
from batchgen.simulator.orders import Order
from batchgen.simulator.uploads import Upload, check_reference

_MODALITIES = ("TEXT", "IMAGE")
_INPUT_IMAGE_TOKENS = 258
_OUTPUT_TOKENS = {
    "nano-banana": {"1K": 1290},
    "nano-banana-2": {"1K": 1120, "2K": 1680, "4K": 2520},
    "nano-banana-pro": {"1K": 1120, "2K": 1120, "4K": 2000},
}


def read(model: str, fields: Mapping[str, object], *, block_word: str) -> ImageRequest:
    """Return the request of the JSON object `fields`, ignoring unknown fields.

    Raises ApiError.
    """
    member = nano_banana.FAMILY.get(model)
    if member is None:
        raise no_channel(model)
    parts = list(_parts(fields))
    prompt = "\n".join(text for part in parts if (text := field(part, "text", str)))
    if not prompt:
        raise missing("contents")
    references = tuple(_references(parts))
    if len(references) > member.max_references:
        raise invalid_value(
            "contents", f"{len(references)} images; at most {member.max_references} are allowed."
        )
    config = _object(fields, "generationConfig")
    _check_modalities(config)
    image_config = _object(config, "imageConfig")
    ratio = choice(image_config, "aspectRatio", GOOGLE_RATIOS) or "1:1"
    resolution = choice(image_config, "imageSize", member.resolutions) or "1K"
    width, height = google_size(ratio, resolution)
    check_allowed(prompt, block_word)
    return ImageRequest(
        model=model,
        prompt=prompt,
        n=1,
        width=width,
        height=height,
        quality="",
        output_format="png",
        output_compression=None,
        references=references,
        resolution=resolution,
    )


def response(
    studio: Studio, order: Order[ImageRequest], behavior: Behavior, fault: Fault | None
) -> bytes:
    """Make the image and return the response body."""
    wanted = order.wanted
    candidate: dict[str, object] = {"index": 0, "finishReason": "STOP"}
    if fault is Fault.BILL_EMPTY:
        candidate["finishReason"] = "NO_IMAGE"
    else:
        part = _part(studio, order, behavior, fault)
        candidate["content"] = {"role": "model", "parts": [part]}
    made = 0 if fault is Fault.BILL_EMPTY else _OUTPUT_TOKENS[wanted.model][wanted.resolution]
    document = {
        "candidates": [candidate],
        "usageMetadata": _usage(wanted.prompt, len(wanted.references), made),
        "modelVersion": wanted.model,
        "responseId": order.request_id,
    }
    return orjson.dumps(document)


def blocked(model: str, request_id: str) -> bytes:
    """Return the response body for a prompt that the safety system refuses."""
    document = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 0, "totalTokenCount": 0},
        "modelVersion": model,
        "responseId": request_id,
    }
    return orjson.dumps(document)


def _part(
    studio: Studio, order: Order[ImageRequest], behavior: Behavior, fault: Fault | None
) -> dict[str, object]:
    form = behavior.gemini_response
    handed = Response.URL if form is GeminiResponse.URL else Response.B64_JSON
    result = studio.image(order, behavior, fault, 1, handed)
    mime_type = f"image/{order.wanted.output_format}"
    if form is GeminiResponse.INLINE:
        return {"inlineData": {"mimeType": mime_type, "data": result.b64_json}}
    url = result.url or f"data:{mime_type};base64,{result.b64_json}"
    return {"text": f"![image]({url})"}


def _usage(prompt: str, references: int, made: int) -> dict[str, object]:
    text, image = text_tokens(prompt), references * _INPUT_IMAGE_TOKENS
    details = {"TEXT": text, "IMAGE": image}
    return {
        "promptTokenCount": text + image,
        "candidatesTokenCount": made,
        "totalTokenCount": text + image + made,
        "promptTokensDetails": [
            {"modality": modality, "tokenCount": count}
            for modality, count in details.items()
            if count
        ],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": made}],
    }


def _parts(fields: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    for content in _objects(fields, "contents"):
        yield from _objects(content, "parts")


def _references(parts: list[Mapping[str, object]]) -> Iterator[Reference]:
    for part in parts:
        given = _object(part, "inlineData") or _object(part, "inline_data")
        if given:
            mime_type = field(given, "mimeType", str) or field(given, "mime_type", str)
            data = field(given, "data", str) or ""
            try:
                content = pybase64.b64decode(data, validate=True)
            except (binascii.Error, ValueError):
                raise invalid_value("inlineData", "The data is not base64.") from None
            yield check_reference(Upload(content=content, mime_type=mime_type), "inlineData")


def _check_modalities(config: Mapping[str, object]) -> None:
    given = config.get("responseModalities")
    if given is None:
        return
    names = [str(name).upper() for name in given] if isinstance(given, list) else []
    if "IMAGE" not in names or not set(names) <= set(_MODALITIES):
        raise invalid_value("responseModalities", "responseModalities must name IMAGE.")


def _object(fields: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return a field that is an object; an empty one if absent. Raises ApiError."""
    return field(fields, name, dict) or {}


def _objects(fields: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    """Return a field that is an object or a list of objects, as a list. Raises ApiError."""
    value = fields.get(name)
    objects: list[Mapping[str, object]] = []
    for item in value if isinstance(value, list) else [value] if value else []:
        if not isinstance(item, dict):
            raise invalid_value(name, f"{name} must be objects.")
        objects.append(item)
    return objects
