"""Token counts that gpt-image-2 would report; billing does not use them."""

from __future__ import annotations

from batchgen.simulator.models.rules import ImageRequest, Reference

_FACTORS = {"low": 16, "medium": 48, "high": 96}
_PIXELS_A_STEP = 2_000_000
_PARTIAL_IMAGE_TOKENS = 100
_FIXED_TEXT_TOKENS = 6
_BYTES_A_TEXT_TOKEN = 4
"""Average for English text in the encoding o200k_base."""

_PATCH_PIXELS = 32
_MAX_PATCHES = 1536
_ENLARGED_SIDE = 1024
_MAX_ENLARGEMENT = 2


def usage(wanted: ImageRequest) -> dict[str, object]:
    """Return the `usage` of one image and its partial images."""
    text = _FIXED_TEXT_TOKENS + text_tokens(wanted.prompt)
    image = sum(map(_input_tokens, wanted.references))
    output = _output_tokens(wanted) + _PARTIAL_IMAGE_TOKENS * wanted.partial_images
    return {
        "input_tokens": text + image,
        "input_tokens_details": {"text_tokens": text, "image_tokens": image},
        "output_tokens": output,
        "total_tokens": text + image + output,
    }


def text_tokens(text: str) -> int:
    """Estimate the number of tokens without a tokenizer."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_A_TEXT_TOKEN)


def _output_tokens(wanted: ImageRequest) -> int:
    """Compute output tokens by the calculator of https://developers.openai.com/api/docs/pricing."""
    factor = _FACTORS[wanted.quality]
    long, short = max(wanted.width, wanted.height), min(wanted.width, wanted.height)
    steps = (2 * factor * short + long) // (2 * long)
    pixels = _PIXELS_A_STEP + wanted.width * wanted.height
    return -(-factor * steps * pixels // (2 * _PIXELS_A_STEP))


def _input_tokens(reference: Reference) -> int:
    """Count the patches of a reference image, after small ones are enlarged."""
    long = max(reference.width, reference.height)
    scale = min(_MAX_ENLARGEMENT, max(1.0, _ENLARGED_SIDE / long))
    across, down = (
        -(-round(side * scale) // _PATCH_PIXELS) for side in (reference.width, reference.height)
    )
    return min(_MAX_PATCHES, across * down)
