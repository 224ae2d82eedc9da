"""Amounts: read from text, kept as whole micros, written for programs and for people."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.money import decimal_string, dollars, parse_dollars

LARGEST = 999_999_999_999_999


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0", 0),
        ("12.50", 12_500_000),
        (" $12.50 ", 12_500_000),
        ("$ 5", 5_000_000),
        (25, 25_000_000),
        (Decimal("0.0377"), 37_700),
        ("0.0377", 37_700),
        ("1e-6", 1),
        ("1E2", 100_000_000),
        ("0.0000004", 0),
        ("0.0000005", 1),
        ("0.0000015", 2),
        ("-0", 0),
        ("1e-999999", 0),
        ("999999999.999999", LARGEST),
    ],
)
def test_an_amount_in_dollars_is_whole_micros_rounded_half_up(
    text: str | int | Decimal, micros: int
) -> None:
    assert parse_dollars(text) == micros


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$",
        "$$5",
        "five",
        "5 dollars",
        "1,000",
        "1.2.3",
        "-1",
        "-0.000001",
        "nan",
        "sNaN",
        "inf",
        "-inf",
        "1000000000",
        "1e999999999999",
        "9" * 5000,
        True,
    ],
)
def test_what_is_no_amount_is_refused_with_an_example(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"is not an amount in dollars.* like 12\.50"):
        parse_dollars(text)


@given(st.text() | st.floats().map(str) | st.decimals().map(str))
def test_any_text_is_an_amount_within_bounds_or_refused(text: str) -> None:
    try:
        micros = parse_dollars(text)
    except ValueError:
        return
    assert 0 <= micros <= LARGEST + 1


@pytest.mark.parametrize(
    ("micros", "for_programs", "for_people"),
    [
        (0, "0.000000", "$0.00"),
        (1, "0.000001", "$0.000001"),
        (37_700, "0.037700", "$0.0377"),
        (100_000, "0.100000", "$0.10"),
        (1_500_000, "1.500000", "$1.50"),
        (12_345_678_900_000, "12345678.900000", "$12,345,678.90"),
        (-37_700, "-0.037700", "-$0.0377"),
        (-1_000_000, "-1.000000", "-$1.00"),
    ],
)
def test_an_amount_is_written_for_programs_and_for_people(
    micros: int, for_programs: str, for_people: str
) -> None:
    assert decimal_string(micros) == for_programs
    assert dollars(micros) == for_people


@given(st.integers(0, LARGEST))
def test_no_amount_is_lost_between_writing_and_reading(micros: int) -> None:
    assert parse_dollars(decimal_string(micros)) == micros
    assert parse_dollars(dollars(micros).replace(",", "")) == micros
