"""Which column and word refused prompts are put down to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchgen.outcomes.blocked_words import BlockedPrompt, suspects


def blocked(key: str, prompt: str, **values: object) -> BlockedPrompt:
    return BlockedPrompt(key=key, source=f"products.csv:{key}", prompt=prompt, values=values)


def test_column_of_suspected_word_is_named() -> None:
    found = suspects(
        [
            blocked("2", "Photo of a Pistol lamp, steel", title="Pistol lamp", material="steel"),
            blocked("5", "Photo of a pistol, wood", title="pistol", material="wood"),
        ],
        made=["Photo of a lamp, steel", "Photo of a table, wood"],
    )
    (suspect,) = found
    assert (suspect.column, suspect.word) == ("title", "pistol")
    assert [one.key for one in suspect.prompts] == ["2", "5"]


def test_most_common_cause_comes_first() -> None:
    found = suspects(
        [
            blocked("1", "a naked statue", title="naked statue"),
            blocked("2", "a gun", title="gun"),
            blocked("3", "a gun rack", title="gun rack"),
        ],
        made=["a statue", "a rack"],
    )
    assert [(one.word, len(one.prompts)) for one in found] == [("gun", 2), ("naked", 1)]


def test_prompt_without_its_row_is_suspected_by_its_words() -> None:
    (suspect,) = suspects([blocked("1", "a gun on wood")], made=["a mug on wood"])
    assert (suspect.column, suspect.word) == (None, "gun")


def test_a_row_that_has_changed_since_is_not_blamed() -> None:
    (suspect,) = suspects([blocked("1", "a gun", title="a vase")], made=[])
    assert (suspect.column, suspect.word) == (None, "gun")


def test_prompts_without_shared_word_are_counted() -> None:
    (suspect,) = suspects([blocked("1", "a mug")], made=["a mug"])
    assert (suspect.column, suspect.word, len(suspect.prompts)) == (None, None, 1)


@given(
    st.lists(st.tuples(st.text(max_size=30), st.dictionaries(st.text(max_size=5), st.text()))),
    st.lists(st.text()),
)
def test_every_prompt_is_in_exactly_one_group(
    prompts: list[tuple[str, dict[str, str]]], made: list[str]
) -> None:
    given = [
        BlockedPrompt(key=str(n), source="", prompt=prompt, values=values)
        for n, (prompt, values) in enumerate(prompts)
    ]
    grouped = [one.key for suspect in suspects(given, made) for one in suspect.prompts]
    assert sorted(grouped) == sorted(one.key for one in given)
