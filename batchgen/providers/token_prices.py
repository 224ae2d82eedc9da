"""Prices of images that are charged by tokens: OpenAI's GPT image models. Pure.

Prices per token as of 22 November 2026: https://platform.openai.com/docs/pricing. OpenAI publishes
a calculator instead of a formula for output tokens. The formula here was read from it
(https://community.openai.com/t/1382699) and matches 16 of 16 recorded token counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final

from batchgen.job import OptionValue
from batchgen.money import Micros
from batchgen.providers.price_list import OpenOption, Options, PriceSpan, Unit

_SIZE: Final = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_MAX_SIDE: Final = 16_384
_AUTO_SIZES: Final = ((1024, 1024), (1536, 1024), (1024, 1536))
"""The sizes that ``auto`` is known to choose from."""
_TOKENS_PER_PARTIAL_IMAGE: Final = 100
_MAX_TOKENS_PER_REFERENCE: Final = 1_536
"""The maximum number of 32-pixel patches per image (https://community.openai.com/t/1382940)."""
_PROMPT_TOKENS: Final = 200
"""Reserved for the prompt, whose token count is unknown: a tenth of a cent."""
_UNPRICED_FORMATS: Final = ("gif", "svg")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPrice:
    """Prices of a model per token, in micros. One dollar per million tokens is one micro."""

    text_input: Decimal
    image_input: Decimal
    output: Decimal
    factors: Mapping[str, int]
    """By quality: patches along the long edge, for `output_tokens`."""

    @property
    def unit(self) -> Unit:
        """The unit of estimates: tokens are charged, images are estimated."""
        return Unit.IMAGE

    def span(self, options: Options, references: int) -> PriceSpan | None:
        """Estimate the lowest and highest cost of an image with its prompt and references.

        None for an unknown size or quality, and for formats without a known price.
        """
        if options.get("output_format") in _UNPRICED_FORMATS:
            return None
        found = self._output_tokens(options)
        if not found:
            return None
        highest = max(found, key=found.__getitem__)
        lowest = min(found, key=found.__getitem__)
        least = self._cost(found[lowest], references)
        most = self._cost(found[highest], references)
        if least == most:
            return PriceSpan(least=least, most=most)
        place = 0 if lowest[0] != highest[0] else 1
        option = OpenOption(
            name=("quality", "size")[place], highest=highest[place], lowest=lowest[place]
        )
        return PriceSpan(least=least, most=most, open=option)

    def _cost(self, output_tokens: int, references: int) -> Micros:
        return _micros(
            self.output * output_tokens
            + self.image_input * (_MAX_TOKENS_PER_REFERENCE * references)
            + self.text_input * _PROMPT_TOKENS
        )

    def _output_tokens(self, options: Options) -> Mapping[tuple[str, str], int]:
        """Return the output tokens of an image by possible quality and size."""
        asked = str(options.get("quality", "auto"))
        qualities = self.factors if asked == "auto" else {asked: self.factors.get(asked)}
        partial = _count(options.get("partial_images", 0))
        if partial is None:
            return {}
        return {
            (quality, f"{width}x{height}"): output_tokens(factor, width, height)
            + partial * _TOKENS_PER_PARTIAL_IMAGE
            for quality, factor in qualities.items()
            if factor is not None
            for width, height in _sizes(str(options.get("size", "auto")))
        }

    def cost(self, usage: Mapping[str, object]) -> Micros | None:
        """Return the cost of a response's ``usage``; None without counts, as from some proxies.

        Input tokens of unknown kind count as image tokens, which cost more.
        """
        output, given = _count(usage.get("output_tokens")), _count(usage.get("input_tokens"))
        if not output or given is None:
            return None
        details = usage.get("input_tokens_details")
        text = _count(details.get("text_tokens")) if isinstance(details, Mapping) else None
        text = min(text or 0, given)
        cost = self.output * output + self.text_input * text + self.image_input * (given - text)
        return _micros(cost)

    def variants(self) -> Sequence[tuple[str, Micros | None]]:
        """Return a price per quality of a square image without input, as in OpenAI's table."""
        return tuple(
            (f"1024x1024 {quality}", _micros(self.output * output_tokens(factor, 1024, 1024)))
            for quality, factor in self.factors.items()
        )


def output_tokens(factor: int, width: int, height: int) -> int:
    """Return the output tokens of an image with this width and height in pixels."""
    long, short = max(width, height), min(width, height)
    across = (2 * factor * short + long) // (2 * long)
    return -(-factor * across * (2_000_000 + width * height) // 4_000_000)


def _micros(cost: Decimal) -> Micros:
    return Micros(int(cost.to_integral_value(ROUND_CEILING)))


def _sizes(text: str) -> Sequence[tuple[int, int]]:
    if text == "auto":
        return _AUTO_SIZES
    match = _SIZE.fullmatch(text)
    if match is None:
        return ()
    size = int(match[1]), int(match[2])
    return (size,) if min(size) > 0 and max(size) <= _MAX_SIDE else ()


def _count(value: OptionValue | object) -> int | None:
    """Return a plausible token or image count from an untrusted response; None otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1_000_000_000:
        return None
    return value


_GPT_IMAGE_2: Final = {"low": 16, "medium": 48, "high": 96}
_GPT_IMAGE_2_5: Final = {"low": 16, "medium": 24, "high": 48, "xhigh": 64, "max": 96}
_GPT_IMAGE_2_6: Final = {"low": 34, "medium": 48, "high": 48, "xhigh": 64, "max": 96}
"""Approximate: measurements by a reseller on 2026-11-05 (docs.laozhang.ai) showed three to four
times the tokens of 2.5 for low and medium."""


def _price(factors: Mapping[str, int]) -> TokenPrice:
    return TokenPrice(
        text_input=Decimal(5), image_input=Decimal(8), output=Decimal(30), factors=factors
    )


OPENAI_TOKEN_PRICES: Final[Mapping[str, TokenPrice]] = {
    "gpt-image-2": _price(_GPT_IMAGE_2),
    "gpt-image-2-2026-04-21": _price(_GPT_IMAGE_2),
    "gpt-image-2.5-sunburst": _price(_GPT_IMAGE_2_5),
    "gpt-image-2.5-sunburst-2026-09-08": _price(_GPT_IMAGE_2_5),
    "gpt-image-2.5-flare": _price(_GPT_IMAGE_2_5),
    "gpt-image-2.5-flare-2026-09-08": _price(_GPT_IMAGE_2_5),
    "gpt-image-2.6-sunburst": _price(_GPT_IMAGE_2_6),
    "gpt-image-2.6-flare": _price(_GPT_IMAGE_2_6),
}
