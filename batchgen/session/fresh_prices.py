"""Choose the price list: a fresh one, else the one in the ledger, else the one in the package.

Nothing is fetched for `provider: local`, whose endpoint only the run starts; the package has its
prices. Lists are never mixed, because that would hide the source of a price.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

import anyio

from batchgen.http.network_settings import NetworkSettings
from batchgen.job import OptionValue
from batchgen.ledger.clock import utc_now
from batchgen.ledger.price_lists import KeptList, newest_price_list
from batchgen.money import Micros, dollars
from batchgen.providers.catalog import Unavailable, fetch_price_list
from batchgen.providers.price_list import PriceList, PriceListError, read_price_list
from batchgen.providers.profile import Profile

_NOTE_ABOVE_PERCENT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedList:
    """A price list fetched now, and its text for the ledger."""

    url: str
    kept: KeptList
    prices: PriceList


def fetch_list(url: str, network: NetworkSettings) -> FetchedList:
    """Fetch and parse a price list. Raises Unavailable, also for a response that is not one."""
    kept = KeptList(body=anyio.run(fetch_price_list, url, network), fetched_at=utc_now())
    try:
        return FetchedList(url=url, kept=kept, prices=_read(url, kept))
    except PriceListError as exc:
        raise Unavailable(f"{url}: {exc}") from exc


class PriceLists:
    """Fresh price lists by URL, each fetched once."""

    def __init__(self) -> None:
        self._found: dict[str, FetchedList | Unavailable] = {}

    def get(self, profile: Profile) -> FetchedList | Unavailable | None:
        """Return the list, or why it is not available; None for a profile without one."""
        url = profile.price_url
        if url is None:
            return None
        if url not in self._found:
            try:
                self._found[url] = fetch_list(url, profile.network)
            except Unavailable as exc:
                self._found[url] = exc
        return self._found[url]


def with_kept_prices(profile: Profile, conn: sqlite3.Connection) -> Profile:
    """Return the profile with the newest prices known without a request."""
    url = profile.price_url
    kept = newest_price_list(conn, url) if url else None
    if url is None or kept is None:
        return profile
    if profile.prices is not None and profile.prices.day > kept.fetched_at.date():
        return profile
    try:
        return replace(profile, prices=_read(url, kept))
    except PriceListError:
        return profile  # another version of batchgen may have stored it


def _read(url: str, kept: KeptList) -> PriceList:
    day = kept.fetched_at.date()
    source = f"price list of {urlsplit(url).netloc} of {day}"
    return read_price_list(kept.body, source=source, day=day)


@dataclass(frozen=True, slots=True)
class KnownPrices:
    """What a plan would report before a run fetches new prices."""

    profile: Profile
    were_kept: bool
    """Whether the prices are those of an earlier run, not of the package."""


class PriceChanges:
    """Collects jobs whose price differs by more than 1% from what a plan would have reported."""

    def __init__(self, planned: KnownPrices) -> None:
        self._planned = planned.profile
        self._were_kept = planned.were_kept
        self._jobs: Counter[tuple[str, Micros, Micros]] = Counter()

    def note(
        self,
        model: str,
        options: Mapping[str, OptionValue],
        references: int,
        price: Micros,
        jobs: int,
    ) -> None:
        """Compare the prices of some jobs."""
        planned = self._planned.price(model, options, references)
        if planned is not None and abs(price - planned) * 100 > planned * _NOTE_ABOVE_PERCENT:
            self._jobs[model, planned, price] += jobs

    @property
    def risen(self) -> bool:
        """Return whether any job costs more than in an earlier run."""
        return self._were_kept and any(price > planned for _, planned, price in self._jobs)

    def lines(self, source: str) -> list[str]:
        """Return one line per changed price."""
        return [
            f"{model} costs {dollars(price)} by the {source}, not {dollars(planned)} as in the"
            f" {self._planned.price_source}; {_jobs_are(jobs)} estimated again"
            for (model, planned, price), jobs in sorted(self._jobs.items())
        ]


def _jobs_are(number: int) -> str:
    return "1 job is" if number == 1 else f"{number:,} jobs are"
