"""Values as rows of a statement: exactly those that were given, and few texts to compile."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from batchgen.ledger.value_rows import with_parts_of_rows, with_rows

VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3) | st.binary(max_size=3)


@given(rows=st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=40))
def test_a_statement_has_the_rows_that_were_given(rows: list[tuple[object, object]]) -> None:
    """Also rows of NULLs: what fills a statement up to its size must never be among them."""
    clause, values = with_rows(("a", "b"), rows)
    with closing(sqlite3.connect(":memory:")) as conn:
        assert conn.execute(f"{clause} SELECT a, b FROM one", values).fetchall() == rows
        after = conn.execute(f"{clause} SELECT ? FROM one", [*values, "next"])
        assert after.fetchall() == [("next",)] * len(rows)


def test_groups_of_all_sizes_need_few_statements() -> None:
    """Python's sqlite3 keeps 128 compiled statements, and a run has about 15 of these."""
    texts = {with_rows(("a", "b"), [(1, 2)] * count)[0] for count in range(1, 65)}
    assert len(texts) == 7


def test_any_number_of_rows_is_divided_among_statements() -> None:
    parts = [with_[1] for with_ in with_parts_of_rows(("a",), [(n,) for n in range(1_201)])]
    assert [values[-1] for values in parts] == [500, 500, 201]
    assert list(with_parts_of_rows(("a",), [])) == []
