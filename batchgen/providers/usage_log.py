"""An account's billing log: read page by page from a new-api gateway, or from an exported CSV.

Nothing is fetched here. Source of every field: Crazyrouter sheet, section 10; of every trap:
reliability sheet, section 2.5.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, ValidationError

from batchgen.money import Micros, parse_dollars
from batchgen.reconciliation.charges import Charge, UsageLog

T = TypeVar("T", bound=BaseModel)
Fetch = Callable[[str], Awaitable[bytes]]
"""Gets what stands at a route, with its query, below the root of the provider's address."""

QUOTA_PER_DOLLAR: Final = 500_000
"""Where nobody tells another number."""
_DOLLARS_A_QUOTA: Final = Decimal("0.000002")
_EVERYTHING: Final = 0
"""Asks stock new-api for rows of all kinds (``LogTypeUnknown`` in its model/log.go)."""
_CONSUMPTION: Final = 2
_REFUND: Final = 6
_IRRELEVANT: Final = (1, 3, 4, 5)
"""Kinds of rows about no request's money: top-ups, acts of an admin, the system's, errors."""
_PAGE: Final = 100
_READINGS: Final = 3
_MAX_ROWS: Final = 10_000_000
_MICROS_PER_DOLLAR: Final = 1_000_000


class UsageLogError(ValueError):
    """A log that can't be read, or not to its end; the message says why."""


def _object(value: object) -> object:
    """Some gateways put the object ``other`` into a string."""
    if isinstance(value, str):
        try:
            return json.loads(value or "{}")
        except (ValueError, RecursionError):
            return {}
    return value or {}


_Text = Annotated[str, Field(max_length=200)]
_Amount = Annotated[int, Field(ge=0, le=10**15)]


class _Other(BaseModel):
    request_id: _Text | None = None


def _relevant(row: object) -> object:
    """Replace a row that says nothing of a request's money, so that its form does not matter."""
    if isinstance(row, dict) and row.get("type") in _IRRELEVANT:
        return {"created_at": 0, "model_name": "", "quota": 0, "type": row["type"]}
    return row


