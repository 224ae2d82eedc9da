"""Parse an account's billing log: the pages of a new-api gateway, or an exported CSV.

Nothing is fetched here. The fields are documented at
https://docs.crazyrouter.com/en/token-management/logs-and-costs and defined in ``model/log.go`` of
https://github.com/QuantumNous/new-api.
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
"""Fetch a path with its query, relative to the provider's root URL."""

QUOTA_PER_DOLLAR: Final = 500_000
"""The default of new-api."""
_DOLLARS_A_QUOTA: Final = Decimal("0.000002")
_EVERYTHING: Final = 0
"""The ``type`` parameter for rows of all kinds (``LogTypeUnknown`` in model/log.go)."""
_CONSUMPTION: Final = 2
_REFUND: Final = 6
_IRRELEVANT: Final = (1, 3, 4, 5)
"""Kinds of rows that charge no request: top-ups, administration, system, errors."""
_PAGE: Final = 100
_READINGS: Final = 3
_MAX_ROWS: Final = 10_000_000
_MICROS_PER_DOLLAR: Final = 1_000_000


class UsageLogError(ValueError):
    """A log cannot be read, or not to its end; the message says why."""


def _object(value: object) -> object:
    """Parse the object ``other``, which some gateways send as a string."""
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
    """Replace a row that charges no request, so that its format does not matter."""
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
        """Return the row as a charge. The amount of a refund is what it gives back."""
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
    """The part of a log to read."""

    since: datetime
    until: datetime
    token_name: str | None = None
    """Restricts the rows to the key with this name."""
    refunds_until: datetime | None = None
    """Refunds may follow long after the charges; None reads no refunds after ``until``."""

    @property
    def later(self) -> Span | None:
        """The time after ``until``, in which only refunds count; None without one."""
        if self.refunds_until is None or self.refunds_until <= self.until:
            return None
        # The log has whole seconds, so the last one belongs to both spans.
        return Span(since=self.until, until=self.refunds_until, token_name=self.token_name)


async def read_usage_log(fetch: Fetch, span: Span) -> UsageLog:
    """Read a log to its proven end. Raises UsageLogError and the exceptions of ``fetch``.

    The number of rows must equal the total on every page. At the end, the first page is read again
    and must have the same total: rows added meanwhile would shift the pages.
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
    """Return all rows of a kind. Raises UsageLogError."""
    for _ in range(_READINGS):
        rows = await _all_pages(fetch, span, kind)
        if rows is not None:
            return rows
    raise UsageLogError(f"the log changed during each of {_READINGS} reads; try again later")


async def read_balance(fetch: Fetch) -> Micros:
    """Return the balance of an account. Raises UsageLogError and the exceptions of ``fetch``."""
    units = _read(_Units, await fetch("/api/status"), "/api/status").quota_per_unit
    user = _read(_User, await fetch("/api/user/self"), "/api/user/self")
    return Micros(user.quota * _MICROS_PER_DOLLAR // units)


async def _all_pages(fetch: Fetch, span: Span, kind: int) -> list[_Row] | None:
    """Return all rows; None if the log changed while it was read."""
    first = await _page(fetch, span, kind, 1)
    rows, number = list(first.items), 1
    while len(rows) < first.total:
        number += 1
        page = await _page(fetch, span, kind, number)
        if page.total != first.total:
            return None
        if not page.items:
            raise UsageLogError(
                f"the log ends after {len(rows):,} rows, but reports a total of {first.total:,}"
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
        raise UsageLogError(
            f"page {number} of the log was requested, but the response has page {page.page}"
        )
    return page


def _read(kind: type[T], body: bytes, route: str) -> T:
    """Return the ``data`` of a response. Raises UsageLogError, also for ``success: false``."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise UsageLogError(f"{route}: the response is not JSON") from None
    if not isinstance(document, dict) or document.get("success") is not True:
        said = document.get("message") if isinstance(document, dict) else None
        reason = f": {_short(said)}" if isinstance(said, str) and said else ""
        raise UsageLogError(
            f"{route}: the provider reports a failure{reason}; check the access token and the"
            " account number"
        )
    try:
        return kind.model_validate(document.get("data"))
    except ValidationError as exc:
        raise UsageLogError(f"{route}: {_first(exc)}") from None


def read_exported_log(content: bytes) -> UsageLog:
    """Parse a CSV with the columns ``created_at``, ``model_name``, and ``quota`` or ``cost_usd``.

    The columns ``request_id`` (or ``other`` with it), ``type`` and ``id`` are optional. The log is
    assumed to be complete between its first and last row. Raises UsageLogError.
    """
    try:
        text = content.decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        _check_columns(columns)
        rows = [_csv_row(record, reader.line_num) for record in reader]
    except UnicodeDecodeError as exc:
        raise UsageLogError(f"not UTF-8: {exc}") from None
    except csv.Error as exc:
        raise UsageLogError(f"not CSV: {exc}") from None
    if not rows:
        raise UsageLogError("no rows; an empty log proves nothing")
    times = [row.created_at for row in rows]
    return _sorted(rows, _MICROS_PER_DOLLAR, min(times), max(times))


def _check_columns(columns: Sequence[str]) -> None:
    missing = [name for name in ("created_at", "model_name") if name not in columns]
    if "quota" not in columns and "cost_usd" not in columns:
        missing.append("quota or cost_usd")
    if missing:
        raise UsageLogError(
            f"the header lacks {', '.join(missing)}; found {_short(', '.join(columns))}"
        )


def _csv_row(record: dict[str, Any], line: int) -> _Row:
    """Parse a row; its quota is in micros."""
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
