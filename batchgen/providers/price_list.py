"""What a request costs by a public price list: the list of a new-api gateway, read and asked.

Pure: nothing is fetched here. Source of every rule: Crazyrouter sheet, section 9.
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
"""A unit that costs more is a mistake of the list, and taken for unknown."""
_MAX_SECONDS: Final = 3_600
_DEFAULT_SECONDS: Final = Decimal(8)
"""The common length of a video (section 11.3), and the longest that Veo makes at once."""
_MAX_WORD_CHARS: Final = 80


class PriceListError(ValueError):
    """A text that is no price list; the message says why."""


class Unit(StrEnum):
    """What a price is for."""

    IMAGE = "image"
    REQUEST = "request"
    SECOND = "second"
    TOKEN = "token"
    """What a request comes to is unknown beforehand."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOption:
    """An option that decides the price and is not set."""

    name: str
    dearest: str
    """Its value that costs ``PriceSpan.most``."""
    cheapest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSpan:
    """What one request costs at least and at most; both are equal where the options settle it."""

    least: Micros
    most: Micros
    open: OpenOption | None = None


class Price(Protocol):
    """What one model costs."""

    @property
    def unit(self) -> Unit:
        """What the amounts of ``variants`` are for."""

    def span(self, options: Options, references: int) -> PriceSpan | None:
        """Price one request with these options and reference images; None where unknown."""

    def cost(self, usage: Mapping[str, object]) -> Micros | None:
        """What a response's ``usage`` comes to; None where it does not say, or is not billed by."""

    def variants(self) -> Sequence[tuple[str, Micros | None]]:
        """Amounts a unit with the words that tell them apart, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """The prices of a provider, of one source and one day."""

    models: Mapping[str, Price]
    source: str
    """Where the prices are from and of which day, for people and the ledger."""
    day: date

    def price(self, model: str, options: Options, references: int) -> Micros | None:
        """Price one request at the dearest that fits, in micros; None where the list has none."""
        found = self.span(model, options, references)
        return None if found is None else found.most

    def span(self, model: str, options: Options, references: int) -> PriceSpan | None:
        """Price one request from the cheapest to the dearest; None where the list has none."""
        found = self.models.get(model)
        return None if found is None else found.span(options, references)

    def cost(self, model: str, usage: Mapping[str, object]) -> Micros | None:
        """Return the cost of a response's ``usage``, in micros; None for a price known before."""
        found = self.models.get(model)
        return None if found is None else found.cost(usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A price of one unit, and what it holds for; an empty word holds for everything."""

    amount: Micros | None
    """Discount and group ratio are in it. None where the rule names no price."""
    bucket: str = ""
    resolution: str = ""
    """Lower case: ``2k``, ``1080p``, ``1280x720``."""
    audio: bool | None = None
    verified: bool = False
    detail: str = ""
    """What else the rule names; it only tells it apart from others."""

    @property
    def words(self) -> str:
        """What it holds for, without the bucket."""
        sound = {True: "audio", False: "silent", None: ""}[self.audio]
        return " ".join(word for word in (self.resolution, self.detail, sound) if word)


_BUCKETS: Final = (("t2i", "t2v"), ("i2i", "i2v"), ("reference",))
"""By the number of references: none, one, more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrice:
    """A model's rates. Without any, or sold by tokens, its price is unknown, and never zero."""

    unit: Unit
    rates: tuple[Rate, ...] = ()

    def span(self, options: Options, references: int) -> PriceSpan | None:
        """From the cheapest resolution to the dearest where none is set; None where unknown.

        A rate that fits and names no amount makes the price unknown.
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
        cheapest, dearest = min(prices, key=prices.__getitem__), max(prices, key=prices.__getitem__)
        least, most = prices[cheapest], prices[dearest]
        if least == most:
            return PriceSpan(least=least, most=most)
        option = OpenOption(name="resolution", dearest=dearest, cheapest=cheapest)
        return PriceSpan(least=least, most=most, open=option)

    def cost(self, usage: Mapping[str, object]) -> None:
        """Nothing: it is known beforehand."""

    def _by_resolution(self, options: Options, references: int) -> Mapping[str, Micros | None]:
        """By resolution that may be meant: the dearest of its rates, verified ones before others.

        What the list does not know falls back to all it knows, so that the dearest counts.
        """
        rates = self._of_bucket(options, references)
        if not rates:
            return {"": _dearest(self.rates)} if self.rates else {}
        asked = _resolutions(options)
        if asked:
            fitting = [rate for rate in rates if not rate.resolution or rate.resolution in asked]
            return {"": _dearest(_verified(fitting) if fitting else rates)}
        by_word: dict[str, list[Rate]] = {}
        for rate in rates:
            by_word.setdefault(rate.resolution, []).append(rate)
        return {word: _dearest(_verified(found)) for word, found in by_word.items()}

    def _of_bucket(self, options: Options, references: int) -> Sequence[Rate]:
        """Rates by number of references and by sound.

        No field for sound is documented: without one, a video has what verified rates are for.
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
        """Amounts with what they hold for; the bucket is named only where it matters."""
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


def _dearest(rates: Sequence[Rate]) -> Micros | None:
    """The dearest of some rates; None where one of them names no amount."""
    known = [rate.amount for rate in rates if rate.amount is not None]
    return max(known) if known and len(known) == len(rates) else None


_PIXELS: Final = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


def _resolutions(options: Options) -> set[str]:
    """The names that a list may have for the resolution asked for; none where nothing is asked."""
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
    """Whether a video with sound is asked for; no field for it is documented (section 11.3)."""
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
    """Read a response of ``GET /api/pricing`` (section 9.1). Raises PriceListError.

    A row that can't be understood is a model of unknown price; amounts are exact decimals of the
    text, rounded to micros once, half up.
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
            models[name] = ModelPrice(unit=Unit.UNKNOWN)  # listed twice, and not the same
    if not models:
        raise PriceListError("none of its rows names a model")
    return PriceList(models=models, source=source, day=day)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, ArithmeticError, RecursionError) as exc:
        raise PriceListError(f"it is no JSON: {str(exc)[:200] or type(exc).__name__}") from exc
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        raise PriceListError("it is no object with a list of rows in `data`")
    if document.get("success") is False:
        raise PriceListError("it says itself that it is no success")
    return document


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _group_ratio(document: dict[str, Any]) -> Decimal:
    """What the group of an ordinary key pays; 1 where the list names no such group."""
    ratios = document.get("group_ratio")
    ratio = ratios.get("default", 1) if isinstance(ratios, dict) else 1 if ratios is None else None
    number = _number(ratio)
    if number is None:
        raise PriceListError("`group_ratio` of the default group is no number")
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
    """What a row's price is for; most rows of the list do not say it (section 9.1)."""
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
    """Base times factor in micros. None for zero: what costs nothing is not listed as a price."""
    number = _number(base)
    if number is None:
        return None
    dollars = number * factor
    if not 0 < dollars <= _MAX_UNIT_DOLLARS:
        return None
    return max(parse_dollars(dollars), Micros(1))


def _number(value: object) -> Decimal | None:
    """A number of the list that is none of a price's absurdities."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    number = Decimal(value)
    return number if 0 <= number < 1_000_000_000 else None


def _word(value: object) -> str:
    """A short text in lower case that no terminal trips over; empty for anything else."""
    if not isinstance(value, str) or len(value) > _MAX_WORD_CHARS or not value.isprintable():
        return ""
    return value.strip().lower()
