"""Parse the public price list of a new-api gateway, and price requests with it. Pure.

The list is the response of ``GET /api/pricing``, which needs no key. Its fields are defined in
``controller/pricing.go`` and ``model/pricing.go`` of https://github.com/QuantumNous/new-api;
Crazyrouter adds ``discount``, ``image_pricing`` and ``video_pricing``. Dollars per unit are the
base price times ``discount`` times the ratio of the key's group. ``model_price: 0`` does not mean
free: such rows keep their prices in rules, or the price is unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final, Protocol

from batchgen.job import OptionValue
from batchgen.money import Micros, parse_dollars

Options = Mapping[str, OptionValue]

_MAX_UNIT_DOLLARS: Final = 10_000
"""A higher price per unit is a mistake in the list, and treated as unknown."""
_MAX_SECONDS: Final = 3_600
_DEFAULT_SECONDS: Final = Decimal(8)
"""The usual length of a video, and the longest that Veo creates in one request."""
_MAX_WORD_CHARS: Final = 80


class PriceListError(ValueError):
    """A text is not a price list; the message says why."""


class Unit(StrEnum):
    """The unit of a price."""

    IMAGE = "image"
    REQUEST = "request"
    SECOND = "second"
    TOKEN = "token"
    """The cost of a request is unknown until its response."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOption:
    """An option that determines the price and is not set."""

    name: str
    highest: str
    """The value that costs ``PriceSpan.most``."""
    lowest: str
    """The value that costs ``PriceSpan.least``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSpan:
    """The lowest and highest possible cost of a request; equal if its options fix the price."""

    least: Micros
    most: Micros
    open: OpenOption | None = None


class Price(Protocol):
    """The price of one model."""

    @property
    def unit(self) -> Unit:
        """The unit of the amounts in ``variants``."""

    def span(self, options: Options, references: int) -> PriceSpan | None:
        """Return the price span of a request with these options; None if unknown."""

    def cost(self, usage: Mapping[str, object]) -> Micros | None:
        """Return the cost of a response's ``usage``; None if it states none, or is not charged."""

    def variants(self) -> Sequence[tuple[str, Micros | None]]:
        """Return labels for people with amounts per unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """The prices of a provider from one source and one day."""

    models: Mapping[str, Price]
    source: str
    """Origin and date of the prices, for people and the ledger."""
    day: date

    def price(self, model: str, options: Options, references: int) -> Micros | None:
        """Return the highest possible price of a request, in micros; None if unlisted."""
        found = self.span(model, options, references)
        return None if found is None else found.most

    def span(self, model: str, options: Options, references: int) -> PriceSpan | None:
        """Return the lowest and highest possible price of a request; None if unlisted."""
        found = self.models.get(model)
        return None if found is None else found.span(options, references)

    def cost(self, model: str, usage: Mapping[str, object]) -> Micros | None:
        """Return the cost of a response's ``usage``, in micros; None if not charged by tokens."""
        found = self.models.get(model)
        return None if found is None else found.cost(usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A price per unit and the requests that it applies to; an empty text applies to all."""

    amount: Micros | None
    """Includes discount and group ratio. None if the rule names no price."""
    bucket: str = ""
    resolution: str = ""
    """Lower case: ``2k``, ``1080p``, ``1280x720``."""
    audio: bool | None = None
    verified: bool = False
    detail: str = ""
    """Other fields of the rule, to distinguish it from similar ones."""

    @property
    def words(self) -> str:
        """A label of what it applies to, without the bucket."""
        sound = {True: "audio", False: "silent", None: ""}[self.audio]
        return " ".join(word for word in (self.resolution, self.detail, sound) if word)


_BUCKETS: Final = (("t2i", "t2v"), ("i2i", "i2v"), ("reference",))
"""Names of capability buckets by the number of references: none, one, more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrice:
    """The rates of a model. Without rates, or if charged by tokens, its price is unknown."""

    unit: Unit
    rates: tuple[Rate, ...] = ()

    def span(self, options: Options, references: int) -> PriceSpan | None:
        """Return the price span of a request; None if unknown.

        Without a resolution, the span covers all resolutions. A matching rate without an amount
        makes the price unknown.
        """
        factor = _seconds(options) if self.unit is Unit.SECOND else Decimal(1)
        by_word = self._by_resolution(options, references)
        if factor is None or not by_word or None in by_word.values():
            return None
        prices = {
            word: Micros(int((amount * factor).to_integral_value(ROUND_CEILING)))
            for word, amount in by_word.items()
            if amount is not None
        }
        lowest, highest = min(prices, key=prices.__getitem__), max(prices, key=prices.__getitem__)
        least, most = prices[lowest], prices[highest]
        if least == most:
            return PriceSpan(least=least, most=most)
        option = OpenOption(name="resolution", highest=highest, lowest=lowest)
        return PriceSpan(least=least, most=most, open=option)

    def cost(self, usage: Mapping[str, object]) -> None:
        """Return None: the price does not depend on usage."""

    def _by_resolution(self, options: Options, references: int) -> Mapping[str, Micros | None]:
        """Return for each possible resolution its highest rate, of verified rates if there are any.

        For a resolution or bucket that is not listed, the highest of all rates applies: an estimate
        must not be too low.
        """
        rates = self._of_bucket(options, references)
        if not rates:
            return {"": _highest(self.rates)} if self.rates else {}
        asked = _resolutions(options)
        if asked:
            fitting = [rate for rate in rates if not rate.resolution or rate.resolution in asked]
            return {"": _highest(_verified(fitting) if fitting else rates)}
        by_word: dict[str, list[Rate]] = {}
        for rate in rates:
            by_word.setdefault(rate.resolution, []).append(rate)
        return {word: _highest(_verified(found)) for word, found in by_word.items()}

    def _of_bucket(self, options: Options, references: int) -> Sequence[Rate]:
        """Return the rates for this number of references and for sound.

        No option for sound is documented: without one, a video has the sound of verified rates.
        """
        if len(self.rates) < 2:
            return self.rates
        bucket = _BUCKETS[min(references, 2)]
        rates = [rate for rate in self.rates if rate.bucket in bucket or not rate.bucket]
        sounds = {rate.audio for rate in rates if rate.verified}
        usual = sounds.pop() if len(sounds) == 1 else None
        sound = _sound(options) if _sound(options) is not None else usual
        if sound is None:
            return rates
        return [rate for rate in rates if rate.audio in (None, sound)]

    def variants(self) -> Sequence[tuple[str, Micros | None]]:
        """Return labels with amounts; a label includes the bucket only if amounts differ."""
        by_words: dict[str, set[Micros | None]] = {}
        for rate in self.rates:
            by_words.setdefault(rate.words, set()).add(rate.amount)
        found: dict[tuple[str, Micros | None], None] = {}
        for rate in self.rates:
            bucket = rate.bucket if len(by_words[rate.words]) > 1 else ""
            found[" ".join(word for word in (bucket, rate.words) if word), rate.amount] = None
        return tuple(found) or (("", None),)


def _verified(rates: Sequence[Rate]) -> Sequence[Rate]:
    return [rate for rate in rates if rate.verified] or rates


def _highest(rates: Sequence[Rate]) -> Micros | None:
    """Return the highest amount; None if one of the rates has no amount."""
    known = [rate.amount for rate in rates if rate.amount is not None]
    return max(known) if known and len(known) == len(rates) else None


_PIXELS: Final = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


def _resolutions(options: Options) -> set[str]:
    """Return possible names in a price list for the requested resolution; empty if unset."""
    written = str(options.get("resolution", options.get("size", "auto")))
    text = written.strip().lower().replace("*", "x")
    if text == "auto":
        return set()
    names = {text}
    if match := _PIXELS.fullmatch(text):
        short = min(int(match[1]), int(match[2]))
        names.add("4k" if short == 2160 else f"{short}p")
    return names


def _sound(options: Options) -> bool | None:
    """Return whether the options request sound; None without an option that mentions audio."""
    for name, value in options.items():
        if "audio" in name.lower():
            return bool(value)
    return None


def _seconds(options: Options) -> Decimal | None:
    written = options.get("duration", options.get("seconds"))
    if written is None:
        return _DEFAULT_SECONDS
    try:
        seconds = Decimal(str(written))
    except InvalidOperation:
        return None
    return seconds if seconds.is_finite() and 0 < seconds <= _MAX_SECONDS else None


def read_price_list(body: bytes, *, source: str, day: date) -> PriceList:
    """Parse a response of ``GET /api/pricing``. Raises PriceListError.

    A model whose row is not understood has an unknown price. Amounts are exact decimals of the
    text, rounded once to micros (half up).
    """
    document = _document(body)
    group = _group_ratio(document)
    models: dict[str, Price] = {}
    for row in document["data"]:
        name = row.get("model_name") if isinstance(row, dict) else None
        if not isinstance(name, str) or not _word(name):
            continue
        price = _model_price(row, group)
        if models.setdefault(name, price) != price:
            models[name] = ModelPrice(unit=Unit.UNKNOWN)  # listed twice, with different prices
    if not models:
        raise PriceListError("no row names a model")
    return PriceList(models=models, source=source, day=day)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, ArithmeticError, RecursionError) as exc:
        raise PriceListError(f"not JSON: {str(exc)[:200] or type(exc).__name__}") from exc
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        raise PriceListError("expected an object with a list of rows in `data`")
    if document.get("success") is False:
        raise PriceListError("the response reports `success: false`")
    return document


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _group_ratio(document: dict[str, Any]) -> Decimal:
    """Return the ratio of the default group; 1 if the list does not contain it."""
    ratios = document.get("group_ratio")
    ratio = ratios.get("default", 1) if isinstance(ratios, dict) else 1 if ratios is None else None
    number = _number(ratio)
    if number is None:
        raise PriceListError("`group_ratio` of the default group is not a number")
    return number


