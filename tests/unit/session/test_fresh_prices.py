"""Which of the known price lists counts, and which changes of a price are reported."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from sqlite3 import Connection

import pytest

from batchgen.ledger.price_lists import KeptList, keep_price_list, newest_price_list
from batchgen.money import Micros
from batchgen.providers.crazyrouter import CRAZYROUTER
from batchgen.session.fresh_prices import KnownPrices, PriceChanges, with_kept_prices

AFTER = datetime(2026, 6, 7, 1, tzinfo=UTC)
BEFORE = datetime(2026, 6, 5, 23, tzinfo=UTC)
URL = CRAZYROUTER.price_url or ""


def listed(price: object) -> bytes:
    row = {"model_name": "gpt-image-2", "quota_type": 1, "model_price": price}
    return json.dumps({"data": [row]}).encode()


def test_a_kept_list_counts_before_an_older_shipped_one(conn: Connection) -> None:
    keep_price_list(conn, URL, KeptList(body=listed(0.05), fetched_at=AFTER))
    profile = with_kept_prices(CRAZYROUTER, conn)
    assert profile.price("gpt-image-2") == 50_000
    assert profile.price("grok-4-image") is None  # the list that counts, counts for all
    assert profile.price_source == "price list of cn.crazyrouter.com of 2026-06-07"


def test_newest_price_list_of_a_url_replaces_the_older_one(
    conn: Connection,
) -> None:
    for price in (0.05, 0.06):
        keep_price_list(conn, URL, KeptList(body=listed(price), fetched_at=AFTER))
    assert newest_price_list(conn, URL) == KeptList(body=listed(0.06), fetched_at=AFTER)
    assert with_kept_prices(CRAZYROUTER, conn).price("gpt-image-2") == 60_000


@pytest.mark.parametrize(
    ("url", "body", "fetched_at"),
    [
        (URL, listed(0.05), BEFORE),
        (URL, b"no list", AFTER),
        ("https://elsewhere.example/api/pricing", listed(0.05), AFTER),
    ],
)
def test_the_shipped_list_counts_where_no_newer_one_is_of_use(
    conn: Connection, url: str, body: bytes, fetched_at: datetime
) -> None:
    keep_price_list(conn, url, KeptList(body=body, fetched_at=fetched_at))
    assert with_kept_prices(CRAZYROUTER, conn) == CRAZYROUTER


def test_a_price_of_the_manifest_is_not_replaced_by_a_kept_list(conn: Connection) -> None:
    keep_price_list(conn, URL, KeptList(body=listed(0.05), fetched_at=AFTER))
    flat = replace(CRAZYROUTER, flat_price=Micros(1))
    assert with_kept_prices(flat, conn).price("gpt-image-2") == 1


@pytest.mark.parametrize(
    ("price", "is_reported"), [(37_700, False), (38_077, False), (38_078, True), (37_322, True)]
)
def test_price_change_above_one_percent_is_reported(price: int, is_reported: bool) -> None:
    changes = PriceChanges(KnownPrices(CRAZYROUTER, were_kept=False))
    for jobs in (2, 1):
        changes.note("gpt-image-2", {}, 0, Micros(price), jobs)
    lines = changes.lines("price list of today")
    assert bool(lines) is is_reported
    for line in lines:
        assert "by the price list of today, not $0.0377" in line
        assert "3 jobs" in line
