"""What batchgen knows of an endpoint, as data: a new one is one file with one of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from batchgen.money import Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """An endpoint's address, key, prices and habits."""

    name: str
    """In the ledger and in fingerprints: pictures of two names never pass for each other."""
    base_url: str | None
    """Ends in ``/v1``. None where only the run knows it, as for the embedded endpoint."""
    key_variable: str | None
    """The environment variable that holds the key; None where no secret is needed."""
    open_key: str | None = None
    """A key that is no secret, sent where ``key_variable`` is None."""
    default_model: str = "gpt-image-2"
    prices: Mapping[str, Micros] = field(default_factory=dict)
    """Dollars a picture by model, in micros; a model that is missing has an unknown price."""
    flat_price: Micros | None = None
    """One price for every model, as told in a manifest."""
    price_source: str = ""
    """Where the prices are from and of which day."""
    replays_idempotency_key: bool = False
    """A repeated Idempotency-Key gives the first answer and is not billed again."""
    moves_results: bool = False
    """Result addresses on loopback follow the endpoint to its present port."""

    def price(self, model: str) -> Micros | None:
        """One picture in micros, or None where nobody has told."""
        return self.prices.get(model, self.flat_price)
