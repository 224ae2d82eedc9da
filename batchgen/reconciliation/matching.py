"""Match attempts with a provider's billing log. Pure: no file, no network, no clock.

An attempt is charged or not charged only where no other reading of the log is left (reliability
sheet, section 2.5). A row names its attempt by request id; else by model, time and amount, and only
where the rows in question are exactly as many as the attempts that they can belong to. Where the
log has request ids, a row whose id looks like none of ours, or whose time is not that of the
request, is possible and never proof. A charge that was refunded is not charged.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from batchgen.job import AttemptId, Billed, Outcome
from batchgen.money import ZERO, Micros
from batchgen.reconciliation.charges import Charge, Entry, Rows, UsageLog, in_order, sort_rows
from batchgen.reconciliation.request_ids import KnownIds
from batchgen.reconciliation.row_groups import Group, group_by_time
from batchgen.reconciliation.settlement import Drift, Reconciliation, Sent, Settled, Unproven, Why

CLOCK_SKEW: Final = timedelta(minutes=2)
"""How far the provider's clock may be behind ours."""
PROOF_DELAY: Final = timedelta(minutes=15)
"""How long after a request's end a charge proves something, in a log with request ids: a gateway
goes on after its client hung up. A later one, within the settle window, is possible only."""
_DRIFT_PERCENT: Final = 1


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
        self._rows: Rows = sort_rows(log)
        self._has_ids = bool(self._rows.named)
        own = ((sent.request_id, sent.started_at) for sent in attempts)
        self._ids = KnownIds.of((name, at) for name, at in own if name is not None)
        self._owners = Counter(sent.request_id for sent in attempts)
        self._names_ours = False
        """Whether the log names a request of ours as the response did."""
        self._charges: list[Charge] = []
        """Rows that no request id explains."""
        self._open: list[Sent] = []
        """Charged for sure or maybe, and not explained by a request id."""
        self._paid: dict[AttemptId, Settled] = {}
        self._free: list[Settled] = []
        self._why: dict[AttemptId, Why] = {}
        self._absent: list[Sent] = []
        """Uncertain, and no row is left for them."""
        self._missing: list[Sent] = []
        self._strays: list[Charge] = []
        self._counted: list[tuple[Sent, Charge]] = []
        """Uncertain attempts that numbers alone pair with a row."""
        self._unassigned: list[Charge] = []
        """Rows of attempts that numbers leave ambiguous: which attempt owns which is unknown."""
        self._expected: Mapping[tuple[str, Micros], set[Micros]] = {}
        """By model and price: amounts that such a request may be charged."""

    def by_id(self) -> None:
        """Take out what request ids explain."""
        named = dict(self._rows.named)
        for sent in self._attempts:
            entry = named.pop(sent.request_id or "", None) if self._has_own_id(sent) else None
            if entry is not None:
                self._names_ours = True
                self._settle_named(sent, entry)
            elif sent.billed is not Billed.NO or sent.refunded:
                self._open.append(sent)
        self._charges = list(self._rows.nameless)
        self._strays += self._rows.others
        for entry in named.values():
            charge = entry.settle(None, ZERO)
            if charge is None:
                self._strays += entry.charges
            elif self._ids.is_foreign(charge.request_id or ""):
                self._strays.append(charge)
            else:
                self._charges.append(charge)

    def _has_own_id(self, sent: Sent) -> bool:
        return sent.request_id is not None and self._owners[sent.request_id] == 1

    def _settle_named(self, sent: Sent, entry: Entry) -> None:
        # A refund whose charge was made before the log begins gives back what the ledger knows.
        if sent.billed is Billed.NO and not entry.charges:
            return
        gross = Micros(sent.cost + sent.refunded) if sent.billed is Billed.YES else sent.price
        charge = entry.settle(gross, sent.refunded)
        whole = sent.billed is Billed.YES or bool(entry.charges)
        if charge is None or (not whole and charge.net):
            self._why[sent.id] = Why.CONTRADICTION
        elif charge.net or sent.billed is Billed.YES:
            self._paid[sent.id] = _settled(sent, charge)
        elif sent.billed is Billed.MAYBE:
            self._free.append(_settled(sent, charge))

    def by_time_and_amount(self) -> None:
        """Take out what numbers explain: as many rows as attempts they can belong to."""
        classes: dict[tuple[str, Micros], list[Sent]] = defaultdict(list)
        for sent in self._open:
            if sent.billed is Billed.MAYBE and self._has_own_id(sent) and self._names_ours:
                self._absent.append(sent)  # the log would name it
            else:
                classes[sent.model, sent.price].append(sent)
        rows = self._rows_of(classes)
        for name, members in classes.items():
            fitting = sorted(self._of_their_time(rows[name], members), key=in_order)
            groups, strays = group_by_time(members, fitting, self._window)
            self._strays += strays
            for group in groups:
                self._decide(group)
        self._release_claimed([sent for members in classes.values() for sent in members])
        self._doubt_shared()
        self._doubt_refunded()

    def _rows_of(
        self, classes: Mapping[tuple[str, Micros], Sequence[Sent]]
    ) -> Mapping[tuple[str, Micros], list[Charge]]:
        """By model and price: rows of an amount that requests of it are charged."""
        amounts = self._amounts(classes)
        expected: dict[tuple[str, Micros], set[Micros]] = defaultdict(set)
        for model, found in amounts.items():
            for price, amount in found:
                expected[model, price].add(amount)
        self._expected = expected
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
        return rows

    def _amounts(
        self, classes: Mapping[tuple[str, Micros], Sequence[Sent]]
    ) -> Mapping[str, set[tuple[Micros, Micros]]]:
        """By model: a price of open attempts, and an amount that requests of it are charged."""
        found: dict[str, set[tuple[Micros, Micros]]] = defaultdict(set)
        charged: dict[tuple[str, Micros], set[Micros]] = defaultdict(set)
        for settled in self._paid.values():
            if settled.attempt.outcome is not Outcome.BLOCKED:
                gross = Micros(settled.amount + settled.refunded)
                charged[settled.attempt.model, settled.attempt.price].add(gross)
        for (model, price), members in classes.items():
            least = {sent.least for sent in members if sent.least is not None}
            found[model] |= {(price, one) for one in {price, *least, *charged[model, price]}}
        return found

    def _of_their_time(self, rows: Sequence[Charge], attempts: Sequence[Sent]) -> Iterable[Charge]:
        """Rows whose id, where it holds a time, was given while one of the attempts was sent."""
        spans = _merged(
            (sent.started_at - CLOCK_SKEW, self._end(sent) + CLOCK_SKEW) for sent in attempts
        )
        begins = [begin for begin, _ in spans]
        for row in rows:
            sent_at = self._ids.sent_at(row.request_id) if row.request_id else None
            position = 0 if sent_at is None else bisect_right(begins, sent_at)
            if sent_at is None or (position and sent_at <= spans[position - 1][1]):
                yield row
            else:
                self._strays.append(row)

    def _end(self, sent: Sent) -> datetime:
        return self._log.until if sent.ended_at is None else sent.ended_at

    def _window(self, sent: Sent) -> tuple[datetime, datetime]:
        """When a row may be in the log that numbers alone assign to the attempt."""
        begin, end = self._settle_window(sent)
        if sent.billed is Billed.MAYBE and self._has_ids:
            end = min(end, self._end(sent) + PROOF_DELAY)
        return begin, end

    def _settle_window(self, sent: Sent) -> tuple[datetime, datetime]:
        """When the attempt's charge may be in the log."""
        return sent.started_at - CLOCK_SKEW, self._end(sent) + self._settle

    def _decide(self, group: Group) -> None:
        """Settle the attempts of a group by its numbers, or say why not."""
        certain = [sent for sent in group.attempts if sent.billed is not Billed.MAYBE]
        doubtful = [sent for sent in group.attempts if sent.billed is Billed.MAYBE]
        everyone, sure = group.pairs(group.attempts), group.pairs(certain)
        rows = len(group.charges)
        is_full = len(everyone) == rows == len(group.attempts)
        if is_full and (not doubtful or self._is_proof(group)):
            self._pay(group, everyone)
        elif len(sure) == rows == len(certain):
            self._pay(group, sure)
            self._absent += doubtful
        else:
            paired = set(everyone.values())
            self._strays += [
                row for number, row in enumerate(group.charges) if number not in paired
            ]
            self._unassigned += [group.charges[number] for number in paired]
            if is_full:
                why = Why.SHARED
            else:
                why = Why.SURPLUS if rows > len(group.attempts) else Why.AMBIGUOUS
            self._why |= {sent.id: why for sent in doubtful}
            self._lack([sent for sent in certain if sent.id not in sure])

    def _is_proof(self, group: Group) -> bool:
        """Return whether each attempt of a full group can have a row that is not late."""
        if not self._has_ids:
            return True
        times = [charge.at for charge in group.charges]
        spans = {}
        for sent in group.attempts:
            first, last = group.spans[sent.id]
            spans[sent.id] = first, min(last, bisect_right(times, self._end(sent) + PROOF_DELAY))
        pairs = replace(group, spans=spans).pairs(group.attempts)
        return len(pairs) == len(group.attempts)

    def _pay(self, group: Group, pairs: Mapping[AttemptId, int]) -> None:
        """Settle attempts with as many rows. Which row is whose is known for a single one only."""
        paid = [
            (sent, group.charges[pairs[sent.id]]) for sent in group.attempts if sent.id in pairs
        ]
        if len(paid) == 1:
            ((sent, row),) = paid
            self._settle_counted(sent, row, _settled(sent, row))
            return
        is_mixed = len({row.refunded for _, row in paid}) > 1
        keeps = _kept_costs(paid)
        for sent, row in paid:
            if sent.billed is not Billed.MAYBE and (keeps or is_mixed):
                self._paid[sent.id] = Settled(
                    attempt=sent, amount=sent.cost, refunded=sent.refunded
                )
            elif is_mixed:
                self._why[sent.id] = Why.MIXED
            else:
                self._settle_counted(sent, row, replace(_settled(sent, row), request_id=None))

    def _settle_counted(self, sent: Sent, row: Charge, settled: Settled) -> None:
        if sent.billed is Billed.MAYBE:
            self._counted.append((sent, row))
        if settled.amount or sent.billed is not Billed.MAYBE:
            self._paid[sent.id] = settled
        else:
            self._free.append(settled)

    def _release_claimed(self, candidates: Sequence[Sent]) -> None:
        """Release attempts whose row may be the late charge of an attempt that has no row.

        The row lies outside of the proof window of that other attempt but within its settle
        window. A released attempt has no row either and may claim another one. A charge
        that was refunded whole costs nothing, whichever of them made it.
        """
        counted = sorted(self._counted, key=lambda pair: pair[1].at)
        times = [row.at for _, row in counted]
        kept = {sent.id for sent, _ in counted}
        claimants = [
            sent for sent in candidates if sent.billed is Billed.MAYBE and sent.id not in kept
        ]
        while claimants:
            begin, end = self._settle_window(claimant := claimants.pop())
            for sent, row in counted[bisect_left(times, begin) : bisect_right(times, end)]:
                if row.net and sent.id in kept and self._may_own(claimant, row):
                    kept.remove(sent.id)
                    self._take_back(sent, Why.SHARED)
                    self._strays.append(row)
                    claimants.append(sent)
        self._counted = [pair for pair in counted if pair[0].id in kept]

    def _may_own(self, sent: Sent, row: Charge) -> bool:
        """Return whether a row of an attempt's settle window may be its charge.

        Decided by model, amount, and the time in the row's request id.
        """
        if sent.model != row.model:
            return False
        arrived = self._ids.sent_at(row.request_id) if row.request_id else None
        first, last = sent.started_at - CLOCK_SKEW, self._end(sent) + CLOCK_SKEW
        if arrived is not None and not first <= arrived <= last:
            return False
        amounts = self._expected[sent.model, sent.price]
        return any(not _drifts(amount, row.amount) for amount in amounts)

    def _doubt_shared(self) -> None:
        """Take back what numbers prove where others are charged the same at that time.

        Ids that look like none of ours do not count: numbers were never applied to these.
        """
        if not self._has_ids:
            return
        strays: dict[str, list[Charge]] = defaultdict(list)
        for row in sorted(self._strays, key=in_order):
            if row.net and not (row.request_id and self._ids.is_foreign(row.request_id)):
                strays[row.model].append(row)
        times = {model: [row.at for row in rows] for model, rows in strays.items()}
        for sent, own in self._counted:
            begin, end = self._settle_window(sent)
            near = times.get(sent.model, [])
            first = bisect_left(near, begin - self._settle)
            behind = bisect_right(near, end + self._settle)
            rows = strays.get(sent.model, [])[first:behind]
            if any(not _drifts(own.amount, row.amount) for row in rows):
                self._take_back(sent, Why.SHARED)
                self._strays.append(own)

    def _doubt_refunded(self) -> None:
        """Take back what a refund may undo that names no request."""
        for refund in self._rows.nameless_refunds:
            for settled in list(self._paid.values()):
                sent = settled.attempt
                earlier = sent.started_at - CLOCK_SKEW <= refund.at
                fits = sent.model == refund.model and settled.amount >= refund.amount
                if sent.billed is not Billed.YES and earlier and fits:
                    self._take_back(sent, Why.REFUND)

    def _take_back(self, sent: Sent, why: Why) -> None:
        self._paid.pop(sent.id, None)
        self._free = [settled for settled in self._free if settled.attempt.id != sent.id]
        self._why[sent.id] = why

    def _lack(self, lacking: Sequence[Sent]) -> None:
        """Known charges that the log has no row for: not yet, or not at all."""
        if any(self._beyond(sent) for sent in lacking):
            # Which of them has no row is unknown, so it may be the one that is still to come.
            self._why |= {sent.id: self._beyond(sent) or Why.YOUNG for sent in lacking}
        else:
            self._missing += [sent for sent in lacking if sent.billed is Billed.YES]

    def _beyond(self, sent: Sent) -> Why | None:
        """Why the log can't be expected to have all of this attempt's time."""
        begin, end = self._settle_window(sent)
        if sent.outcome is Outcome.SENDING:
            return Why.CUT_OFF
        if end > self._log.until:
            return Why.YOUNG
        return Why.BEFORE if begin < self._log.since else None

    def by_silence(self) -> None:
        """Declare not charged what has no row, where the log would have one."""
        strays: dict[str, list[datetime]] = defaultdict(list)
        for charge in sorted(self._strays, key=in_order):
            if charge.net:
                strays[charge.model].append(charge.at)
        self._unassigned.sort(key=in_order)
        controls = any(settled.amount for settled in self._paid.values())
        for sent in self._absent:
            begin, end = self._settle_window(sent)
            times = strays[sent.model]
            if beyond := self._beyond(sent):
                self._why[sent.id] = beyond
            elif bisect_left(times, begin) < bisect_right(times, end) or self._may_own_any(sent):
                self._why[sent.id] = Why.OTHER_CHARGE
            elif self._missing:
                self._why[sent.id] = Why.UNTRUSTED
            elif not controls:
                self._why[sent.id] = Why.NO_CONTROL
            else:
                self._free.append(Settled(attempt=sent, amount=ZERO))

    def _may_own_any(self, sent: Sent) -> bool:
        """Return whether one of the unassigned rows, which are in order, may be an attempt's."""
        begin, end = self._settle_window(sent)
        first = bisect_left(self._unassigned, begin, key=lambda row: row.at)
        last = bisect_right(self._unassigned, end, key=lambda row: row.at)
        return any(row.net and self._may_own(sent, row) for row in self._unassigned[first:last])

    def result(self) -> Reconciliation:
        """What was found of the batch itself."""
        ours = [sent for sent in self._attempts if sent.ours]
        paid = [self._paid[sent.id] for sent in ours if sent.id in self._paid]
        free = {settled.attempt.id: settled for settled in self._free}
        for settled in (*paid, *free.values()):
            if settled.attempt.outcome is Outcome.SENDING:
                self._why[settled.attempt.id] = Why.CUT_OFF
        closed = {sent.id for sent in ours if sent.outcome is not Outcome.SENDING}
        missing = {sent.id for sent in self._missing}
        return Reconciliation(
            billed=tuple(
                settled
                for settled in paid
                if settled.attempt.billed is not Billed.YES
                and settled.amount
                and settled.attempt.id in closed
            ),
            unbilled=tuple(free[sent.id] for sent in ours if sent.id in free and sent.id in closed),
            corrected=tuple(settled for settled in paid if _is_correction(settled)),
            unproven=tuple(
                Unproven(attempt=sent, why=self._why[sent.id])
                for sent in ours
                if sent.id in self._why
            ),
            missing=tuple(sent for sent in ours if sent.id in missing),
            foreign=self._foreign(ours),
            drift=_drift(paid),
        )

    def _foreign(self, ours: Sequence[Sent]) -> tuple[Charge, ...]:
        windows = [self._settle_window(sent) for sent in ours]
        if not windows:
            return ()
        begin, end = min(begin for begin, _ in windows), max(end for _, end in windows)
        rows = sorted(self._strays, key=in_order)
        return tuple(row for row in rows if row.net and begin <= row.at <= end)


