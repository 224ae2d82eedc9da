"""Which actor gets the next order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import anyio
import pytest

from batchgen.cluster.actors import _GAPS_KEPT, Actors, Started


@dataclass
class Channel:
    """How many orders an actor has, and how many of them wait to be given together."""

    held: int
    gathered: int
    lost: str | None = None
    is_leaving: bool = False


PICKED = [
    ([(3, 0), (2, 0), (2, 0)], 1),
    ([(22, 1), (20, 0), (21, 0)], 0),
    ([(22, 1), (20, 0), (23, 2)], 2),
    ([(30, 1), (20, 0), (10, 0)], 2),
    ([(4, 1), (2, 0), (2, 0)], 1),
]


@pytest.mark.parametrize(("channels", "picked"), PICKED)
def test_next_order_goes_to_a_group_if_its_actor_is_not_busier(
    channels: list[tuple[int, int]], picked: int
) -> None:
    """A group in few hands saves calls; orders in few hands cost more when one is lost."""
    found = [Channel(held, gathered) for held, gathered in channels]
    actors = actors_of(found)
    assert cast(Any, anyio.run(actors.pick)) is found[picked]


@pytest.mark.parametrize(("name", "value"), [("lost", "gone"), ("is_leaving", True)])
def test_requests_kept_apart_share_one_actor_until_it_is_lost(name: str, value: object) -> None:
    one, other = found = [Channel(0, 0), Channel(1, 0)]
    actors = actors_of(found)
    assert [cast(Any, anyio.run(actors.pick_gap_keeper)) for _ in range(3)] == [one] * 3
    one.held = 2
    assert cast(Any, anyio.run(actors.pick_gap_keeper)) is one
    setattr(one, name, value)
    assert cast(Any, anyio.run(actors.pick_gap_keeper)) is other
    one.lost, one.is_leaving = None, False
    picked = [cast(Any, anyio.run(actors.pick_gap_keeper)) for _ in range(_GAPS_KEPT)]
    assert picked == [other] * _GAPS_KEPT


def actors_of(channels: list[Channel]) -> Actors:
    started = Started(
        nodes=cast(Any, None),
        settings=cast(Any, None),
        build=cast(Any, None),
        handles=[],
        ours=cast(Any, None),
        nonce=b"",
    )
    actors = Actors(started, cast(Any, None), lambda text: None)
    actors._channels = cast(Any, channels)
    return actors
