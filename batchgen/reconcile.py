"""What a provider's log proves of our attempts. Pure: no file, no network, no clock.

An attempt is billed or unbilled only where no other reading of the log is left (reliability sheet,
section 2.5). A row names its attempt by request id; else by model, time and amount, and only where
the rows in question are exactly as many as the attempts they can belong to.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from heapq import heappop, heappush
from typing import Final

from batchgen.job import AttemptId, Billed, Outcome
from batchgen.money import Micros

CLOCK_SKEW: Final = timedelta(minutes=2)
"""How far the provider's clock may be behind ours."""
_DRIFT_PERCENT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A row of the provider's log."""

    at: datetime
    model: str
    amount: Micros
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLog:
    """All charges of an account, or of one of its keys, from ``since`` to ``until``."""

    charges: tuple[Charge, ...]
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """An attempt, as far as a log can say something of it."""

    id: AttemptId
    key: str
    ours: bool
    """Of the batch that is reconciled; others only explain rows."""
    model: str
    price: Micros
    cost: Micros
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome
    billed: Billed
    request_id: str | None = None


class Why(StrEnum):
    """Why nothing is proven of an attempt."""

    CUT_OFF = "a kill cut it off, and the next run looks at what came of it first"
    YOUNG = "the log does not reach past its settle window yet, so a charge may still come"
    BEFORE = "the log begins later"
    AMBIGUOUS = "fewer charges than attempts fit, and nothing tells whose they are"
    SURPLUS = "more charges than attempts fit, and nothing tells which are ours"
    OTHER_CHARGE = "a charge that nobody explains fits its time"
    UNTRUSTED = "the log lacks a request that is known to be billed, so its silence proves nothing"
    NO_CONTROL = "no request in the log is known to be ours, so its silence proves nothing"
    CONTRADICTION = "the log names its request twice, and not alike"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """An attempt and what it was charged."""

    attempt: Sent
    amount: Micros
    request_id: str | None = None
    """The log's id of the request; of several that numbers settle together, one of theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unproven:
    """An attempt of which the log proves nothing."""

    attempt: Sent
    why: Why


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Drift:
    """Requests that were charged more than 1 % beside their price."""

    model: str
    price: Micros
    amount: Micros
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What the log proves of a batch's attempts, and what it leaves open."""

    billed: tuple[Settled, ...]
    """In doubt or taken for free before, and charged."""
    unbilled: tuple[Sent, ...]
    """In doubt before, and never charged."""
    corrected: tuple[Settled, ...]
    """Known to be billed, at another amount."""
    unproven: tuple[Unproven, ...]
    missing: tuple[Sent, ...]
    """Known to be billed, and not in the log."""
    foreign: tuple[Charge, ...]
    """Rows within the batch's time that no attempt explains. Where some of several rows are
    foreign and nothing tells which, the last ones stand for them."""
    drift: tuple[Drift, ...]

    @property
    def agrees(self) -> bool:
        """Whether the ledger, with this settled, says what the log says."""
        return not (self.unproven or self.missing or self.foreign or self.drift)


def reconcile(attempts: Iterable[Sent], log: UsageLog, settle: timedelta) -> Reconciliation:
    """Compare attempts with a log. A charge may come up to ``settle`` after an attempt's end.

    ``attempts`` are all of the ledger at this provider whose time the log touches: an attempt that
    is left out makes its row foreign. The order of attempts and rows, and rows that the log has
    twice, make no difference.
    """
    matching = _Matching(sorted(attempts, key=lambda sent: sent.id), log, settle)
    matching.by_id()
    matching.by_time_and_amount()
    matching.by_silence()
    return matching.result()


