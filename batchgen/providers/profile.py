"""A provider as data: its URL, key, models, prices and behavior. A new one is one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from batchgen.http.network_settings import NetworkSettings
from batchgen.job import Billed, OptionValue
from batchgen.money import Micros, PriceTerms
from batchgen.providers.adapters.registry import Route
from batchgen.providers.price_list import OpenOption, PriceList, PriceSpan
from batchgen.providers.rules.model_rules import ModelRules
from batchgen.providers.rules.option_rules import Choice

_REFERENCE_OPTIONS: Final = ("image_input", "images")
"""Options with the URL of a reference image (nano-banana and veo)."""
_NO_OPTIONS: Final[Mapping[str, OptionValue]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLog:
    """The credentials for reading an account's billing log.

    The access token is a different secret than the API key, with more permissions.
    """

    token_variable: str | None = None
    """None if ``open_token`` is used."""
    user_variable: str | None = None
    open_token: str = ""
    open_user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """An endpoint's URL, key, models, prices and behavior."""

    name: str
    """Part of ledger rows and fingerprints: an image of one provider never counts as another's."""
    base_url: str | None
    """Ends in ``/v1``. None if only the run knows it, as for the local endpoint."""
    key_variable: str | None
    """The environment variable with the key; None if no secret is needed."""
    open_key: str | None = None
    """A key that is not secret, sent if ``key_variable`` is None."""
    default_model: str = "gpt-image-2"
    models: Mapping[str, ModelRules] = field(default_factory=dict)
    """The known rules of each model."""
    routes: Mapping[str, Route] = field(default_factory=dict)
    """Models that do not use the Images route."""
    route_models: Mapping[Route, Mapping[str, ModelRules]] = field(default_factory=dict)
    """Rules of models on a route other than their usual one."""
    prices: PriceList | None = None
    """The bundled price list, until a run fetches a newer one."""
    price_route: str | None = None
    """Path of the endpoint's price list, relative to `root_url`."""
    account_log: AccountLog | None = None
    """None if the endpoint has no billing log that batchgen can read."""
    flat_price: Micros | None = None
    """One price for all models, from the manifest; it overrides any list."""
    replays_idempotency_key: bool = False
    """A repeated Idempotency-Key returns the first response and is not charged again."""
    server_errors_billed: Billed = Billed.NO
    """Whether a 500 or 502 with the endpoint's own error object may be charged."""
    refusals_billed: Billed = Billed.NO
    """Whether a refused or blocked request may be charged."""
    failed_tasks_billed: Billed = Billed.MAYBE
    """Whether a task that was accepted and then failed may be charged."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    """How this endpoint is reached."""
    is_local: bool = False
    """The bundled simulator, which charges nothing."""
    moves_results: bool = False
    """Result URLs on loopback follow the endpoint to its current port."""

    def price(
        self, model: str, options: Mapping[str, OptionValue] = _NO_OPTIONS, references: int = 0
    ) -> Micros | None:
        """Return the highest possible price of a request, in micros; None if unknown."""
        found = self.price_span(model, options, references)
        return None if found is None else found.most

    def price_span(
        self, model: str, options: Mapping[str, OptionValue] = _NO_OPTIONS, references: int = 0
    ) -> PriceSpan | None:
        """Return the lowest and highest possible price of a request; None if unknown."""
        if self.flat_price is not None:
            return PriceSpan(least=self.flat_price, most=self.flat_price)
        references += sum(name in options for name in _REFERENCE_OPTIONS)
        found = self.prices.span(model, options, references) if self.prices else None
        if found is None or found.open is None:
            return found
        return self._of_legal_values(model, options, references, found) or found

    def _of_legal_values(
        self,
        model: str,
        options: Mapping[str, OptionValue],
        references: int,
        found: PriceSpan,
    ) -> PriceSpan | None:
        """Return the price span over the model's valid values of the open option.

        None if these are unknown, or if one of them has no price.
        """
        rules, prices = self.known_models().get(model), self.prices
        if rules is None or prices is None or found.open is None:
            return None
        name = next((one for one in (found.open.name, "size") if one in rules.options), "")
        rule = rules.options.get(name)
        if not isinstance(rule, Choice):
            return None
        spans = {
            value: prices.span(model, {**options, name: value}, references)
            for value in rule.values
            if value != "auto"
        }
        known = {value: span for value, span in spans.items() if span is not None}
        if not known or len(known) < len(spans):
            return None
        lowest = min(known, key=lambda value: known[value].least)
        highest = max(known, key=lambda value: known[value].most)
        least, most = known[lowest].least, known[highest].most
        option = OpenOption(name=name, highest=highest, lowest=lowest)
        return PriceSpan(least=least, most=most, open=option if least < most else None)

    def price_terms(
        self, model: str, options: Mapping[str, OptionValue], references: int
    ) -> PriceTerms:
        """Return what the ledger records about a price besides the reserved amount."""
        found = self.price_span(model, options, references)
        if found is None:
            return PriceTerms(is_known=False)
        return PriceTerms(least=found.least if found.least < found.most else None)

    def route_of(self, model: str) -> Route:
        """Return the route that a model uses."""
        return self.routes.get(model, Route.IMAGES)

    def known_models(self) -> Mapping[str, ModelRules]:
        """Return the rules of each model on the route that it uses."""
        other = {
            model: self.route_models[route][model]
            for model, route in self.routes.items()
            if model in self.route_models.get(route, {})
        }
        return {**self.models, **other}

    def cost_of(self, model: str, usage: Mapping[str, object]) -> Micros | None:
        """Return the cost of a response's token usage; None if not charged by tokens."""
        if self.flat_price is not None or self.prices is None:
            return None
        return self.prices.cost(model, usage)

    @property
    def has_log(self) -> bool:
        """Whether requests can be reconciled with a provider's billing log."""
        return self.account_log is not None and not self.is_local

    @property
    def price_source(self) -> str:
        """The origin and date of the prices."""
        if self.flat_price is not None:
            return "the manifest"
        return self.prices.source if self.prices else ""

    @property
    def price_url(self) -> str | None:
        """The URL of the current price list; None without one, or if none is needed."""
        if self.root_url is None or self.price_route is None or self.flat_price is not None:
            return None
        return self.root_url + self.price_route

    @property
    def root_url(self) -> str | None:
        """The base URL without ``/v1``, below which prices and accounts are found."""
        return None if self.base_url is None else self.base_url.removesuffix("/v1")
