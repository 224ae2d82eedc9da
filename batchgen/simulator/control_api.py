"""Routes by which tests inspect the endpoint and change its behavior."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import orjson
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


def judge_routes(gateway: Gateway, counts: Counts) -> list[Route]:
    """Return the routes under /judge, which need no key."""
    judge = _Judge(gateway, counts)
    return [
        Route("/judge/bill", judge.bill),
        Route("/judge/stats", judge.stats),
        Route("/judge/faults", judge.faults, methods=["POST"]),
        Route("/judge/topup", judge.topup, methods=["POST"]),
        Route("/judge/refund", judge.refund, methods=["POST"]),
        Route("/judge/revoke-key", judge.revoke_key, methods=["POST"]),
    ]


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
