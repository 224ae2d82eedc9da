"""Each target of the fuzzer takes its seeds and any bytes, also where atheris is not installed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds_whole_and_cut(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds:
        for end in range(0, len(seed) + 1, max(1, len(seed) // 50)):
            target.read(seed[:end])
        target.read(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60)
@given(data=st.binary(max_size=200), place=st.integers(0, 1000))
def test_a_target_takes_any_bytes_between_those_of_a_seed(
    name: str, data: bytes, place: int
) -> None:
    target = TARGETS[name]
    seed = target.seeds[place % len(target.seeds)]
    target.read(data)
    at = place % (len(seed) + 1)
    target.read(seed[:at] + data + seed[at:])
