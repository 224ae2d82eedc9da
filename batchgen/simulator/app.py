"""Serve the local endpoint's Gateway over HTTP: routes, headers and bodies."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import secrets
import string
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import orjson
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchgen.simulator import catalogue
from batchgen.simulator.bodies import MAX_BODY_BYTES, json_fields, read_body, upload
from batchgen.simulator.control_api import Counts, judge_routes
from batchgen.simulator.errors import ApiError, Blocked
from batchgen.simulator.faults import Behavior, Fault
from batchgen.simulator.image_generator import Studio
from batchgen.simulator.local_only import guarded
from batchgen.simulator.models import gemini, images, registry, veo
from batchgen.simulator.models.rules import ImageRequest
from batchgen.simulator.orders import EventStream, Hangup, Order, Sent, WantedT
from batchgen.simulator.request_pipeline import Gateway
from batchgen.simulator.responses import (
    EventStreamResponse,
    HangupResponse,
    StalledResponse,
    TruncatedResponse,
)
from batchgen.simulator.streams import ImageEvents
from batchgen.simulator.uploads import Upload, check_uploads
from batchgen.simulator.usage_log import LogApi

_FILE_NAME = re.compile(r"[0-9A-Za-z]+-[0-9]+\.(png|jpeg|webp|mp4)")
_DOWNLOAD_STATUS = {
    Fault.DOWNLOAD_FORBID: 403,
    Fault.DOWNLOAD_MISS: 404,
    Fault.DOWNLOAD_GONE: 410,
    Fault.DOWNLOAD_ERROR: 503,
}
_ID_CHARACTERS = string.ascii_letters + string.digits

ReadRequest = Callable[[Request], Awaitable[ImageRequest]]
ResponseImages = Callable[[Studio, Order[ImageRequest], Behavior, Fault | None], bytes]


def create_app(gateway: Gateway) -> Starlette:
    """Return the ASGI application, which closes the gateway on shutdown."""
    return _Endpoint(gateway).app


class _Endpoint:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._counts = Counts()
        routes = [
            Route("/v1/images/generations", self._generations, methods=["POST"]),
            Route("/v1/images/edits", self._edits, methods=["POST"]),
            Route("/v1/images/variations", _not_implemented, methods=["POST"]),
            Route("/v1beta/models/{model}:generateContent", self._gemini, methods=["POST"]),
            Route("/v1/video/create", self._create_video, methods=["POST"]),
            Route("/v1/video/query", self._query_video),
            Route("/v1/models", self._models),
            Route("/api/pricing", self._pricing),
            *LogApi(gateway.account, gateway.terms.price).routes(),
            Route("/files/{name}", self._file),
            *judge_routes(gateway, self._counts),
        ]
        self.app = Starlette(
            routes=list(guarded(routes)),
            exception_handlers={
                ApiError: _api_error,
                HTTPException: _http_error,
                ClientDisconnect: _disconnected,
            },
            lifespan=self._lifespan,
        )
        self.app.router.redirect_slashes = False
        self.app.add_middleware(_RequestIds, on_429=self._count_429)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._gateway.tasks.resume()
        yield
        await self._gateway.close()

    def _count_429(self) -> None:
        self._counts.sent_429 += 1

    async def _generations(self, request: Request) -> Response:
        return await self._images(request, self._read_generation, images.response)

    async def _edits(self, request: Request) -> Response:
        return await self._images(request, self._read_edit, images.response)

    async def _gemini(self, request: Request) -> Response:
        try:
            return await self._images(request, self._read_gemini, gemini.response)
        except Blocked:
            model = request.path_params["model"]
            body = gemini.blocked(model, request.state.request_id)
            return Response(body, media_type="application/json")

    async def _images(
        self, request: Request, read: ReadRequest, response: ResponseImages
    ) -> Response:
        async def make(
            order: Order[ImageRequest], behavior: Behavior, fault: Fault | None
        ) -> bytes:
            return await asyncio.to_thread(response, self._gateway.studio, order, behavior, fault)

        with contextlib.ExitStack() as in_flight:
            number = in_flight.enter_context(self._counts.post())
            await self._admit(request)
            wanted = await read(request)
            micros = registry.price(wanted, gpt_image=self._gateway.terms.price)
            order = _order(request, number, wanted, micros)
            work = self._gateway.serve(order, make, self._events if wanted.stream else None)
            # In a task of its own, so that the work continues and is billed if the client hangs up.
            return _sent(await asyncio.shield(asyncio.create_task(work)), in_flight)

    async def _create_video(self, request: Request) -> Response:
        with contextlib.ExitStack() as in_flight:
            number = in_flight.enter_context(self._counts.post())
            await self._admit(request)
            try:
                fields = await json_fields(request)
                wanted = veo.read(fields, block_word=self._gateway.terms.block_word)
                order = _order(request, number, wanted, wanted.micros, billed_at_once=True)
                work = self._gateway.serve(order, self._gateway.tasks.create)
                return _sent(await asyncio.shield(asyncio.create_task(work)), in_flight)
            except ApiError as error:
                return _task_error(error)

    async def _query_video(self, request: Request) -> Response:
        self._counts.polls += 1
        self._gateway.authorise(request.headers.get("authorization"))
        asked = request.query_params
        task_id = asked.get("id") or asked.get("task_id") or ""
        try:
            return _json(self._gateway.tasks.query(task_id, self._gateway.behavior))
        except ApiError as error:
            return _task_error(error)

    async def _admit(self, request: Request) -> None:
        await read_body(request)
        self._gateway.authorise(request.headers.get("authorization"))
        self._gateway.admit()

    def _events(
        self, order: Order[ImageRequest], behavior: Behavior, fault: Fault | None
    ) -> ImageEvents:
        return ImageEvents(studio=self._gateway.studio, order=order, behavior=behavior, fault=fault)

    async def _read_generation(self, request: Request) -> ImageRequest:
        fields = await json_fields(request)
        return registry.generation(fields, block_word=self._gateway.terms.block_word)

    async def _read_gemini(self, request: Request) -> ImageRequest:
        model = request.path_params["model"]
        fields = await json_fields(request)
        block_word = self._gateway.terms.block_word
        return await asyncio.to_thread(gemini.read, model, fields, block_word=block_word)

    async def _read_edit(self, request: Request) -> ImageRequest:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise ApiError(400, "The body must be multipart/form-data")
        texts: dict[str, str] = {}
        images: list[Upload] = []
        mask: Upload | None = None
        async with request.form(max_part_size=MAX_BODY_BYTES) as form:
            for name, value in form.multi_items():
                if isinstance(value, str):
                    texts.setdefault(name, value)
                elif name in ("image", "image[]"):
                    images.append(await upload(value))
                elif name == "mask" and mask is None:
                    mask = await upload(value)
        wanted = registry.edit(texts, block_word=self._gateway.terms.block_word)
        references = await asyncio.to_thread(check_uploads, images, mask)
        return dataclasses.replace(wanted, references=references)

    async def _models(self, request: Request) -> Response:
        self._gateway.authorise(request.headers.get("authorization"))
        return _json(catalogue.model_list())

    async def _pricing(self, _: Request) -> Response:
        return _json(catalogue.price_list(self._gateway.terms.price))

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        path = self._gateway.files / name
        if not _FILE_NAME.fullmatch(name) or not self._is_served(path):
            return Response("404 page not found", 404, media_type="text/plain")
        media_type = "video/mp4" if path.suffix == ".mp4" else f"image/{path.suffix[1:]}"
        if request.method == "GET":
            self._counts.downloads += 1
            fault = self._gateway.behavior.download_fault(self._counts.downloads)
            if fault in _DOWNLOAD_STATUS:
                status = _DOWNLOAD_STATUS[fault]
                return Response(f"{status} {HTTPStatus(status).phrase}", status)
            if fault is Fault.DOWNLOAD_HTML:
                return Response("<html>maintenance</html>", media_type="text/html")
            if fault is Fault.DOWNLOAD_EMPTY:
                return Response(b"", media_type=media_type)
            if fault is Fault.DOWNLOAD_TRUNCATE:
                return TruncatedResponse(path.read_bytes(), media_type)
            if fault is Fault.DOWNLOAD_STALL:
                return StalledResponse(path.read_bytes(), media_type)
        return FileResponse(path, media_type=media_type)

    def _is_served(self, path: Path) -> bool:
        try:
            written_at = path.stat().st_mtime
        except FileNotFoundError:
            return False
        url_ttl = self._gateway.behavior.url_ttl
        return not url_ttl or time.time() - written_at <= url_ttl


class _RequestIds:
    """Give every request an id in new-api's form, and return it in a header of every response."""

    def __init__(self, app: ASGIApp, on_429: Callable[[], None]) -> None:
        self._app = app
        self._on_429 = on_429

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _new_request_id()
        scope["state"]["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Oneapi-Request-Id"] = request_id
                if message["status"] == 429:
                    self._on_429()
            await send(message)

        await self._app(scope, receive, send_with_id)


