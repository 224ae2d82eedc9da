"""Input and result of a reconciliation: our attempts, and what a billing log proves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from batchgen.job import AttemptId, Billed, Outcome
from batchgen.money import ZERO, Micros
from batchgen.reconciliation.charges import Charge


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """An attempt, with the facts that a log can confirm."""

    id: AttemptId
    key: str
    ours: bool
    """Whether it belongs to the reconciled batch. Other attempts only explain rows."""
    model: str
    price: Micros
    cost: Micros
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome
    billed: Billed
    request_id: str | None = None
    least: Micros | None = None
    """The lowest price for its options; None if the options fix the price."""
    possible: Micros = ZERO
    """The possible charge beyond ``cost``, for an attempt that is known to be charged."""
    refunded: Micros = ZERO
    """The refund in earlier logs."""
    price_known: bool = True


class Why(StrEnum):
    """Why nothing is proven about an attempt."""

    CUT_OFF = "the run was killed during the request; the next run examines it first"
    YOUNG = "the log does not cover its settle window yet, so a charge may still appear"
    BEFORE = "the log begins after the request"
    AMBIGUOUS = "fewer charges than attempts match, and the log does not show whose they are"
    SURPLUS = "more charges than attempts match, and the log does not show which are ours"
    OTHER_CHARGE = "an unexplained charge matches its time"
    UNTRUSTED = "the log lacks a request that is known to be charged, so it may be incomplete"
    LATE = "a known charge was logged after the settle window, so this one may be late too"
    NO_CONTROL = "the log contains no request that is known to be ours, so it may be another log"
    CONTRADICTION = "the rows of its request contradict each other, or one has an unknown kind"
    SHARED = "other charges match its time and amount; only a request id would identify its own"
    REFUND = "a refund without a request id may belong to it"
    MIXED = "matching charges were partly refunded, and the log does not show whose"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """An attempt and its charge."""

    attempt: Sent
    amount: Micros
    """The charge minus refunds."""
    request_id: str | None = None
    """The request id in the log; None if several attempts were settled together by count."""
    refunded: Micros = ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class Unproven:
    """An attempt about which the log proves nothing."""

    attempt: Sent
    why: Why


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Drift:
    """Requests whose charge differs from their price by more than 1 %."""

    model: str
    price: Micros
    amount: Micros
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What the log proves about the attempts of a batch, and what it leaves open."""

    billed: tuple[Settled, ...]
    """Charged attempts that were uncertain or considered free before."""
    unbilled: tuple[Settled, ...]
    """Uncertain attempts that were not charged, or refunded in full."""
    corrected: tuple[Settled, ...]
    """Charged attempts whose amount differs; 0 if refunded in full."""
    unproven: tuple[Unproven, ...]
    missing: tuple[Sent, ...]
    """Charged attempts that the log lacks."""
    foreign: tuple[Charge, ...]
    """Rows within the batch's time that no attempt explains. If only some of several rows are
    foreign and the log does not show which, these are the last ones."""
    drift: tuple[Drift, ...]

    @property
    def agrees(self) -> bool:
        """Whether the ledger agrees with the log after this settlement."""
        return not (self.unproven or self.missing or self.foreign or self.drift)