class _Matching:
    def __init__(self, attempts: Sequence[Sent], log: UsageLog, settle: timedelta) -> None:
        self._attempts = attempts
        self._log = log
        self._settle = settle
        self._charges: list[Charge] = []
        """Rows that no request id explains."""
        self._open: list[Sent] = []
        """Billed for sure or maybe, and not explained by a request id."""
        self._paid: dict[AttemptId, Settled] = {}
        self._free: list[Sent] = []
        self._why: dict[AttemptId, Why] = {}
        self._absent: list[Sent] = []
        """In doubt, and no row is left for them."""
        self._missing: list[Sent] = []
        self._strays: list[Charge] = []

    def by_id(self) -> None:
        """Take out what request ids explain."""
        named, self._charges = _by_request(self._log.charges)
        owners = Counter(sent.request_id for sent in self._attempts)
        for sent in self._attempts:
            rows = None
            if sent.request_id is not None and owners[sent.request_id] == 1:
                rows = named.pop(sent.request_id, None)
            if rows is None:
                if sent.billed is not Billed.NO:
                    self._open.append(sent)
            elif len(rows) > 1:
                self._why[sent.id] = Why.CONTRADICTION
            elif rows[0].amount or sent.billed is Billed.YES:
                self._paid[sent.id] = Settled(attempt=sent, amount=rows[0].amount)
            elif sent.billed is Billed.MAYBE:
                self._free.append(sent)
        for rows in named.values():
            (self._charges if len(rows) == 1 else self._strays).extend(rows)

    def by_time_and_amount(self) -> None:
        """Take out what numbers explain: as many rows as attempts they can belong to."""
        classes: dict[tuple[str, Micros], list[Sent]] = defaultdict(list)
        for sent in self._open:
            classes[sent.model, sent.price].append(sent)
        amounts = self._amounts(classes)
        rows: dict[tuple[str, Micros], list[Charge]] = defaultdict(list)
        for charge in self._charges:
            fitting = [
                (abs(amount - charge.amount), price)
                for price, amount in amounts[charge.model]
                if not _drifts(amount, charge.amount)
            ]
            if fitting:
                rows[charge.model, min(fitting)[1]].append(charge)
            elif charge.amount:
                self._strays.append(charge)
        for name, members in classes.items():
            groups, strays = _groups(members, sorted(rows[name], key=_in_order), self._window)
            self._strays += strays
            for group in groups:
                self._decide(group)

    def _amounts(
        self, classes: Iterable[tuple[str, Micros]]
    ) -> Mapping[str, set[tuple[Micros, Micros]]]:
        """By model: a price of open attempts, and an amount that requests of it are charged."""
        found: dict[str, set[tuple[Micros, Micros]]] = defaultdict(set)
        charged: dict[tuple[str, Micros], set[Micros]] = defaultdict(set)
        for settled in self._paid.values():
            if settled.attempt.outcome is not Outcome.BLOCKED:
                charged[settled.attempt.model, settled.attempt.price].add(settled.amount)
        for model, price in classes:
            found[model] |= {(price, amount) for amount in {price, *charged[model, price]}}
        return found

    def _window(self, sent: Sent) -> tuple[datetime, datetime]:
        """When the attempt's charge may stand in the log."""
        end = self._log.until if sent.ended_at is None else sent.ended_at
        return sent.started_at - CLOCK_SKEW, end + self._settle

    def _decide(self, group: _Group) -> None:
        """Settle the attempts of a group by its numbers, or say why not."""
        certain = [sent for sent in group.attempts if sent.billed is Billed.YES]
        doubtful = [sent for sent in group.attempts if sent.billed is Billed.MAYBE]
        everyone, sure = group.pairs(group.attempts), group.pairs(certain)
        rows = len(group.charges)
        if len(everyone) == rows == len(group.attempts):
            self._pay(group, everyone)
        elif len(sure) == rows == len(certain):
            self._pay(group, sure)
            self._absent += doubtful
        else:
            paired = set(everyone.values())
            self._strays += [
                row for number, row in enumerate(group.charges) if number not in paired
            ]
            why = Why.SURPLUS if rows > len(group.attempts) else Why.AMBIGUOUS
            self._why |= {sent.id: why for sent in doubtful}
            self._lack([sent for sent in certain if sent.id not in sure])

    def _pay(self, group: _Group, pairs: Mapping[AttemptId, int]) -> None:
        for sent in group.attempts:
            if sent.id in pairs:
                row = group.charges[pairs[sent.id]]
                self._paid[sent.id] = Settled(
                    attempt=sent, amount=row.amount, request_id=row.request_id
                )

    def _lack(self, lacking: Sequence[Sent]) -> None:
        """Known charges that the log has no row for: not yet, or not at all."""
        if any(self._beyond(sent) for sent in lacking):
            # Which of them has no row is unknown, so it may be the one that is still to come.
            self._why |= {sent.id: self._beyond(sent) or Why.YOUNG for sent in lacking}
        else:
            self._missing += lacking

    def _beyond(self, sent: Sent) -> Why | None:
        """Why the log can't be expected to have all of this attempt's time."""
        begin, end = self._window(sent)
        if sent.outcome is Outcome.SENDING:
            return Why.CUT_OFF
        if end > self._log.until:
            return Why.YOUNG
        return Why.BEFORE if begin < self._log.since else None

    def by_silence(self) -> None:
        """Declare unbilled what has no row, where the log would have one."""
        strays: dict[str, list[datetime]] = defaultdict(list)
        for charge in sorted(self._strays, key=_in_order):
            strays[charge.model].append(charge.at)
        controls = any(settled.amount for settled in self._paid.values())
        for sent in self._absent:
            begin, end = self._window(sent)
            times = strays[sent.model]
            if beyond := self._beyond(sent):
                self._why[sent.id] = beyond
            elif bisect_left(times, begin) < bisect_right(times, end):
                self._why[sent.id] = Why.OTHER_CHARGE
            elif self._missing:
                self._why[sent.id] = Why.UNTRUSTED
            elif not controls:
                self._why[sent.id] = Why.NO_CONTROL
            else:
                self._free.append(sent)

    def result(self) -> Reconciliation:
        """What was found of the batch itself."""
        ours = [sent for sent in self._attempts if sent.ours]
        paid = [self._paid[sent.id] for sent in ours if sent.id in self._paid]
        for settled in paid:
            if settled.attempt.outcome is Outcome.SENDING:
                self._why[settled.attempt.id] = Why.CUT_OFF
        return Reconciliation(
            billed=tuple(
                settled
                for settled in paid
                if settled.attempt.billed is not Billed.YES
                and settled.attempt.outcome is not Outcome.SENDING
            ),
            unbilled=_ours(self._free),
            corrected=tuple(
                settled
                for settled in paid
                if settled.attempt.billed is Billed.YES and settled.amount != settled.attempt.cost
            ),
            unproven=tuple(
                Unproven(attempt=sent, why=self._why[sent.id])
                for sent in ours
                if sent.id in self._why
            ),
            missing=_ours(self._missing),
            foreign=self._foreign(ours),
            drift=_drift(paid),
        )

    def _foreign(self, ours: Sequence[Sent]) -> tuple[Charge, ...]:
        windows = [self._window(sent) for sent in ours]
        if not windows:
            return ()
        begin, end = min(begin for begin, _ in windows), max(end for _, end in windows)
        rows = sorted(self._strays, key=_in_order)
        return tuple(row for row in rows if row.amount and begin <= row.at <= end)


