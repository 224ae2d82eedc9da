"""`batchgen prices`: show the price list of a provider."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from batchgen.console.progress import write_line
from batchgen.errors import ExitCode
from batchgen.ledger.database import open_for_reading
from batchgen.money import decimal_string, dollars
from batchgen.providers.catalog import Unavailable
from batchgen.providers.price_list import ModelPrice, Price, PriceList, Rate, Unit
from batchgen.session.fresh_prices import fetch_list, with_kept_prices
from batchgen.session.prepare import find_endpoint
from batchgen.text import counted

_UNIT_TEXT: Final = {
    Unit.IMAGE: "an image",
    Unit.REQUEST: "a request",
    Unit.SECOND: "a second",
    Unit.TOKEN: "by tokens",
    Unit.UNKNOWN: "",
}


def prices(
    manifest: Path | None,
    db: Path | None,
    *,
    provider: str | None,
    model: str | None,
    offline: bool,
    as_json: bool,
) -> ExitCode:
    """Show the newest prices, from a fresh list unless ``offline``. Raises BatchgenError.

    ``model`` is a glob. Without it, models without a known price per image, because they are sold
    by tokens, are only counted.
    """
    asked = find_endpoint(manifest, provider, db)
    profile = asked.profile
    if asked.ledger.exists():
        with closing(open_for_reading(asked.ledger)) as conn:
            profile = with_kept_prices(profile, conn)
    found, source = profile.prices, profile.price_source
    if profile.flat_price is not None:
        found = None
    elif profile.price_url is not None and not offline:
        try:
            found = fetch_list(profile.price_url, profile.network).prices
            source = found.source
        except Unavailable as exc:
            write_line(sys.stderr, f"no fresh price list: {exc}")
    models = _chosen(found, model)
    if profile.flat_price is not None:
        models = {"*": ModelPrice(unit=Unit.REQUEST, rates=(Rate(amount=profile.flat_price),))}
    if as_json:
        record = {"provider": profile.name, "source": source, "models": _records(models)}
        write_line(sys.stdout, json.dumps(record))
    else:
        write_line(sys.stdout, f"{profile.name}: {source or 'no price list'}")
        write_line(sys.stdout, _table(models, everything=model is not None))
    return ExitCode.DONE


def _chosen(found: PriceList | None, model: str | None) -> Mapping[str, Price]:
    models = found.models if found else {}
    return {name: models[name] for name in sorted(models) if fnmatchcase(name, model or "*")}


def _records(models: Mapping[str, Price]) -> list[dict[str, object]]:
    return [
        {
            "model": name,
            "unit": price.unit.value,
            "prices": [
                {"for": words, "price": None if amount is None else decimal_string(amount)}
                for words, amount in price.variants()
            ],
        }
        for name, price in models.items()
    ]


def _table(models: Mapping[str, Price], *, everything: bool) -> str:
    shown = {
        name: price for name, price in models.items() if everything or price.unit is not Unit.TOKEN
    }
    width = max(map(len, shown), default=0)
    lines = []
    for name, price in shown.items():
        label = name
        for words, amount in price.variants():
            text = "unknown" if amount is None else dollars(amount)
            unit = _UNIT_TEXT[price.unit]
            lines.append(f"  {label:<{width}}  {text:>10}  {unit:<10}  {words}".rstrip())
            label = ""
    if hidden := len(models) - len(shown):
        lines.append(f"  and {counted(hidden, 'model')} sold by tokens; --model '*' lists all")
    return "\n".join(lines) if lines else "  no model of that name is listed"
