"""Routes by which tests inspect the endpoint and change its behavior."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import orjson
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from batchgen.simulator.billing import parse_micros
from batchgen.simulator.bodies import json_object
from batchgen.simulator.errors import ApiError
from batchgen.simulator.request_pipeline import Gateway


@dataclass(slots=True)
class Counts:
    """Counters since the start."""

    posts: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    sent_429: int = 0
    downloads: int = 0
    polls: int = 0

    @contextlib.contextmanager
    def post(self) -> Iterator[int]:
        """Count a POST as in flight inside the context; yield its number, from 1."""
        self.posts += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            yield self.posts
        finally:
            self.in_flight -= 1


Handler = Callable[[Request], Awaitable[Response]]


def judge_routes(gateway: Gateway, counts: Counts) -> list[Route]:
    """Return the routes under /judge, which need no key, but refuse pages of a browser."""
    judge = _Judge(gateway, counts)
    return [
        Route("/judge/bill", _local_only(judge.bill)),
        Route("/judge/stats", _local_only(judge.stats)),
        Route("/judge/faults", _local_only(judge.faults), methods=["POST"]),
        Route("/judge/topup", _local_only(judge.topup), methods=["POST"]),
        Route("/judge/refund", _local_only(judge.refund), methods=["POST"]),
        Route("/judge/revoke-key", _local_only(judge.revoke_key), methods=["POST"]),
    ]


def _local_only(handler: Handler) -> Handler:
    """Refuse what a page of another site can send.

    A name that resolves to 127.0.0.1 makes the page's requests same-origin, but keeps its own name
    in Host. A form of another site is sent without asking, but never as JSON.
    """

    async def checked(request: Request) -> Response:
        host = URL(f"http://{request.headers.get('host', '')}").hostname
        if not _is_loopback(host or ""):
            raise ApiError(403, f"Host {host!r} is not a loopback host", type="judge_error")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("", "application/json"):
            raise ApiError(415, "expected Content-Type: application/json", type="judge_error")
        return await handler(request)

    return checked


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class _Judge:
    gateway: Gateway
    counts: Counts

    async def bill(self, _: Request) -> Response:
        return Response(self.gateway.account.bill(), media_type="application/json")

    async def stats(self, _: Request) -> Response:
        account = self.gateway.account
        return _json(
            {
                "posts": self.counts.posts,
                "billed": account.billed,
                "billed_micros": account.billed_micros,
                "balance_micros": account.left,
                "prompts_billed_twice": account.prompts_billed_twice,
                "in_flight": self.counts.in_flight,
                "max_in_flight": self.counts.max_in_flight,
                "sent_429": self.counts.sent_429,
                "downloads": self.counts.downloads,
                "tasks_open": self.gateway.tasks.open,
                "polls": self.counts.polls,
            }
        )

    async def faults(self, request: Request) -> Response:
        document = json_object(await request.body())
        try:
            self.gateway.behavior = self.gateway.behavior.changed(document)
        except ValueError as error:
            raise ApiError(400, str(error), type="judge_error") from None
        return _json(self.gateway.behavior.document())

    async def topup(self, request: Request) -> Response:
        document = json_object(await request.body())
        try:
            await self.gateway.account.top_up(parse_micros(str(document.get("dollars"))))
        except ValueError as error:
            raise ApiError(400, str(error), type="judge_error") from None
        return _json({"balance_micros": self.gateway.account.left})

    async def refund(self, request: Request) -> Response:
        document = json_object(await request.body())
        try:
            dollars = document.get("dollars")
            micros = None if dollars is None else parse_micros(str(dollars))
            given = await self.gateway.account.give_back(str(document.get("request_id")), micros)
        except ValueError as error:
            raise ApiError(400, str(error), type="judge_error") from None
        return _json({"refunded_micros": given})

    async def revoke_key(self, _: Request) -> Response:
        self.gateway.key_revoked = not self.gateway.key_revoked
        return _json({"revoked": self.gateway.key_revoked})


def _json(document: object) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
