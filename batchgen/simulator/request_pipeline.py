"""Process a request after it is read and before its response is sent: money, work, faults."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from batchgen.simulator import streams
from batchgen.simulator.billing import Account, Hold
from batchgen.simulator.errors import CARRIER, ApiError, Blocked, invalid_value
from batchgen.simulator.faults import Behavior, BillAt, Fault, Idempotency
from batchgen.simulator.image_generator import Studio
from batchgen.simulator.orders import (
    Events,
    EventStream,
    Hangup,
    Make,
    MakeEvents,
    Order,
    Reply,
    Sent,
    Terms,
    WantedT,
)
from batchgen.simulator.tasks import Tasks

DROPPED = "dropped"
STREAMED = (
    None,
    Fault.BILL_EMPTY,
    Fault.BILL_TRUNCATED,
    Fault.STREAM_ERROR,
    Fault.BILL_STREAM_ERROR,
    Fault.BILL_STREAM_CUT,
)
"""Faults with which a stream can open; every other fault replaces the stream."""
_USELESS: Mapping[Fault | None, Reply] = {
    Fault.BILL_NO_DATA: Reply(200, b'{"created": 1790000000}'),
    Fault.BILL_UNREAD: Reply(200, b'{"created": 1, "renderings": [{"link": "/a.png"}]}'),
    Fault.BILL_INSIDE: Reply(200, b'{"error": {"code": "render_failed", "message": "No GPU"}}'),
    Fault.BILL_TASK: Reply(202, b'{"id": "render-1", "status": "queued", "polling_url": "/r/1"}'),
}
"""Responses without an image, although one was made."""
UNBILLED = (Fault.ERROR, Fault.BREAK, Fault.STREAM_ERROR)
"""Faults after the start of work that cost nothing."""

_GATEWAY_TIMEOUT_PAGE = (
    b"<html>\r\n<head><title>504 Gateway Time-out</title></head>\r\n<body>\r\n"
    b"<center><h1>504 Gateway Time-out</h1></center>\r\n</body>\r\n</html>\r\n"
)
_INTERNAL_ERROR_PAGE = (
    b"<html>\r\n<head><title>500 Internal Server Error</title></head>\r\n<body>\r\n"
    b"<center><h1>500 Internal Server Error</h1></center>\r\n</body>\r\n</html>\r\n"
)
_CONSOLE_PAGE = b"<!doctype html>\n<html><head><title>Console</title></head><body></body></html>\n"


class Bucket:
    """A token bucket: refills evenly, starts full, and a refused request takes nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens = math.inf
        self._updated_at = clock()

    def take(self, per_minute: float, burst: int) -> float:
        """Take a token and return 0.0, or return the seconds until one is available."""
        now = self._clock()
        refill = (now - self._updated_at) * per_minute / 60
        self._tokens = min(float(burst), self._tokens + refill)
        self._updated_at = now
        if self._tokens < 1:
            return (1 - self._tokens) * 60 / per_minute
        self._tokens -= 1
        return 0.0


