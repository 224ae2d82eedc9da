"""CSV cells that a spreadsheet would compute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.console.csv_cells import as_written, without_formulas


@pytest.mark.parametrize(
    "text",
    [
        "=cmd|' /C calc'!A0",
        "@SUM(1)",
        '=HYPERLINK("https://x.example")',
        "+1+1",
        "-1-1",
        "\t=1",
        "\r=1",
        "\uff1d1+1",
    ],
)
def test_a_formula_becomes_text(text: str) -> None:
    assert without_formulas({"prompt": text}) == {"prompt": f"'{text}"}


@pytest.mark.parametrize(
    "value", ["a mug", "-5", "+5.25", "0.037700", "", "'quoted", 5, -1.5, None, True]
)
def test_other_values_stay(value: object) -> None:
    assert without_formulas({"x": value}) == {"x": value}


@given(st.text())
def test_nothing_but_an_apostrophe_is_added(text: str) -> None:
    (found,) = without_formulas({"x": text}).values()
    assert found in (text, f"'{text}")


@pytest.mark.parametrize("text", ["=1+1", "'=1+1", "''@x", "-5", "'-5", "'quoted", "'", "-", ""])
def test_a_cell_is_read_as_it_was_written(text: str) -> None:
    (found,) = without_formulas({"x": text}).values()
    assert as_written(str(found)) == text


@given(st.text("'=+-@\t\n5.a"))
def test_any_cell_is_read_as_it_was_written(text: str) -> None:
    (found,) = without_formulas({"x": text}).values()
    assert as_written(str(found)) == text