def _by_request(charges: Iterable[Charge]) -> tuple[dict[str, list[Charge]], list[Charge]]:
    """Rows by request id, one of each that is there more than once; and the rows without an id."""
    named: dict[str, dict[tuple[str, Micros], Charge]] = defaultdict(dict)
    nameless = []
    for charge in sorted(charges, key=_in_order):
        if charge.request_id:
            named[charge.request_id].setdefault((charge.model, charge.amount), charge)
        else:
            nameless.append(charge)
    return {name: list(rows.values()) for name, rows in named.items()}, nameless


@dataclass(frozen=True, slots=True)
class _Group:
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


def _groups(
    attempts: Sequence[Sent],
    charges: Sequence[Charge],
    window: Callable[[Sent], tuple[datetime, datetime]],
) -> tuple[list[_Group], list[Charge]]:
    """Split attempts and rows, in order of time, into groups; and the rows that fit nobody's time.

    Attempts of two groups have no row in common.
    """
    times = [charge.at for charge in charges]
    found: list[tuple[list[Sent], int, int]] = []
    alone: list[_Group] = []
    spans = {}
    for sent in attempts:
        begin, end = window(sent)
        spans[sent.id] = bisect_left(times, begin), bisect_right(times, end)
    for sent in sorted(attempts, key=lambda sent: (spans[sent.id], sent.id)):
        first, behind = spans[sent.id]
        if first >= behind:
            alone.append(_Group([sent], (), {sent.id: (0, 0)}))
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
        groups.append(_Group(members, charges[first:behind], within))
        strays += charges[done:first]
        done = behind
    return groups, [*strays, *charges[done:]]


def _drift(paid: Iterable[Settled]) -> tuple[Drift, ...]:
    found = Counter(
        (settled.attempt.model, settled.attempt.price, settled.amount)
        for settled in paid
        if settled.attempt.outcome is not Outcome.BLOCKED  # a fee for a refusal is no price
        and _drifts(settled.attempt.price, settled.amount)
    )
    return tuple(
        Drift(model=model, price=price, amount=amount, requests=requests)
        for (model, price, amount), requests in sorted(found.items())
    )


def _drifts(price: Micros, amount: Micros) -> bool:
    return abs(amount - price) * 100 > price * _DRIFT_PERCENT


def _ours(attempts: Iterable[Sent]) -> tuple[Sent, ...]:
    return tuple(sorted((sent for sent in attempts if sent.ours), key=lambda sent: sent.id))


def _in_order(charge: Charge) -> tuple[datetime, str, Micros, str]:
    return charge.at, charge.model, charge.amount, charge.request_id or ""