class _Row(BaseModel):
    id: int | str | None = None
    created_at: AwareDatetime
    model_name: _Text
    quota: _Amount
    type: int = _CONSUMPTION
    request_id: _Text | None = None
    other: Annotated[_Other, BeforeValidator(_object)] = _Other()

    def charge(self, quota_per_dollar: int) -> Charge:
        """The row as a charge; of a refund, as what it gives back."""
        quota = 2 * self.quota * _MICROS_PER_DOLLAR + quota_per_dollar
        return Charge(
            at=self.created_at.astimezone(UTC),
            model=self.model_name,
            amount=Micros(quota // (2 * quota_per_dollar)),
            request_id=self.request_id or self.other.request_id or None,
            row=None if self.id is None else str(self.id),
        )


class _Page(BaseModel):
    items: list[Annotated[_Row, BeforeValidator(_relevant)]]
    total: int = Field(ge=0, le=_MAX_ROWS)
    page: int | None = None


class _Units(BaseModel):
    quota_per_unit: int = Field(QUOTA_PER_DOLLAR, gt=0, le=10**12)


class _User(BaseModel):
    quota: int = Field(ge=-(10**15), le=10**15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What to ask a log for."""

    since: datetime
    until: datetime
    token_name: str | None = None
    """Only what was charged to the key of that name."""
    refunds_until: datetime | None = None
    """Refunds may come long after the charges; None reads none after ``until``."""

    @property
    def later(self) -> Span | None:
        """The time after ``until``, of which only refunds count; None where there is none."""
        if self.refunds_until is None or self.refunds_until <= self.until:
            return None
        # The log counts in whole seconds, and the last one belongs to both.
        return Span(since=self.until, until=self.refunds_until, token_name=self.token_name)


async def read_usage_log(fetch: Fetch, span: Span) -> UsageLog:
    """Read a log to its proven end. Raises UsageLogError, and whatever ``fetch`` raises.

    The rows of all pages must come to the total that every page tells, and to the one of a last
    look: rows that come or go meanwhile would shift the pages.
    """
    units = _read(_Units, await fetch("/api/status"), "/api/status").quota_per_unit
    rows = await _read_rows(fetch, span, _EVERYTHING)
    if span.later is not None:
        known = {row.id for row in rows if row.type == _REFUND}
        refunds = await _read_rows(fetch, span.later, _REFUND)
        rows += [row for row in refunds if row.id is None or row.id not in known]
    return _sorted(rows, units, span.since, span.until)


def _sorted(rows: Sequence[_Row], units: int, since: datetime, until: datetime) -> UsageLog:
    moving = [row for row in rows if row.type not in _IRRELEVANT]
    refunds = [row for row in moving if row.type == _REFUND]
    others = [row for row in moving if row.type not in (_CONSUMPTION, _REFUND) and row.quota]
    return UsageLog(
        charges=tuple(row.charge(units) for row in moving if row.type == _CONSUMPTION),
        refunds=tuple(row.charge(units) for row in refunds if row.quota),
        others=tuple(row.charge(units) for row in others),
        since=since,
        until=until,
    )


async def _read_rows(fetch: Fetch, span: Span, kind: int) -> list[_Row]:
    """All rows of a kind. Raises UsageLogError."""
    for _ in range(_READINGS):
        rows = await _all_pages(fetch, span, kind)
        if rows is not None:
            return rows
    raise UsageLogError(f"the log changed each of the {_READINGS} times it was read; try later")


async def read_balance(fetch: Fetch) -> Micros:
    """What an account holds. Raises UsageLogError, and whatever ``fetch`` raises."""
    units = _read(_Units, await fetch("/api/status"), "/api/status").quota_per_unit
    user = _read(_User, await fetch("/api/user/self"), "/api/user/self")
    return Micros(user.quota * _MICROS_PER_DOLLAR // units)


async def _all_pages(fetch: Fetch, span: Span, kind: int) -> list[_Row] | None:
    """All rows; None if the log changed while it was read."""
    first = await _page(fetch, span, kind, 1)
    rows, number = list(first.items), 1
    while len(rows) < first.total:
        number += 1
        page = await _page(fetch, span, kind, number)
        if page.total != first.total:
            return None
        if not page.items:
            raise UsageLogError(
                f"the log ends after {len(rows):,} rows, and says itself that it has"
                f" {first.total:,}"
            )
        rows += page.items
    again = await _page(fetch, span, kind, 1)
    return rows if len(rows) == again.total == first.total else None


async def _page(fetch: Fetch, span: Span, kind: int, number: int) -> _Page:
    query: dict[str, str | int] = {
        "type": kind,
        "start_timestamp": int(span.since.timestamp()),
        "end_timestamp": int(span.until.timestamp()),
        "p": number,
        "page_size": _PAGE,
    }
    if span.token_name is not None:
        query["token_name"] = span.token_name
    page = _read(_Page, await fetch(f"/api/log/self?{urlencode(query)}"), "/api/log/self")
    if page.page not in (None, number):
        raise UsageLogError(f"the log was asked for page {number}, and gave page {page.page}")
    return page


def _read(kind: type[T], body: bytes, route: str) -> T:
    """The ``data`` of a response. Raises UsageLogError, for ``success: false`` too."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise UsageLogError(f"{route}: the response is no JSON") from None
    if not isinstance(document, dict) or document.get("success") is not True:
        said = document.get("message") if isinstance(document, dict) else None
        reason = f": {_short(said)}" if isinstance(said, str) and said else ""
        raise UsageLogError(
            f"{route}: the provider says that this is no success{reason}; are the access token and"
            " the account's number right?"
        )
    try:
        return kind.model_validate(document.get("data"))
    except ValidationError as exc:
        raise UsageLogError(f"{route}: {_first(exc)}") from None


def read_exported_log(content: bytes) -> UsageLog:
    """Read a CSV with the columns ``created_at``, ``model_name``, and ``quota`` or ``cost_usd``.

    ``request_id``, or ``other`` with it, ``type`` and ``id`` are read where they are there. The log
    is taken to be whole between its first and its last row. Raises UsageLogError.
    """
    try:
        text = content.decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        _check_columns(columns)
        rows = [_csv_row(record, reader.line_num) for record in reader]
    except UnicodeDecodeError as exc:
        raise UsageLogError(f"it is no UTF-8: {exc}") from None
    except csv.Error as exc:
        raise UsageLogError(f"it is no CSV: {exc}") from None
    if not rows:
        raise UsageLogError("it has no rows, which proves nothing")
    times = [row.created_at for row in rows]
    return _sorted(rows, _MICROS_PER_DOLLAR, min(times), max(times))


def _check_columns(columns: Sequence[str]) -> None:
    missing = [name for name in ("created_at", "model_name") if name not in columns]
    if "quota" not in columns and "cost_usd" not in columns:
        missing.append("quota or cost_usd")
    if missing:
        raise UsageLogError(
            f"its first line lacks {', '.join(missing)}; it has {_short(', '.join(columns))}"
        )


def _csv_row(record: dict[str, Any], line: int) -> _Row:
    """A row whose quota is in micros."""
    values = {name: value for name, value in record.items() if name and value not in (None, "")}
    try:
        values["quota"] = _csv_amount(values)
        return _Row.model_validate(values)
    except ValidationError as exc:
        raise UsageLogError(f"line {line}: {_first(exc)}") from None
    except (ValueError, ArithmeticError) as exc:
        raise UsageLogError(f"line {line}: {exc}") from None


def _csv_amount(values: dict[str, Any]) -> Micros:
    if "quota" in values:
        return parse_dollars(Decimal(values["quota"]) * _DOLLARS_A_QUOTA)
    return parse_dollars(values.get("cost_usd", ""))


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in found["loc"])
    return f"{place or 'the response'}: {found['msg']}"


def _short(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable if len(printable) <= 200 else printable[:199] + "…"
