"""Money as whole millionths of a dollar. No float ever holds an amount."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import NewType

Micros = NewType("Micros", int)
"""Millionths of a US dollar."""

ZERO = Micros(0)
_PER_DOLLAR = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTerms:
    """What is known of a request's price before it is sent, apart from the amount to reserve."""

    least: Micros | None = None
    """The cheapest price that fits, where an option that decides it is not set."""
    is_known: bool = True
    """Without a known price, nothing can be kept within a budget."""

    def least_within(self, price: Micros) -> Micros | None:
        """Return the cheapest price of a request that reserves ``price``; None if that is it."""
        return None if self.least is None else min(self.least, price)


def parse_dollars(text: str | int | Decimal) -> Micros:
    """Turn an amount in dollars into micros, rounding half up at the seventh decimal.

    Raises ValueError for anything that is not a finite, non-negative amount below a billion.
    """
    try:
        amount = Decimal(str(text).strip().removeprefix("$"))
    except InvalidOperation:
        raise ValueError(f"{text!r} is not an amount in dollars, like 12.50") from None
    if not amount.is_finite() or amount < 0 or amount >= 1_000_000_000:
        raise ValueError(f"{text!r} is not an amount in dollars from 0 to a billion, like 12.50")
    return Micros(int((amount * _PER_DOLLAR).to_integral_value(ROUND_HALF_UP)))


def decimal_string(amount: int) -> str:
    """Dollars as a plain decimal string for other programs: six decimals, no sign of currency."""
    sign = "-" if amount < 0 else ""
    whole, rest = divmod(abs(amount), _PER_DOLLAR)
    return f"{sign}{whole}.{rest:06d}"


def dollars(amount: int) -> str:
    """Dollars for a person: at least cents, and every decimal that is not zero."""
    sign = "-" if amount < 0 else ""
    whole, rest = divmod(abs(amount), _PER_DOLLAR)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole:,}.{decimals}"


def rounded_dollars(amount: int) -> str:
    """Dollars of a quote: whole cents, rounded half up; below a cent every decimal."""
    if abs(amount) < _PER_DOLLAR // 100:
        return dollars(amount)
    cents = (abs(amount) + 5_000) // 10_000
    return dollars(cents * 10_000 if amount > 0 else -cents * 10_000)


def compared_dollars(*amounts: int) -> tuple[str, ...]:
    """Amounts that a message compares: rounded, or whole where rounding would hide their order."""
    rounded = tuple(map(rounded_dollars, amounts))
    return rounded if len(set(rounded)) == len(set(amounts)) else tuple(map(dollars, amounts))
