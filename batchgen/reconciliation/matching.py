"""Match attempts with a provider's billing log. Pure: no file, no network, no clock.

An attempt is charged or not charged only where no other reading of the log is left. A row
names its attempt by request id; else by model, time and amount, and only where the rows in question
are exactly as many as the attempts that they can belong to. Where the log has request ids, a row
whose id looks like none of ours, or whose time is not that of the request, is possible and never
proof. A charge that was refunded is not charged.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from batchgen.job import AttemptId, Billed, Outcome
from batchgen.money import ZERO, Micros
from batchgen.reconciliation.amounts import (
    drifts,
    is_correction,
    keeps_costs,
    price_drift,
    settle_by,
)
from batchgen.reconciliation.charges import Charge, Entry, Rows, UsageLog, in_order, sort_rows
from batchgen.reconciliation.log_times import LogTimes, merged
from batchgen.reconciliation.request_ids import KnownIds
from batchgen.reconciliation.row_groups import Group, group_by_time
from batchgen.reconciliation.settlement import Reconciliation, Sent, Settled, Unproven, Why


def reconcile(attempts: Iterable[Sent], log: UsageLog, settle: timedelta) -> Reconciliation:
    """Compare attempts with a log. A charge may come up to ``settle`` after an attempt's end.

    ``attempts`` are all of the ledger at this provider whose time the log touches: an attempt that
    is left out makes its row foreign. The order of attempts and rows, and rows that the log has
    twice, make no difference.
    """
    matching = _Matching(sorted(attempts, key=lambda sent: sent.id), log, settle)
    matching.by_id()
    matching.by_time_and_amount()
    matching.find_late()
    matching.by_silence()
    return matching.result()


class _Matching:
    def __init__(self, attempts: Sequence[Sent], log: UsageLog, settle: timedelta) -> None:
        self._attempts = attempts
        self._rows: Rows = sort_rows(log)
        self._times = LogTimes(log, settle, has_ids=bool(self._rows.named))
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
        self._late: list[Charge] = []
        """Strays that known charges explain; they stay strays, because they prove nothing else."""
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
            self._paid[sent.id] = settle_by(sent, charge)
        elif sent.billed is Billed.MAYBE:
            self._free.append(settle_by(sent, charge))

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
            groups, strays = group_by_time(members, fitting, self._times.counted)
            self._strays += strays
            for group in groups:
                self._decide(group)
        self._release_claimed([sent for members in classes.values() for sent in members])
        self._withdraw_shared()
        self._withdraw_refunded()

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
                if not drifts(amount, charge.amount)
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
        spans = merged(self._times.sending(sent) for sent in attempts)
        begins = [begin for begin, _ in spans]
        for row in rows:
            sent_at = self._ids.sent_at(row.request_id) if row.request_id else None
            position = 0 if sent_at is None else bisect_right(begins, sent_at)
            if sent_at is None or (position and sent_at <= spans[position - 1][1]):
                yield row
            else:
                self._strays.append(row)

    def _decide(self, group: Group) -> None:
        """Settle the attempts of a group by its numbers, or say why not."""
        certain = [sent for sent in group.attempts if sent.billed is not Billed.MAYBE]
        uncertain = [sent for sent in group.attempts if sent.billed is Billed.MAYBE]
        everyone, sure = group.pairs(group.attempts), group.pairs(certain)
        rows = len(group.charges)
        is_full = len(everyone) == rows == len(group.attempts)
        if is_full and (not uncertain or self._is_proof(group)):
            self._pay(group, everyone)
        elif len(sure) == rows == len(certain):
            self._pay(group, sure)
            self._absent += uncertain
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
            self._why |= {sent.id: why for sent in uncertain}
            self._lack([sent for sent in certain if sent.id not in sure])

    def _is_proof(self, group: Group) -> bool:
        """Return whether each attempt of a full group can have a row that is not late."""
        if not self._times.has_ids:
            return True
        times = [charge.at for charge in group.charges]
        spans = {}
        for sent in group.attempts:
            first, last = group.spans[sent.id]
            spans[sent.id] = first, min(last, bisect_right(times, self._times.proof_end(sent)))
        pairs = replace(group, spans=spans).pairs(group.attempts)
        return len(pairs) == len(group.attempts)

    def _pay(self, group: Group, pairs: Mapping[AttemptId, int]) -> None:
        """Settle attempts with as many rows. Which row is whose is known for a single one only."""
        paid = [
            (sent, group.charges[pairs[sent.id]]) for sent in group.attempts if sent.id in pairs
        ]
        if len(paid) == 1:
            ((sent, row),) = paid
            self._settle_counted(sent, row, settle_by(sent, row))
            return
        is_mixed = len({row.refunded for _, row in paid}) > 1
        keeps = keeps_costs(paid)
        for sent, row in paid:
            if sent.billed is not Billed.MAYBE and (keeps or is_mixed):
                self._paid[sent.id] = Settled(
                    attempt=sent, amount=sent.cost, refunded=sent.refunded
                )
            elif is_mixed:
                self._why[sent.id] = Why.MIXED
            else:
                self._settle_counted(sent, row, replace(settle_by(sent, row), request_id=None))

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
            begin, end = self._times.settling(claimant := claimants.pop())
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
        first, last = self._times.sending(sent)
        if arrived is not None and not first <= arrived <= last:
            return False
        amounts = self._expected[sent.model, sent.price]
        return any(not drifts(amount, row.amount) for amount in amounts)

    def _withdraw_shared(self) -> None:
        """Take back what numbers prove where others are charged the same at that time.

        Ids that look like none of ours do not count: numbers were never applied to these.
        """
        if not self._times.has_ids:
            return
        strays: dict[str, list[Charge]] = defaultdict(list)
        for row in sorted(self._strays, key=in_order):
            if row.net and not (row.request_id and self._ids.is_foreign(row.request_id)):
                strays[row.model].append(row)
        times = {model: [row.at for row in rows] for model, rows in strays.items()}
        for sent, own in self._counted:
            begin, end = self._times.settling(sent)
            near = times.get(sent.model, [])
            first = bisect_left(near, begin - self._times.settle)
            end_of = bisect_right(near, end + self._times.settle)
            rows = strays.get(sent.model, [])[first:end_of]
            if any(not drifts(own.amount, row.amount) for row in rows):
                self._take_back(sent, Why.SHARED)
                self._strays.append(own)

    def _withdraw_refunded(self) -> None:
        """Take back what a refund may undo that names no request."""
        for refund in self._rows.nameless_refunds:
            for settled in list(self._paid.values()):
                sent = settled.attempt
                earlier = self._times.sending(sent)[0] <= refund.at
                fits = sent.model == refund.model and settled.amount >= refund.amount
                if sent.billed is not Billed.YES and earlier and fits:
                    self._take_back(sent, Why.REFUND)

    def _take_back(self, sent: Sent, why: Why) -> None:
        self._paid.pop(sent.id, None)
        self._free = [settled for settled in self._free if settled.attempt.id != sent.id]
        self._why[sent.id] = why

    def _lack(self, lacking: Sequence[Sent]) -> None:
        """Known charges that the log has no row for: not yet, or not at all."""
        if any(self._times.beyond(sent) for sent in lacking):
            # Which of them has no row is unknown, so it may be the one that is still to come.
            self._why |= {sent.id: self._times.beyond(sent) or Why.YOUNG for sent in lacking}
        else:
            self._missing += [sent for sent in lacking if sent.billed is Billed.YES]

    def find_late(self) -> None:
        """Find rows after the settle window that known charges explain, which are not missing."""
        classes: dict[tuple[str, Micros], list[Sent]] = defaultdict(list)
        for sent in self._missing:
            classes[sent.model, sent.price].append(sent)
        rows = [
            row
            for row in sorted(self._strays, key=in_order)
            if row.net and not (row.request_id and self._ids.is_foreign(row.request_id))
        ]
        found = set[AttemptId]()
        for members in classes.values():
            fitting, others = list[Charge](), list[Charge]()
            for row in rows:
                fits = any(self._may_own(sent, row) for sent in members)
                (fitting if fits else others).append(row)
            groups, left = group_by_time(members, fitting, self._times.late)
            for group in groups:
                pairs = group.pairs(group.attempts)
                found |= pairs.keys()
                self._late += [group.charges[number] for number in pairs.values()]
                taken = set(pairs.values())
                left += [row for number, row in enumerate(group.charges) if number not in taken]
            rows = sorted([*others, *left], key=in_order)
        self._missing = [sent for sent in self._missing if sent.id not in found]

    def by_silence(self) -> None:
        """Declare not charged what has no row, where the log would have one."""
        strays: dict[str, list[datetime]] = defaultdict(list)
        for charge in sorted(self._strays, key=in_order):
            if charge.net:
                strays[charge.model].append(charge.at)
        self._unassigned.sort(key=in_order)
        controls = any(settled.amount for settled in self._paid.values())
        for sent in self._absent:
            begin, end = self._times.settling(sent)
            times = strays[sent.model]
            if beyond := self._times.beyond(sent):
                self._why[sent.id] = beyond
            elif bisect_left(times, begin) < bisect_right(times, end) or self._may_own_any(sent):
                self._why[sent.id] = Why.OTHER_CHARGE
            elif self._missing:
                self._why[sent.id] = Why.UNTRUSTED
            elif self._late:
                self._why[sent.id] = Why.LATE
            elif not controls:
                self._why[sent.id] = Why.NO_CONTROL
            else:
                self._free.append(Settled(attempt=sent, amount=ZERO))

    def _may_own_any(self, sent: Sent) -> bool:
        """Return whether one of the unassigned rows, which are in order, may be an attempt's."""
        begin, end = self._times.settling(sent)
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
            corrected=tuple(settled for settled in paid if is_correction(settled)),
            unproven=tuple(
                Unproven(attempt=sent, why=self._why[sent.id])
                for sent in ours
                if sent.id in self._why
            ),
            missing=tuple(sent for sent in ours if sent.id in missing),
            foreign=self._foreign(ours),
            drift=price_drift(paid),
        )

    def _foreign(self, ours: Sequence[Sent]) -> tuple[Charge, ...]:
        windows = [self._times.settling(sent) for sent in ours]
        if not windows:
            return ()
        begin, end = min(begin for begin, _ in windows), max(end for _, end in windows)
        late = Counter(self._late)
        rows = list[Charge]()
        for row in sorted(self._strays, key=in_order):
            if late[row]:
                late[row] -= 1
            elif row.net and begin <= row.at <= end:
                rows.append(row)
        return tuple(rows)
