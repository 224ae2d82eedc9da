"""Model prices in the form of the provider's public list, and their amounts in micro-dollars."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from batchgen.simulator.billing import MICROS_PER_DOLLAR


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRule:
    """One rule of a row's `image_pricing` or `video_pricing`; an empty word matches everything."""

    bucket: str
    dollars: Decimal
    resolution: str = ""
    audio: bool | None = None
    references: str = ""
    """The number of references it covers, in the list's notation: `1-14 refs`."""
    yuan: Decimal | None = None
    """The maker's own price, if that is not in dollars."""
    verified: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """A flat price in dollars, or rules; a unit costs either times the discount."""

    discount: Decimal = Decimal(1)
    flat: Decimal | None = None
    rules: tuple[PriceRule, ...] = ()

    def micros(self, *, bucket: str, resolution: str = "", audio: bool | None = None) -> int:
        """Return the price of one image or one second. Raises LookupError if no rule matches."""
        if self.flat is not None:
            return self._discounted(self.flat)
        for rule in self.rules:
            if (rule.bucket, rule.resolution, rule.audio) == (bucket, resolution, audio):
                return self._discounted(rule.dollars)
        raise LookupError(f"no price for {bucket} {resolution}")

    def _discounted(self, dollars: Decimal) -> int:
        micros = dollars * self.discount * MICROS_PER_DOLLAR
        return int(micros.to_integral_value(ROUND_HALF_UP))


def image_bucket(references: int) -> str:
    """Return the list's word for images from text, from one image, or from several."""
    return ("t2i", "i2i", "reference")[min(references, 2)]
