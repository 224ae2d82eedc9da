"""What batchgen knows of an endpoint, as data: a new one is one file with one of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from batchgen.job import Billed, OptionValue
from batchgen.money import Micros, PriceTerms
from batchgen.providers.adapters.registry import Route
from batchgen.providers.price_list import OpenOption, PriceList, PriceSpan
from batchgen.providers.rules.model_rules import ModelRules
from batchgen.providers.rules.option_rules import Choice

_REFERENCE_OPTIONS: Final = ("image_input", "images")
"""Options that name a reference image by its address, as nano-banana and veo take them."""
_NO_OPTIONS: Final[Mapping[str, OptionValue]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLog:
    """Where an account may read what it was charged, and what it needs for that.

    The access token is another secret than the key, and can do more.
    """

    token_variable: str | None = None
    """None where ``open_token`` will do."""
    user_variable: str | None = None
    open_token: str = ""
    open_user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """An endpoint's address, key, models, prices and habits."""

    name: str
    """In the ledger and in fingerprints: images of two names never pass for each other."""
    base_url: str | None
    """Ends in ``/v1``. None where only the run knows it, as for the embedded endpoint."""
    key_variable: str | None
    """The environment variable that holds the key; None where no secret is needed."""
    open_key: str | None = None
    """A key that is no secret, sent where ``key_variable`` is None."""
    default_model: str = "gpt-image-2"
    models: Mapping[str, ModelRules] = field(default_factory=dict)
    """What each model accepts, as far as it is known."""
    routes: Mapping[str, Route] = field(default_factory=dict)
    """Models that are not asked for on the Images routes."""
    route_models: Mapping[Route, Mapping[str, ModelRules]] = field(default_factory=dict)
    """What models accept on a route other than their usual one."""
    prices: PriceList | None = None
    """The list to price by: the one that is shipped, until a newer one is known."""
    price_route: str | None = None
    """Where the endpoint publishes its price list, from the root of its address."""
    account_log: AccountLog | None = None
    """None where the endpoint has no log that is known how to be read."""
    flat_price: Micros | None = None
    """One price for every model, as told in a manifest; it wins over any list."""
    replays_idempotency_key: bool = False
    """A repeated Idempotency-Key gives the first response and is not billed again."""
    server_errors_billed: Billed = Billed.NO
    """Whether a 500 or 502 that the endpoint answers in its own words may cost money."""
    refusals_billed: Billed = Billed.NO
    """Whether a request that is refused, for its content too, may cost money."""
    failed_tasks_billed: Billed = Billed.MAYBE
    """Whether a task costs money that was accepted and failed."""
    is_local: bool = False
    """The bundled simulator, which charges nothing."""
    moves_results: bool = False
    """Result addresses on loopback follow the endpoint to its present port."""

    def price(
        self, model: str, options: Mapping[str, OptionValue] = _NO_OPTIONS, references: int = 0
    ) -> Micros | None:
        """Price one request at the dearest that fits, in micros; None where it is unknown."""
        found = self.price_span(model, options, references)
        return None if found is None else found.most

    def price_span(
        self, model: str, options: Mapping[str, OptionValue] = _NO_OPTIONS, references: int = 0
    ) -> PriceSpan | None:
        """Price one request from the cheapest to the dearest that fits; None where unknown."""
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
        """The span over the values that the model takes for the open option, as it spells them.

        None where they are not known, or where not all of them have a price.
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
        cheapest = min(known, key=lambda value: known[value].least)
        dearest = max(known, key=lambda value: known[value].most)
        least, most = known[cheapest].least, known[dearest].most
        option = OpenOption(name=name, dearest=dearest, cheapest=cheapest)
        return PriceSpan(least=least, most=most, open=option if least < most else None)

    def price_terms(
        self, model: str, options: Mapping[str, OptionValue], references: int
    ) -> PriceTerms:
        """What to record of a price beside the amount that is reserved."""
        found = self.price_span(model, options, references)
        if found is None:
            return PriceTerms(is_known=False)
        return PriceTerms(least=found.least if found.least < found.most else None)

    def route_of(self, model: str) -> Route:
        """The route that a model is asked on."""
        return self.routes.get(model, Route.IMAGES)

    def known_models(self) -> Mapping[str, ModelRules]:
        """What each model accepts on the route that it is asked on."""
        other = {
            model: self.route_models[route][model]
            for model, route in self.routes.items()
            if model in self.route_models.get(route, {})
        }
        return {**self.models, **other}

    def cost_of(self, model: str, usage: Mapping[str, object]) -> Micros | None:
        """What a response's own usage comes to; None where the model is not billed by tokens."""
        if self.flat_price is not None or self.prices is None:
            return None
        return self.prices.cost(model, usage)

    @property
    def has_log(self) -> bool:
        """Whether a person may compare requests with a billing log that a provider keeps."""
        return self.account_log is not None and not self.is_local

    @property
    def price_source(self) -> str:
        """Where the prices are from and of which day."""
        if self.flat_price is not None:
            return "the manifest"
        return self.prices.source if self.prices else ""

    @property
    def price_url(self) -> str | None:
        """Where a fresh price list is had; None where there is none, or none is needed."""
        if self.root_url is None or self.price_route is None or self.flat_price is not None:
            return None
        return self.root_url + self.price_route

    @property
    def root_url(self) -> str | None:
        """The address without ``/v1``, where an endpoint tells of itself and of accounts."""
        return None if self.base_url is None else self.base_url.removesuffix("/v1")
