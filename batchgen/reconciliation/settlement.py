"""What a reconciliation takes and finds: our attempts, and what a billing log proves of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from batchgen.job import AttemptId, Billed, Outcome
from batchgen.money import ZERO, Micros
from batchgen.reconciliation.charges import Charge


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
    least: Micros | None = None
    """The cheapest price that fits its options, where they leave the price open."""
    possible: Micros = ZERO
    """What is possibly charged beyond ``cost``, for an attempt that is known to be charged."""
    refunded: Micros = ZERO
    """What earlier logs showed as refunded."""
    price_known: bool = True


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
    CONTRADICTION = "the rows of its request contradict each other, or one is of an unknown kind"
    SHARED = "others are charged the same at its time, and only a request id would prove whose"
    REFUND = "a refund that names no request may be its"
    MIXED = "charges that fit it were refunded in part, and nothing tells whose"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """An attempt and what it was charged."""

    attempt: Sent
    amount: Micros
    """What is left after refunds."""
    request_id: str | None = None
    """The log's id of the request; None where numbers settle several attempts together."""
    refunded: Micros = ZERO


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
    """Uncertain or taken for free before, and charged."""
    unbilled: tuple[Settled, ...]
    """Uncertain before, and not charged: never, or refunded in full."""
    corrected: tuple[Settled, ...]
    """Known to be charged, at another amount; 0 where all of it was refunded."""
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
