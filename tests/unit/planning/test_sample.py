"""A sample of the texts that differ the most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchgen.planning.sample import most_different, most_different_rows

PROMPTS = ["a red mug", "a red cup", "a blue mug", "sailing ship in a storm", "a red mug"]


def test_sample_prefers_texts_without_shared_words() -> None:
    assert most_different(PROMPTS, 2) == [0, 3]


def test_sample_takes_a_copy_last() -> None:
    assert most_different(PROMPTS, 4) == [0, 1, 2, 3]


@given(st.lists(st.text(max_size=20), max_size=20), st.integers(-1, 30))
def test_sample_has_distinct_indexes_in_order(texts: list[str], number: int) -> None:
    found = most_different(texts, number)
    assert found == sorted(set(found))
    assert len(found) == max(0, min(number, len(texts)))
    assert all(0 <= index < len(texts) for index in found)


def test_sample_in_rows_takes_whole_rows() -> None:
    texts = [f"{model} {prompt}" for prompt in PROMPTS for model in ("one", "two")]
    rows = [str(index // 2) for index in range(len(texts))]
    assert most_different_rows(texts, rows, 5) == [0, 1, 6, 7]
    assert most_different_rows(texts, rows, 1) == [0]
    assert most_different_rows(texts, ["all"] * len(texts), 2) == [0, 7]
    assert most_different_rows([], [], 3) == []
