"""What batchgen knows of an endpoint, as data: a new one is one file with one of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from batchgen.job import OptionValue
from batchgen.money import Micros
from batchgen.providers.prices import PriceList
from batchgen.providers.rules import ModelRules

_NO_OPTIONS: Final[Mapping[str, OptionValue]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """An endpoint's address, key, models, prices and habits."""

    name: str
    """In the ledger and in fingerprints: pictures of two names never pass for each other."""
    base_url: str | None
    """Ends in ``/v1``. None where only the run knows it, as for the embedded endpoint."""
    key_variable: str | None
    """The environment variable that holds the key; None where no secret is needed."""
    open_key: str | None = None
    """A key that is no secret, sent where ``key_variable`` is None."""
    default_model: str = "gpt-image-2"
    models: Mapping[str, ModelRules] = field(default_factory=dict)
    """What each model accepts, as far as it is known."""
    prices: PriceList | None = None
    """The list to price by: the one that is shipped, until a newer one is known."""
    price_route: str | None = None
    """Where the endpoint publishes its price list, from the root of its address."""
    flat_price: Micros | None = None
    """One price for every model, as told in a manifest; it wins over any list."""
    replays_idempotency_key: bool = False
    """A repeated Idempotency-Key gives the first answer and is not billed again."""
    moves_results: bool = False
    """Result addresses on loopback follow the endpoint to its present port."""

    def price(
        self, model: str, options: Mapping[str, OptionValue] = _NO_OPTIONS, references: int = 0
    ) -> Micros | None:
        """One request in micros, or None where nobody has told: unknown is never free."""
        if self.flat_price is not None:
            return self.flat_price
        return self.prices.price(model, options, references) if self.prices else None

    @property
    def price_source(self) -> str:
        """Where the prices are from and of which day."""
        if self.flat_price is not None:
            return "the manifest"
        return self.prices.source if self.prices else ""

    @property
    def price_url(self) -> str | None:
        """Where a fresh price list is had; None where there is none, or none is needed."""
        if self.base_url is None or self.price_route is None or self.flat_price is not None:
            return None
        return self.base_url.removesuffix("/v1") + self.price_route
