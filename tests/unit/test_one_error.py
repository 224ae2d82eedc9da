"""Tests of what is raised in place of a group of exceptions."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import LedgerError, StoppedError, message_of, one_error

pytestmark = pytest.mark.fault("XD2")

KINDS = (ValueError, OSError, LedgerError, StoppedError, asyncio.CancelledError, KeyboardInterrupt)
LEAVES = st.builds(lambda kind, text: kind(text), st.sampled_from(KINDS), st.text("ab", max_size=3))
GROUPS = st.recursive(
    LEAVES,
    lambda inner: st.builds(BaseExceptionGroup, st.just("g"), st.lists(inner, min_size=1)),
    max_leaves=12,
)


def leaves(exc: BaseException) -> list[BaseException]:
    if not isinstance(exc, BaseExceptionGroup):
        return [exc]
    return [leaf for inner in exc.exceptions for leaf in leaves(inner)]


@given(GROUPS)
def test_one_error_is_the_most_important_leaf(group: BaseException) -> None:
    found, every = one_error(group), leaves(group)
    assert any(found is leaf for leaf in every)
    order = (KeyboardInterrupt, asyncio.CancelledError, (LedgerError, StoppedError), Exception)
    best = next(kind for kind in order if any(isinstance(leaf, kind) for leaf in every))
    assert found is next(leaf for leaf in every if isinstance(leaf, best))
    others = {
        f"also raised: {type(leaf).__name__}: {leaf}"
        for leaf in every
        if leaf is not found and isinstance(leaf, Exception)
    }
    notes = getattr(found, "__notes__", [])
    assert set(notes) == others if len(others) <= 10 else len(notes) == 11


def test_one_error_leaves_a_single_exception_alone() -> None:
    error = LedgerError("locked")
    assert one_error(error) is error
    assert message_of(error) == "locked"


def test_one_error_takes_a_group_of_any_depth() -> None:
    error: BaseException = ValueError("deep")
    for _ in range(10_000):
        error = BaseExceptionGroup("g", [error])
    assert isinstance(one_error(error), ValueError)


def test_many_left_out_exceptions_are_counted() -> None:
    many = [OSError(f"disk {number}") for number in range(50)]
    found = one_error(ExceptionGroup("g", [*many, LedgerError("locked"), *many]))
    lines = message_of(found).split("\n")
    assert lines[:2] == ["locked", "also raised: OSError: disk 0"]
    assert (len(lines), lines[-1]) == (12, "also raised: 40 more exceptions")