class Gateway:
    """The endpoint without HTTP: admits clients, makes images, keeps the account."""

    def __init__(self, *, state: Path, base_url: str, terms: Terms, behavior: Behavior) -> None:
        self.files = state / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self._responses = state / "responses"
        self._responses.mkdir(exist_ok=True)
        self.studio = Studio(self.files, base_url)
        self.terms = terms
        self.behavior = behavior
        self.account = Account(state, balance=terms.balance)
        self.tasks = Tasks(state, self.studio, self.account)
        self.key_revoked = False
        self._bucket = Bucket()
        self._running: dict[str, tuple[str, asyncio.Task[Sent]]] = {}

    def authorise(self, authorization: str | None) -> None:
        """Check the Authorization header. Raises the stock gateway's 401."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise ApiError(401, "未提供令牌")
        expected = self.terms.key
        known = (
            key.startswith("sk-")
            if expected is None
            else hmac.compare_digest(key.encode(), expected.encode())
        )
        if self.key_revoked or not known:
            raise ApiError(401, "无效的令牌")

    def admit(self) -> None:
        """Take one request from the rate limit. Raises 429."""
        behavior = self.behavior
        if not behavior.rate:
            return
        wait = self._bucket.take(behavior.rate, behavior.burst)
        if wait:
            raise ApiError(
                429,
                f"Rate limit of {behavior.rate:g} requests per minute reached",
                headers=self._retry_after(wait),
            )

    async def serve(
        self,
        order: Order[WantedT],
        make: Make[WantedT],
        make_events: MakeEvents[WantedT] | None = None,
    ) -> Sent:
        """Do the work of an order, or replay it; streams from `make_events` are never replayed.

        Raises ApiError if the work was neither done nor billed.
        """
        key = order.idempotency_key
        if self.behavior.idempotency is Idempotency.NONE or key is None or make_events:
            return await self._work(order, make, make_events)
        digest = hashlib.sha256(repr(order.wanted).encode()).hexdigest()
        if key in self._running:
            first_digest, running = self._running[key]
            _check_same(first_digest, digest)
            return await asyncio.shield(running)
        saved = self._saved_response(key)
        if self.account.is_billed(key) and saved.exists():
            saved_digest, _, body = saved.read_bytes().partition(b"\n")
            _check_same(saved_digest.decode(), digest)
            return Reply(200, body)
        task = asyncio.create_task(self._work(order, make, digest=digest))
        self._running[key] = (digest, task)
        task.add_done_callback(lambda _: self._running.pop(key))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Finish pending writes; tasks that are not due continue at the next start."""
        await self.tasks.close()
        await self.account.close()

    async def _work(
        self,
        order: Order[WantedT],
        make: Make[WantedT],
        make_events: MakeEvents[WantedT] | None = None,
        *,
        digest: str | None = None,
    ) -> Sent:
        behavior = self.behavior  # one for the whole request, even if a test changes it meanwhile
        with ExitStack() as held:
            hold = self.account.hold(order.micros)
            held.callback(self.account.release, hold)
            fault = behavior.post_fault(order.number, streamed=make_events is not None)
            refusal = self._refusal(fault)
            if refusal is not None:
                return refusal
            billed_first = order.billed_at_once or behavior.bill_at is BillAt.BODY
            if billed_first and fault not in UNBILLED:
                await self._charge(hold, order, fault)
            if make_events is not None and fault in STREAMED:
                events = make_events(order, behavior, fault)
                return EventStream(
                    self._stream(order, behavior, fault, events, hold, held.pop_all())
                )
            await asyncio.sleep(_latency(order, behavior))
            if fault is Fault.ERROR:
                raise ApiError(500, "do request failed", code="do_request_failed")
            if fault is Fault.BREAK:
                return self._hangup(order)
            body = await make(order, behavior, fault)
            if digest is not None and order.idempotency_key is not None:
                saved = self._saved_response(order.idempotency_key)
                await asyncio.to_thread(saved.write_bytes, digest.encode() + b"\n" + body)
            if not billed_first:
                await self._charge(hold, order, fault)
            return self._after_billing(order, fault, body)

    async def _stream(
        self,
        order: Order[WantedT],
        behavior: Behavior,
        fault: Fault | None,
        events: Events,
        hold: Hold,
        held: ExitStack,
    ) -> AsyncGenerator[bytes | Hangup, None]:
        """Do the rest of the work of a streamed order: partial images, charge, images."""
        partials = events.partials()
        pause = _latency(order, behavior) / (len(partials) + 1)
        with held:
            yield streams.PING
            for make_partial in partials:
                async for ping in streams.pings(pause, behavior.ping_interval):
                    yield ping
                yield await asyncio.to_thread(make_partial)
            async for ping in streams.pings(pause, behavior.ping_interval):
                yield ping
            if fault is Fault.STREAM_ERROR:
                yield streams.failure()
                return
            completed = await asyncio.to_thread(events.completed)
            if behavior.bill_at is BillAt.WORK:
                await self._charge(hold, order, fault)
            if fault is Fault.BILL_STREAM_ERROR:
                yield streams.failure()
                return
            if fault is Fault.BILL_STREAM_CUT:
                yield self._hangup(order)
                return
            for event in completed:
                yield event
            yield streams.DONE

    def _refusal(self, fault: Fault | None) -> Reply | None:
        """Return the response of a fault that costs neither work nor money."""
        if fault is Fault.REFUSE:
            raise invalid_value("prompt", "The request was refused.")
        if fault is Fault.PLAN_LIMIT:
            raise ApiError(400, "Nothing is left of this plan", type=CARRIER, code="plan_spent")
        if fault is Fault.BLOCK:
            raise Blocked
        if fault is Fault.OVERLOAD:
            raise ApiError(503, "system cpu overloaded", code="system_cpu_overloaded")
        if fault is Fault.THROTTLE:
            return Reply(429, b"", headers=self._retry_after(1.0))
        if fault is Fault.HTML:
            return Reply(200, _CONSOLE_PAGE, "text/html; charset=utf-8")
        return None

    def _after_billing(
        self, order: Order[WantedT], fault: Fault | None, body: bytes
    ) -> Reply | Hangup:
        if fault is Fault.BILL_DROP:
            return self._hangup(order)
        if fault is Fault.BILL_GATEWAY_TIMEOUT:
            return Reply(504, _GATEWAY_TIMEOUT_PAGE, "text/html")
        if fault is Fault.BILL_ERROR:
            if self.behavior.chance("error body", order.number) < 0.5:
                return Reply(500, _INTERNAL_ERROR_PAGE, "text/html")
            return Reply(500, b'{"detail": "Internal Server Error"}')
        if fault is Fault.BILL_PAGE:
            return Reply(200, _CONSOLE_PAGE, "text/html; charset=utf-8")
        if fault in _USELESS:
            return _USELESS[fault]
        return Reply(200, body)

    async def _charge(self, hold: Hold, order: Order[WantedT], fault: Fault | None) -> None:
        status: int | str = 200
        if fault in (Fault.BILL_DROP, Fault.BILL_STREAM_CUT):
            status = DROPPED
        elif fault is Fault.BILL_ERROR:
            status = 500
        elif fault is Fault.BILL_GATEWAY_TIMEOUT:
            status = 504
        await self.account.charge(hold, order.purchase(fault), status=status)

    def _hangup(self, order: Order[WantedT]) -> Hangup:
        return Hangup(reset=self.behavior.chance("hangup", order.number) < 0.5)

    def _retry_after(self, wait: float) -> dict[str, str]:
        if not self.behavior.retry_after:
            return {}
        return {"Retry-After": str(max(1, math.ceil(wait)))}

    def _saved_response(self, idempotency_key: str) -> Path:
        return self._responses / hashlib.sha256(idempotency_key.encode()).hexdigest()


def _latency(order: Order[WantedT], behavior: Behavior) -> float:
    jitter = behavior.latency_jitter * behavior.chance("latency", order.number)
    return behavior.latency + jitter


def _check_same(first_digest: str, digest: str) -> None:
    if first_digest != digest:
        raise ApiError(
            400,
            "This Idempotency-Key was used for another request",
            type="idempotency_error",
            code="idempotency_key_reused",
        )