def _new_request_id() -> str:
    """Return a request id as new-api forms it: 14 digits of time, 9 of nanoseconds, 8 random
    characters.
    """
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    digits = time.strftime("%Y%m%d%H%M%S", time.gmtime(seconds))
    tail = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(8))
    return f"{digits}{nanoseconds:09d}{tail}"


def _order(
    request: Request, number: int, wanted: WantedT, micros: int, *, billed_at_once: bool = False
) -> Order[WantedT]:
    return Order(
        number=number,
        request_id=request.state.request_id,
        idempotency_key=request.headers.get("idempotency-key"),
        client_request_id=request.headers.get("x-client-request-id"),
        wanted=wanted,
        micros=micros,
        billed_at_once=billed_at_once,
    )


def _json(document: object) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def _sent(sent: Sent, in_flight: contextlib.ExitStack) -> Response:
    if isinstance(sent, EventStream):
        return EventStreamResponse(sent, in_flight.pop_all())
    if isinstance(sent, Hangup):
        return HangupResponse(sent)
    return Response(sent.body, sent.status, sent.headers, sent.media_type)


def _task_error(error: ApiError) -> Response:
    """Return an error in the form of the task routes; raise one of the gateway again."""
    if error.code.startswith("system_"):
        raise error
    code = error.code
    if code == "insufficient_user_quota":
        code = "quota_not_enough"
    elif error.status == 400 and code not in ("task_not_exist", "moderation_blocked"):
        code = "invalid_request"
    return Response(error.task_body(code), error.status, error.headers, "application/json")


async def _not_implemented(_: Request) -> Response:
    raise ApiError(501, "API not implemented", code="api_not_implemented")


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    body = error.body(request.state.request_id)
    return Response(body, error.status, error.headers, "application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    """Return Starlette's errors in the gateway's form; there, a wrong method is an unknown path."""
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        message = f"Invalid URL ({request.method} {request.url.path})"
        return await _api_error(request, ApiError(404, message, type="invalid_request_error"))
    return await _api_error(request, ApiError(error.status_code, error.detail))


async def _disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nginx's status for a client that has disconnected
