"""Attempts and the rows of a log that can belong to them by their time. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import heappop, heappush

from batchgen.job import AttemptId
from batchgen.reconciliation.charges import Charge
from batchgen.reconciliation.settlement import Sent


@dataclass(frozen=True, slots=True)
class Group:
    """Attempts of one model and price, and all rows that can belong to one of them."""

    attempts: Sequence[Sent]
    charges: Sequence[Charge]
    spans: Mapping[AttemptId, tuple[int, int]]
    """Which of the charges fit an attempt's time: from this position up to that one."""

    def pairs(self, attempts: Iterable[Sent]) -> dict[AttemptId, int]:
        """As many attempts with a row as there can be: each row goes to the one that ends first."""
        coming = deque(sorted((*self.spans[sent.id], sent.id) for sent in attempts))
        waiting: list[tuple[int, AttemptId]] = []
        found: dict[AttemptId, int] = {}
        for number in range(len(self.charges)):
            while coming and coming[0][0] <= number:
                _, behind, attempt = coming.popleft()
                heappush(waiting, (behind, attempt))
            while waiting and waiting[0][0] <= number:
                heappop(waiting)
            if waiting:
                found[heappop(waiting)[1]] = number
        return found


def group_by_time(
    attempts: Sequence[Sent],
    charges: Sequence[Charge],
    window: Callable[[Sent], tuple[datetime, datetime]],
) -> tuple[list[Group], list[Charge]]:
    """Split attempts and rows, in order of time, into groups; and the rows that fit nobody's time.

    Attempts of two groups have no row in common.
    """
    times = [charge.at for charge in charges]
    found: list[tuple[list[Sent], int, int]] = []
    alone: list[Group] = []
    spans = {}
    for sent in attempts:
        begin, end = window(sent)
        spans[sent.id] = bisect_left(times, begin), bisect_right(times, end)
    for sent in sorted(attempts, key=lambda sent: (spans[sent.id], sent.id)):
        first, behind = spans[sent.id]
        if first >= behind:
            alone.append(Group([sent], (), {sent.id: (0, 0)}))
        elif found and first < found[-1][2]:
            members, begins, ends = found[-1]
            members.append(sent)
            found[-1] = members, begins, max(ends, behind)
        else:
            found.append(([sent], first, behind))
    groups, done = alone, 0
    strays: list[Charge] = []
    for members, first, behind in found:
        within = {
            sent.id: (spans[sent.id][0] - first, spans[sent.id][1] - first) for sent in members
        }
        groups.append(Group(members, charges[first:behind], within))
        strays += charges[done:first]
        done = behind
    return groups, [*strays, *charges[done:]]