def _settled(sent: Sent, charge: Charge) -> Settled:
    # A log that ends before a refund does not undo it.
    refunded = min(charge.amount, max(charge.refunded, sent.refunded))
    return Settled(
        attempt=sent,
        amount=Micros(charge.amount - refunded),
        request_id=charge.request_id,
        refunded=Micros(refunded),
    )


def _is_correction(settled: Settled) -> bool:
    sent = settled.attempt
    return sent.billed is Billed.YES and (
        settled.amount != sent.cost or settled.refunded != sent.refunded or sent.possible > 0
    )


def _kept_costs(paid: Sequence[tuple[Sent, Charge]]) -> bool:
    """Whether the known costs are those of the rows, in whatever order."""
    certain = [(sent, row) for sent, row in paid if sent.billed is not Billed.MAYBE]
    return not any(sent.possible for sent, _ in certain) and (
        Counter(sent.cost for sent, _ in certain) == Counter(row.net for _, row in certain)
    )


def _merged(
    spans: Iterable[tuple[datetime, datetime]],
) -> Sequence[tuple[datetime, datetime]]:
    """Spans of time in order, those that touch joined."""
    found: list[tuple[datetime, datetime]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def _drift(paid: Iterable[Settled]) -> tuple[Drift, ...]:
    found = Counter(
        (
            settled.attempt.model,
            settled.attempt.price,
            Micros(settled.amount + settled.refunded),
        )
        for settled in paid
        if settled.attempt.outcome is not Outcome.BLOCKED  # a fee for a refusal is not a price
        and settled.attempt.price_known
        and not _fits(settled.attempt, Micros(settled.amount + settled.refunded))
    )
    return tuple(
        Drift(model=model, price=price, amount=amount, requests=requests)
        for (model, price, amount), requests in sorted(found.items())
    )


def _fits(sent: Sent, amount: Micros) -> bool:
    """Whether an amount is the price, or lies where the options leave the price open."""
    if sent.least is not None and sent.least <= amount <= sent.price:
        return True
    return not _drifts(sent.price, amount)


def _drifts(price: Micros, amount: Micros) -> bool:
    return abs(amount - price) * 100 > price * _DRIFT_PERCENT
