"""Prices by tokens, compared with OpenAI's published figures."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import OptionValue
from batchgen.money import Micros, parse_dollars
from batchgen.providers.openai import OPENAI
from batchgen.providers.token_prices import OPENAI_TOKEN_PRICES, TokenPrice, output_tokens

TWO = OPENAI_TOKEN_PRICES["gpt-image-2"]
SUNBURST = OPENAI_TOKEN_PRICES["gpt-image-2.5-sunburst"]
PROMPT = Micros(1_000)
"""What an estimate reserves for the prompt."""


def price(model: TokenPrice, options: Mapping[str, OptionValue], references: int) -> Micros | None:
    """The price that a request reserves."""
    found = model.span(options, references)
    return None if found is None else found.most


@pytest.mark.parametrize(
    ("size", "low", "medium", "high"),
    [
        ((1024, 1024), 196, 1756, 7024),
        ((1536, 1024), 158, 1372, 5488),
        ((1024, 1536), 158, 1372, 5488),
        ((1536, 864), 120, 1078, 4312),
        ((2048, 2048), 397, 3568, 14272),
        ((2048, 1152), 157, 1413, 5650),
        ((2560, 1440), 205, 1843, 7370),
        ((3840, 2160), 371, 3336, 13342),
    ],
)
def test_gpt_image_2_counts_published_tokens(
    size: tuple[int, int], low: int, medium: int, high: int
) -> None:
    assert [output_tokens(TWO.factors[q], *size) for q in ("low", "medium", "high")] == [
        low,
        medium,
        high,
    ]


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((1024, 1024), [196, 439, 1756, 3122, 7024]),
        ((1536, 1024), [158, 343, 1372, 2459, 5488]),
        ((2048, 2048), [397, 892, 3568, 6343, 14272]),
        ((3840, 2160), [371, 865, 3336, 5930, 13342]),
    ],
)
def test_gpt_image_2_5_means_less_by_the_same_word(
    size: tuple[int, int], tokens: list[int]
) -> None:
    qualities = ("low", "medium", "high", "xhigh", "max")
    assert [output_tokens(SUNBURST.factors[q], *size) for q in qualities] == tokens


@pytest.mark.parametrize(
    ("quality", "size", "published"),
    [
        ("low", "1024x1024", "0.006"),
        ("low", "1024x1536", "0.005"),
        ("low", "1536x1024", "0.005"),
        ("medium", "1024x1024", "0.053"),
        ("medium", "1024x1536", "0.041"),
        ("medium", "1536x1024", "0.041"),
        ("high", "1024x1024", "0.211"),
        ("high", "1024x1536", "0.165"),
        ("high", "1536x1024", "0.165"),
    ],
)
def test_published_image_price_is_met(quality: str, size: str, published: str) -> None:
    estimate = OPENAI.price("gpt-image-2", {"quality": quality, "size": size}, 0)
    assert estimate is not None
    assert abs(estimate - PROMPT - parse_dollars(published)) <= 500


@pytest.mark.parametrize(
    ("quality", "size", "measured"),
    [("low", (1536, 1024), 664), ("high", (1536, 1024), 1353), ("high", (3840, 2160), 3337)],
)
def test_gpt_image_2_6_is_near_what_was_measured(
    quality: str, size: tuple[int, int], measured: int
) -> None:
    factor = OPENAI_TOKEN_PRICES["gpt-image-2.6-flare"].factors[quality]
    assert abs(output_tokens(factor, *size) - measured) * 100 <= measured * 6


def test_what_is_left_open_counts_as_highest() -> None:
    highest = price(TWO, {"quality": "high", "size": "1024x1024"}, 0)
    assert price(TWO, {}, 0) == price(TWO, {"quality": "auto", "size": "auto"}, 0) == highest
    assert price(SUNBURST, {}, 0) == price(SUNBURST, {"quality": "max", "size": "1024x1024"}, 0)


def test_references_and_partial_images_come_on_top() -> None:
    options: dict[str, OptionValue] = {"quality": "low", "size": "1024x1024"}
    plain = price(TWO, options, 0)
    assert plain == 196 * 30 + PROMPT
    assert price(TWO, options, 2) == plain + 2 * 1536 * 8
    assert price(TWO, {**options, "partial_images": 3}, 0) == plain + 3 * 100 * 30


@pytest.mark.parametrize(
    "options",
    [
        {"quality": "hd"},
        {"size": "big"},
        {"size": "0x1024"},
        {"size": "99999x16"},
        {"partial_images": -1},
        {"partial_images": "3"},
        {"output_format": "gif"},
        {"output_format": "svg"},
    ],
)
def test_options_without_a_price_are_unknown(options: dict[str, OptionValue]) -> None:
    assert price(TWO, options, 0) is None


def test_usage_gives_the_cost_of_a_response() -> None:
    details = {"text_tokens": 20, "image_tokens": 512}
    usage = {"output_tokens": 1756, "input_tokens": 532, "input_tokens_details": details}
    assert TWO.cost(usage) == 1756 * 30 + 20 * 5 + 512 * 8
    del usage["input_tokens_details"]
    assert TWO.cost(usage) == 1756 * 30 + 532 * 8


@pytest.mark.fault("B29")
@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"output_tokens": 0, "input_tokens": 0},
        {"output_tokens": "1756", "input_tokens": 20},
        {"output_tokens": 1756},
        {"output_tokens": -1, "input_tokens": 20},
        {"output_tokens": True, "input_tokens": 20},
    ],
)
def test_usage_without_counts_has_no_price(usage: dict[str, object]) -> None:
    assert TWO.cost(usage) is None


@pytest.mark.fault("B29")
@given(
    st.dictionaries(
        st.sampled_from(["output_tokens", "input_tokens", "input_tokens_details"]),
        st.integers() | st.text() | st.none() | st.dictionaries(st.text(), st.integers()),
    )
)
def test_any_usage_costs_something_or_is_unknown(usage: dict[str, object]) -> None:
    cost = TWO.cost(usage)
    assert cost is None or cost > 0


@given(st.integers(1, 16_384), st.integers(1, 16_384), st.sampled_from([16, 24, 48, 96]))
def test_image_costs_the_same_on_its_side(width: int, height: int, factor: int) -> None:
    assert output_tokens(factor, width, height) == output_tokens(factor, height, width) >= 0


def test_price_with_a_fraction_of_a_micro_is_rounded_up() -> None:
    cached = type(TWO)(
        text_input=Decimal("1.25"),
        image_input=Decimal(2),
        output=Decimal("0.3"),
        factors={"low": 16},
    )
    assert cached.cost({"output_tokens": 1, "input_tokens": 0}) == 1