def _model_price(row: dict[str, Any], group: Decimal) -> ModelPrice:
    unit = _unit(row)
    discount = _number(row.get("discount", 1))  # stock new-api has no discounts
    if unit in (Unit.TOKEN, Unit.UNKNOWN) or discount is None:
        return ModelPrice(unit=unit)
    factor = discount * group
    flat = _amount(row.get("model_price"), factor) if row.get("quota_type") == 1 else None
    if flat is not None:
        return ModelPrice(unit=unit, rates=(Rate(amount=flat),))
    return ModelPrice(unit=unit, rates=tuple(_rate(rule, factor) for rule in _rules(row)))


_UNITS: Final = {
    "per_image": Unit.IMAGE,
    "per_second": Unit.SECOND,
    "per_request": Unit.REQUEST,
    "per_output_token": Unit.TOKEN,
}


def _unit(row: dict[str, Any]) -> Unit:
    """Return the unit of a row's price, which most rows do not state in ``billing_mode``."""
    mode = row.get("billing_mode")
    if mode:
        return _UNITS.get(mode, Unit.UNKNOWN) if isinstance(mode, str) else Unit.UNKNOWN
    if row.get("image_pricing"):
        return Unit.IMAGE
    if row.get("quota_type") == 1 and not row.get("video_pricing"):
        kinds = row.get("public_endpoint_types") or row.get("supported_endpoint_types")
        images = isinstance(kinds, list) and "image-generation" in kinds
        return Unit.IMAGE if images else Unit.REQUEST
    if row.get("quota_type") == 0 and not row.get("video_pricing"):
        return Unit.TOKEN
    return Unit.UNKNOWN


