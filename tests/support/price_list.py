"""Assert what holds for each price list that was read."""

from __future__ import annotations

from datetime import date

from batchgen.job import OptionValue
from batchgen.providers.price_list import PriceListError, read_price_list

DAY = date(2026, 6, 6)


def check(body: bytes, options: dict[str, OptionValue], references: int) -> None:
    try:
        found = read_price_list(body, source="", day=DAY)
    except PriceListError:
        return
    for model, price in found.models.items():
        amount = found.price(model, options, references)
        assert amount is None or amount > 0
        for _, unit in price.variants():
            assert unit is None or unit > 0
