"""Read a provider's log to its proven end or not at all, for any content."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.providers.usage_log import Span, UsageLogError, read_exported_log, read_usage_log
from batchgen.reconciliation.charges import Charge, UsageLog

SPAN = Span(since=datetime(2026, 11, 22, tzinfo=UTC), until=datetime(2026, 11, 23, tzinfo=UTC))
MIDNIGHT = 1_795_305_600
MESSAGE = "the access token is not valid"


def row(number: int, **more: Any) -> dict[str, Any]:
    return {
        "created_at": MIDNIGHT + number,
        "type": 2,
        "model_name": "gpt-image-2",
        "quota": 18_850,
        "ip": "192.0.2.1",
        "other": {"request_id": f"id-{number}"},
        **more,
    }


class Provider:
    """Respond as a gateway with these rows does, in pages of at most three."""

    def __init__(self, rows: Sequence[dict[str, Any]], **units: Any) -> None:
        self.rows = list(rows)
        self.units = units
        self.asked: list[dict[str, list[str]]] = []
        self.changed: Callable[[dict[str, Any]], Any] = lambda data: data
        self.before_page: Callable[[int], None] = lambda number: None

    async def fetch(self, route: str) -> bytes:
        parts = urlsplit(route)
        if parts.path == "/api/status":
            return json.dumps({"success": True, "data": self.units}).encode()
        assert parts.path == "/api/log/self"
        query = parse_qs(parts.query)
        self.asked.append(query)
        number = int(query["p"][0])
        self.before_page(len(self.asked))
        items = self.rows[(number - 1) * 3 : number * 3]
        data = {"page": number, "page_size": 3, "total": len(self.rows), "items": items}
        return json.dumps({"success": True, "message": "", "data": self.changed(data)}).encode()


def read(provider: Provider, span: Span = SPAN) -> UsageLog:
    return anyio.run(read_usage_log, provider.fetch, span)


@pytest.mark.fault("A09")
@pytest.mark.parametrize("count", [0, 1, 3, 4, 10])
def test_all_pages_are_read(count: int) -> None:
    found = read(Provider([row(number) for number in range(count)]))
    assert [charge.request_id for charge in found.charges] == [f"id-{n}" for n in range(count)]
    assert (found.since, found.until) == (SPAN.since, SPAN.until)


def test_a_row_is_a_charge_in_micros() -> None:
    (charge,) = read(Provider([row(0)])).charges
    assert charge == Charge(
        at=datetime(2026, 11, 22, tzinfo=UTC),
        model="gpt-image-2",
        amount=37_700,  # type: ignore[arg-type]  # micros
        request_id="id-0",
    )


@pytest.mark.parametrize(
    ("units", "quota", "micros"),
    [(500_000, 1, 2), (1_000_000, 1, 1), (3, 1, 333_333), (3, 2, 666_667), (2_000_000, 1, 1)],
)
def test_the_provider_says_what_its_units_are_worth(units: int, quota: int, micros: int) -> None:
    (charge,) = read(Provider([row(0, quota=quota)], quota_per_unit=units)).charges
    assert charge.amount == micros


@pytest.mark.parametrize(
    ("more", "request_id"),
    [
        ({"other": '{"request_id": "text"}'}, "text"),
        ({"other": "not JSON"}, None),
        ({"other": ""}, None),
        ({"other": None}, None),
        ({"other": None, "request_id": "outside"}, "outside"),
        ({"other": {"request_id": ""}}, None),
    ],
)
def test_the_request_id_is_found_in_each_of_its_places(
    more: dict[str, Any], request_id: str | None
) -> None:
    (charge,) = read(Provider([row(0, **more)])).charges
    assert charge.request_id == request_id


def test_rows_of_other_kinds_are_no_charges() -> None:
    provider = Provider(
        [row(0), row(1, type=1, quota=5), row(2, type=6), row(3, type=7), row(4, type=7, quota=0)]
    )
    found = read(provider)
    assert [charge.request_id for charge in found.charges] == ["id-0"]
    assert [charge.request_id for charge in found.refunds] == ["id-2"]
    assert [charge.request_id for charge in found.others] == ["id-3"]
    asked = provider.asked[0]
    assert asked["type"] == ["0"], "a refund is a row of another kind"
    assert asked["start_timestamp"] == [str(MIDNIGHT)]
    assert asked["end_timestamp"] == [str(MIDNIGHT + 86_400)]
    assert "token_name" not in asked
    read(provider, Span(since=SPAN.since, until=SPAN.until, token_name="a b&c"))
    assert provider.asked[-1]["token_name"] == ["a b&c"]


def test_a_log_that_grows_while_it_is_read_is_read_again() -> None:
    provider = Provider([row(number) for number in range(5)])

    def grow(asked: int) -> None:
        if asked == 2:
            provider.rows.insert(0, row(9))

    provider.before_page = grow
    assert len(read(provider).charges) == 6


def test_log_that_changes_during_each_read_is_refused() -> None:
    provider = Provider([row(number) for number in range(5)])
    provider.before_page = lambda asked: provider.rows.insert(0, row(100 + asked))
    with pytest.raises(UsageLogError, match="changed during each of 3 reads"):
        read(provider)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data | {"total": 9}, "ends after 5 rows, but reports a total of 9"),
        (lambda data: data | {"items": []}, "ends after 0 rows"),
        (lambda data: data | {"page": 1}, "requested, but the response has page 1"),
        (lambda data: data["items"], "no list"),
        (lambda data: None, "response"),
        (lambda data: {"items": []}, "total: Field required"),
        (lambda data: data | {"total": -1}, "total"),
        (lambda data: data | {"items": [row(0, quota=-1)]}, r"items\.0\.quota"),
        (lambda data: data | {"items": [row(0, quota="x")]}, r"items\.0\.quota"),
        (lambda data: data | {"items": [row(0, quota=1.5)]}, r"items\.0\.quota"),
        (lambda data: data | {"items": [{"quota": 1}]}, r"items\.0\.created_at"),
        (lambda data: data | {"items": [row(0, created_at="2026-11-22 10:00")]}, "timezone"),
    ],
)
def test_incomplete_log_is_refused(change: Callable[[dict[str, Any]], Any], message: str) -> None:
    provider = Provider([row(number) for number in range(5)])
    provider.changed = change
    with pytest.raises(UsageLogError, match=message if message != "no list" else "response"):
        read(provider)


@pytest.mark.fault("A09")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b'{"success": false, "message": "%s"}' % MESSAGE.encode(),
            f"reports a failure: {MESSAGE}; check",
        ),
        (b'{"success": false}', "reports a failure; check the access token"),
        (b'{"data": {"total": 0, "items": []}}', "reports a failure"),
        (b"[]", "reports a failure"),
        (b"<html>", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_unsuccessful_response_is_not_an_empty_log(body: bytes, message: str) -> None:
    async def fetch(route: str) -> bytes:
        return b'{"success": true, "data": {}}' if route == "/api/status" else body

    with pytest.raises(UsageLogError, match=message):
        anyio.run(read_usage_log, fetch, SPAN)


def test_what_a_provider_says_is_fit_for_a_terminal() -> None:
    said = json.dumps({"success": False, "message": "\x1b[31m" + "x" * 1_000}).encode()

    async def fetch(route: str) -> bytes:
        return said

    with pytest.raises(UsageLogError) as raised:
        anyio.run(read_usage_log, fetch, SPAN)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 400


CSV = (
    b"created_at,model_name,quota,request_id\n"
    b"1795305600,gpt-image-2,18850,a\n"
    b"2026-11-22T08:00:10+08:00,gpt-image-2,18850,\n"
)


def test_an_exported_log_reaches_from_its_first_to_its_last_row() -> None:
    found = read_exported_log(CSV)
    assert [(charge.amount, charge.request_id) for charge in found.charges] == [
        (37_700, "a"),
        (37_700, None),
    ]
    assert found.since == datetime(2026, 11, 22, tzinfo=UTC)
    assert found.until == datetime(2026, 11, 22, 0, 0, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("content", "micros"),
    [
        (b"\xef\xbb\xbfCreated_At, model_name ,COST_USD\r\n1795305600,m,0.0377\r\n", [37_700]),
        (
            b"created_at,model_name,cost_usd,type\n1795305600,m,$0.0377,2\n1795305600,m,1,1\n",
            [37_700],
        ),
        (b"created_at,model_name,quota,more\n1795305600,m,1,,\n", [2]),
        (b'created_at,model_name,quota,other\n1795305600,m,1,"{""request_id"": ""x""}"\n', [2]),
    ],
)
def test_exports_differ_in_their_columns(content: bytes, micros: list[int]) -> None:
    assert [charge.amount for charge in read_exported_log(content).charges] == micros


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lacks created_at, model_name, quota or cost_usd"),
        (b"created_at,model_name\n", "lacks quota or cost_usd; found created_at, model_name"),
        (b"created_at,model_name,quota\n", "no rows; an empty log proves nothing"),
        (b"created_at,model_name,quota\n1795305600,m,x\n", "line 2: "),
        (b"created_at,model_name,quota\n1795305600,m,1\n1795305600,m,-1\n", "line 3: "),
        (b"created_at,model_name,cost_usd\n1795305600,m,\n", "line 2: .*amount in dollars"),
        (b"created_at,model_name,quota\n2026-11-22 00:00:00,m,1\n", "line 2: created_at.*timezone"),
        (b"created_at,model_name,quota\n1795305600,,1\n", "line 2: model_name"),
        (b"created_at,model_name,quota\n1795305600,\xff,1\n", "not UTF-8"),
        (b'created_at,model_name,quota\n"1795305600,m,1\n', "not CSV"),
    ],
)
def test_an_export_that_cannot_be_read_is_refused_with_its_line(
    content: bytes, message: str
) -> None:
    with pytest.raises(UsageLogError, match=message):
        read_exported_log(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
STRANGE_ROWS = st.builds(
    lambda name, value: row(0, **{name: value}),
    st.sampled_from(["created_at", "type", "model_name", "quota", "other", "request_id"]),
    JSON,
)


@given(st.lists(STRANGE_ROWS, max_size=4), JSON)
def test_foreign_rows_are_charges_or_an_error(rows: list[dict[str, Any]], units: Any) -> None:
    provider = Provider(rows, quota_per_unit=units)
    with suppress(UsageLogError):
        found = read(provider)
        assert all(charge.amount >= 0 and charge.at.tzinfo for charge in found.charges)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_foreign_export_is_charges_or_an_error(content: bytes) -> None:
    for text in (content, b"created_at,model_name,quota,other\n" + content):
        with suppress(UsageLogError):
            assert read_exported_log(text).charges is not None
