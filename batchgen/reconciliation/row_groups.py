"""Group attempts with the log rows that match them by time. Pure."""

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
    """Attempts of one model and price, and all rows that may belong to one of them."""

    attempts: Sequence[Sent]
    charges: Sequence[Charge]
    spans: Mapping[AttemptId, tuple[int, int]]
    """The range of charges that match an attempt's time: first index, and the one after the
    last."""

    def pairs(self, attempts: Iterable[Sent]) -> dict[AttemptId, int]:
        """Assign rows to as many attempts as possible: each row to the attempt that ends first."""
        coming = deque(sorted((*self.spans[sent.id], sent.id) for sent in attempts))
        waiting: list[tuple[int, AttemptId]] = []
        found: dict[AttemptId, int] = {}
        for number in range(len(self.charges)):
            while coming and coming[0][0] <= number:
                _, end, attempt = coming.popleft()
                heappush(waiting, (end, attempt))
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
    """Split attempts and rows, both in order of time, into groups that share no row.

    Also returns the rows that match the time of no attempt.
    """
    times = [charge.at for charge in charges]
    found: list[tuple[list[Sent], int, int]] = []
    alone: list[Group] = []
    spans = {}
    for sent in attempts:
        earliest, latest = window(sent)
        spans[sent.id] = bisect_left(times, earliest), bisect_right(times, latest)
    for sent in sorted(attempts, key=lambda sent: (spans[sent.id], sent.id)):
        first, end = spans[sent.id]
        if first >= end:
            alone.append(Group([sent], (), {sent.id: (0, 0)}))
        elif found and first < found[-1][2]:
            members, begins, ends = found[-1]
            members.append(sent)
            found[-1] = members, begins, max(ends, end)
        else:
            found.append(([sent], first, end))
    groups, done = alone, 0
    strays: list[Charge] = []
    for members, first, end in found:
        within = {
            sent.id: (spans[sent.id][0] - first, spans[sent.id][1] - first) for sent in members
        }
        groups.append(Group(members, charges[first:end], within))
        strays += charges[done:first]
        done = end
    return groups, [*strays, *charges[done:]]