def _rules(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("image_pricing", "video_pricing"):
        pricing = row.get(name)
        rules = pricing.get("rules") if isinstance(pricing, dict) else None
        for rule in rules if isinstance(rules, list) else []:
            yield rule if isinstance(rule, dict) else {}


def _rate(rule: dict[str, Any], factor: Decimal) -> Rate:
    in_dollars = rule.get("platform_currency", "USD") == "USD"
    audio = rule.get("has_audio")
    details = (rule.get("mode"), rule.get("duration_bucket"))
    return Rate(
        amount=_amount(rule.get("platform_base_price"), factor) if in_dollars else None,
        bucket=_word(rule.get("capability_bucket")),
        resolution=_word(rule.get("resolution")).replace("*", "x"),
        audio=audio if isinstance(audio, bool) else None,
        verified=rule.get("verification_status") == "verified",
        detail=" ".join(word for word in map(_word, details) if word),
    )


def _amount(base: object, factor: Decimal) -> Micros | None:
    """Return base times factor in micros. None for zero, which never is a price in the list."""
    number = _number(base)
    if number is None:
        return None
    dollars = number * factor
    if not 0 < dollars <= _MAX_UNIT_DOLLARS:
        return None
    return max(parse_dollars(dollars), Micros(1))


def _number(value: object) -> Decimal | None:
    """Return a plausible number from the list; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    number = Decimal(value)
    return number if 0 <= number < 1_000_000_000 else None


def _word(value: object) -> str:
    """Return a short printable text in lower case; empty for anything else."""
    if not isinstance(value, str) or len(value) > _MAX_WORD_CHARS or not value.isprintable():
        return ""
    return value.strip().lower()
