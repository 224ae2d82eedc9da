"""The account's log, balance and units as new-api reports them, with the log's faults.

Source: https://github.com/QuantumNous/new-api. The rows are the endpoint's own bill; `POST
/judge/log` sets the faults.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from batchgen.simulator.billing import MICROS_PER_DOLLAR, Account
from batchgen.simulator.errors import ApiError
from batchgen.simulator.models.rules import MODEL

QUOTA_PER_DOLLAR = 500_000
_CONSUMPTION = 2
_REFUND = 6
"""Stock new-api's type for refunds; their amount is positive too."""
_DEFAULT_PAGE = 10
_TOKEN_NAME = "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHabits:
    """How the log is wrong. Rows are late for charges whose response was not a 200."""

    refuse: bool = False
    """Return `success: false` with status 200, as for a bad token."""
    late_s: float = 0.0
    """Seconds after the charge at which a late row appears, with that later time."""
    late_queries: int = 0
    """Number of queries after a change of these settings that miss the late rows."""
    double: bool = False
    """List every row twice."""
    foreign: int = 0
    """Number of rows of other clients' charges, at the time of the first charge."""
    drift_percent: int = 0
    """By how much the amounts in rows exceed the charges."""
    page_cap: int = 100
    """Maximum rows per page, whichever number is requested."""

    def changed(self, document: Mapping[str, object]) -> LogHabits:
        """Return the settings with the changes of `document`. Raises ValueError for a wrong name,
        type or range.
        """
        defaults = {item.name: item.default for item in fields(LogHabits)}
        for name, value in document.items():
            if name not in defaults:
                raise ValueError(f"unknown setting {name!r} of the log")
            wanted = type(defaults[name])
            fits = isinstance(value, int | float) if wanted is float else type(value) is wanted
            if not fits or (isinstance(value, int | float) and value < 0):
                raise ValueError(f"{name} must be {wanted.__name__} of 0 or more, not {value!r}")
        return replace(self, **document)  # type: ignore[arg-type]  # checked above


class LogApi:
    """`/api/status`, `/api/user/self` and `/api/log/self` of an account."""

    def __init__(self, account: Account, price: int) -> None:
        self._account = account
        self._price = price
        self._habits = LogHabits()
        self._queries = 0

    def routes(self) -> list[Route]:
        """Return the routes for the application."""
        return [
            Route("/api/status", self._status),
            Route("/api/user/self", self._user),
            Route("/api/log/self", self._log),
            Route("/judge/log", self._judge_log, methods=["POST"]),
        ]

    async def _status(self, _: Request) -> Response:
        units = {
            "quota_per_unit": QUOTA_PER_DOLLAR,
            "quota_display_type": "USD",
            "usd_exchange_rate": 7.3,
        }
        return _success(units)

    async def _user(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        left = self._account.left
        user = {
            "id": int(request.headers["new-api-user"]),
            "username": "batch",
            "group": "default",
            "quota": _quota(MICROS_PER_DOLLAR**2 if left is None else left),
            "used_quota": _quota(self._account.billed_micros),
            "request_count": self._account.billed,
        }
        return _success(user)

    async def _log(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        self._queries += 1
        page = max(1, _number(request, "p", 1))
        asked = _number(request, "page_size", _DEFAULT_PAGE)
        size = min(asked if asked > 0 else _DEFAULT_PAGE, self._habits.page_cap)
        found = [row for row in self._rows() if _matches(row, request)]
        found.sort(key=lambda row: (row["created_at"], row["id"]), reverse=True)
        items = found[(page - 1) * size : page * size]
        return _success({"page": page, "page_size": size, "total": len(found), "items": items})

    def _refusal(self, request: Request) -> Response | None:
        """Return stock new-api's error for a client that may not read the account, such as an API
        key.
        """
        scheme, _, token = request.headers.get("authorization", "").rpartition(" ")
        user = request.headers.get("new-api-user", "")
        if not token or scheme.lower() not in ("", "bearer"):
            return _failure("无权进行此操作, 未登录且未提供 access token", 401)
        if not user.isdecimal():
            return _failure("无权进行此操作, 未提供 New-Api-User", 401)
        if self._habits.refuse or token.startswith("sk-"):
            return _failure("无权进行此操作, access token 无效", 200)
        return None

    def _rows(self) -> Iterator[dict[str, object]]:
        charges = orjson.loads(self._account.bill())
        for charge in charges:
            row = self._row(charge["seq"], charge)
            if row is not None:
                yield from [row, row] if self._habits.double else [row]
        for number in range(1, self._habits.foreign + 1):
            yield _row(
                -number,
                created_at=charges[0]["time"] if charges else time.time(),
                model=MODEL,
                micros=self._price,
                request_id=f"20260101000000000000000foreign0{number}",
                status=200,
            )

    def _row(self, number: int, charge: dict[str, object]) -> dict[str, object] | None:
        created_at, micros = charge["time"], charge["micros"]
        assert isinstance(created_at, float)
        assert isinstance(micros, int)
        refund = charge.get("kind") == "refund"
        if charge["status"] != 200 and not refund:
            created_at += self._habits.late_s
            if created_at > time.time() or self._queries <= self._habits.late_queries:
                return None
        return _row(
            number,
            created_at=created_at,
            model=charge["model"],
            micros=abs(micros) * (100 + self._habits.drift_percent) // 100,
            request_id=charge["request_id"],
            status=charge["status"],
            kind=_REFUND if refund else _CONSUMPTION,
        )

    async def _judge_log(self, request: Request) -> Response:
        try:
            document = orjson.loads(await request.body())
            if not isinstance(document, dict):
                raise ValueError("the habits are not a JSON object")
            self._habits = self._habits.changed(document)
        except ValueError as error:
            raise ApiError(400, str(error), type="judge_error") from None
        self._queries = 0
        return _json(asdict(self._habits), 200)


def _row(
    number: int,
    *,
    created_at: float,
    model: object,
    micros: int,
    request_id: object,
    status: object,
    kind: int = _CONSUMPTION,
) -> dict[str, object]:
    return {
        "id": number,
        "user_id": 1,
        "created_at": int(created_at),
        "type": kind,
        "content": "",
        "username": "batch",
        "token_name": _TOKEN_NAME,
        "model_name": model,
        "quota": _quota(micros),
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "use_time": 0,
        "is_stream": False,
        "ip": "",
        "other": {
            "request_id": request_id,
            "request_path": "/v1/images/generations",
            "http_status": status,
        },
    }


def _matches(row: dict[str, object], request: Request) -> bool:
    created_at = row["created_at"]
    assert isinstance(created_at, int)
    start = _number(request, "start_timestamp", 0)
    end = _number(request, "end_timestamp", 0)
    kind = _number(request, "type", 0)
    token = request.query_params.get("token_name", "")
    return (
        created_at >= start
        and (not end or created_at <= end)
        and kind in (0, row["type"])
        and token in ("", row["token_name"])
    )


def _number(request: Request, name: str, default: int) -> int:
    """Return a parameter as stock new-api reads it: 0 if not a number, the default if absent."""
    text = request.query_params.get(name)
    if text is None:
        return default
    return int(text) if text.isdecimal() else 0


def _quota(micros: int) -> int:
    return (2 * micros * QUOTA_PER_DOLLAR + MICROS_PER_DOLLAR) // (2 * MICROS_PER_DOLLAR)


def _success(data: object) -> Response:
    return _json({"success": True, "message": "", "data": data}, 200)


def _failure(message: str, status: int) -> Response:
    return _json({"success": False, "message": message}, status)


def _json(document: object, status: int) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")
