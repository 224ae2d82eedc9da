"""The table of faults names every row of the catalogue, and only tests that exist."""

from __future__ import annotations

from tests.faults import table


def test_the_table_is_what_the_markers_say() -> None:
    written = table.TABLE.read_text("utf-8")
    assert written == table.markdown(), "run python -m tests.faults.table"


def test_no_test_marks_a_fault_that_is_not_in_the_catalogue() -> None:
    assert not set(table.shown()) - set(table.FAULTS)


def test_every_fault_has_a_test_or_a_reason_but_not_both() -> None:
    assert len(table.FAULTS) == 288
    shown = set(table.shown())
    assert not shown & set(table.NOT_AUTOMATED)
    assert set(table.FAULTS) - shown == set(table.NOT_AUTOMATED)


def test_two_hundred_faults_are_automated() -> None:
    assert len(set(table.shown()) & set(table.FAULTS)) >= 200
