"""The HTTP face of the embedded endpoint: routes, headers and bodies, over a Gateway."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import secrets
import string
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import orjson
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchgen.endpoint import catalogue, rules
from batchgen.endpoint.bill import parse_micros
from batchgen.endpoint.connection import hang_up
from batchgen.endpoint.errors import ApiError
from batchgen.endpoint.faults import Fault
from batchgen.endpoint.gateway import Gateway, Hangup, Order, Reply
from batchgen.endpoint.uploads import Upload, check_uploads

_MAX_BODY_BYTES = 128 * 1024 * 1024
_FILE_NAME = re.compile(r"[0-9A-Za-z]+-[0-9]+\.(png|jpeg|webp)")
_ID_CHARACTERS = string.ascii_letters + string.digits

ReadRequest = Callable[[Request], Awaitable[rules.PictureRequest]]


def create_app(gateway: Gateway) -> Starlette:
    """The ASGI application; its shutdown closes the gateway."""
    return _Endpoint(gateway).app


class _Endpoint:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._posts = 0
        self._in_flight = 0
        self._max_in_flight = 0
        self._downloads = 0
        self._throttled = 0
        self.app = Starlette(
            routes=[
                Route("/v1/images/generations", self._generations, methods=["POST"]),
                Route("/v1/images/edits", self._edits, methods=["POST"]),
                Route("/v1/images/variations", _not_implemented, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/api/pricing", self._pricing),
                Route("/files/{name}", self._file),
                Route("/judge/bill", self._judge_bill),
                Route("/judge/stats", self._judge_stats),
                Route("/judge/faults", self._judge_faults, methods=["POST"]),
                Route("/judge/topup", self._judge_topup, methods=["POST"]),
                Route("/judge/revoke-key", self._judge_revoke_key, methods=["POST"]),
            ],
            exception_handlers={
                ApiError: _api_error,
                HTTPException: _http_error,
                ClientDisconnect: _nobody_there,
            },
            lifespan=self._lifespan,
        )
        self.app.router.redirect_slashes = False
        self.app.add_middleware(_RequestIds, on_429=self._count_429)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self._gateway.close()

    def _count_429(self) -> None:
        self._throttled += 1

    async def _generations(self, request: Request) -> Response:
        return await self._pictures(request, self._read_generation)

    async def _edits(self, request: Request) -> Response:
        return await self._pictures(request, self._read_edit)

    async def _pictures(self, request: Request, read: ReadRequest) -> Response:
        with self._counted() as number:
            await _read_body(request)
            self._gateway.authorise(request.headers.get("authorization"))
            self._gateway.admit()
            order = Order(
                number=number,
                request_id=request.state.request_id,
                idempotency_key=request.headers.get("idempotency-key"),
                client_request_id=request.headers.get("x-client-request-id"),
                wanted=await read(request),
            )
            # A task of its own: the work goes on and is billed when the client hangs up.
            reply = await asyncio.shield(asyncio.create_task(self._gateway.serve(order)))
        return _HangupResponse(reply) if isinstance(reply, Hangup) else _response(reply)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[int]:
        self._posts += 1
        self._in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self._in_flight)
        try:
            yield self._posts
        finally:
            self._in_flight -= 1

    async def _read_generation(self, request: Request) -> rules.PictureRequest:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise ApiError(400, "The body must be application/json")
        fields = _json_object(_unzipped(request, await request.body()))
        return rules.generation(fields, block_word=self._gateway.terms.block_word)

    async def _read_edit(self, request: Request) -> rules.PictureRequest:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise ApiError(400, "The body must be multipart/form-data")
        texts: dict[str, str] = {}
        images: list[Upload] = []
        mask: Upload | None = None
        async with request.form(max_part_size=_MAX_BODY_BYTES) as form:
            for name, value in form.multi_items():
                if isinstance(value, str):
                    texts.setdefault(name, value)
                elif name in ("image", "image[]"):
                    images.append(await _upload(value))
                elif name == "mask" and mask is None:
                    mask = await _upload(value)
        wanted = rules.edit(texts, block_word=self._gateway.terms.block_word)
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
        media_type = f"image/{path.suffix[1:]}"
        if request.method == "GET":
            self._downloads += 1
            fault = self._gateway.behaviour.download_fault(self._downloads)
            if fault is Fault.DOWNLOAD_ERROR:
                return Response("503 Service Unavailable", 503, media_type="text/plain")
            if fault is Fault.DOWNLOAD_TRUNCATE:
                return _TruncatedResponse(path.read_bytes(), media_type)
        return FileResponse(path, media_type=media_type)

    def _is_served(self, path: Path) -> bool:
        try:
            written_at = path.stat().st_mtime
        except FileNotFoundError:
            return False
        url_ttl = self._gateway.behaviour.url_ttl
        return not url_ttl or time.time() - written_at <= url_ttl

    async def _judge_bill(self, _: Request) -> Response:
        return Response(self._gateway.account.bill(), media_type="application/json")

    async def _judge_stats(self, _: Request) -> Response:
        account = self._gateway.account
        return _json(
            {
                "posts": self._posts,
                "billed": account.billed,
                "billed_micros": account.billed_micros,
                "balance_micros": account.left,
                "prompts_billed_twice": account.prompts_billed_twice,
                "in_flight": self._in_flight,
                "max_in_flight": self._max_in_flight,
                "sent_429": self._throttled,
                "downloads": self._downloads,
            }
        )

    async def _judge_faults(self, request: Request) -> Response:
        document = _json_object(await request.body())
        try:
            self._gateway.behaviour = self._gateway.behaviour.changed(document)
        except ValueError as error:
            raise ApiError(400, str(error), type="judge_error") from None
        return _json(self._gateway.behaviour.document())

    async def _judge_topup(self, request: Request) -> Response:
        document = _json_object(await request.body())
        try:
            await self._gateway.account.top_up(parse_micros(str(document.get("dollars"))))
        except ValueError as error:
            raise ApiError(400, str(error), type="judge_error") from None
        return _json({"balance_micros": self._gateway.account.left})

    async def _judge_revoke_key(self, _: Request) -> Response:
        self._gateway.key_revoked = not self._gateway.key_revoked
        return _json({"revoked": self._gateway.key_revoked})


class _RequestIds:
    """Gives every request an id in new-api's form, and every answer the header that tells it."""

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


class _HangupResponse(Response):
    def __init__(self, hangup: Hangup) -> None:
        super().__init__()
        self._reset = hangup.reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await hang_up(scope, receive, reset=self._reset)


class _TruncatedResponse(Response):
    """Promises the whole content and closes the connection after half of it."""

    def __init__(self, content: bytes, media_type: str) -> None:
        super().__init__(headers={"content-length": str(len(content))}, media_type=media_type)
        self._sent = content[: len(content) // 2]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": self.raw_headers},
        )
        await send({"type": "http.response.body", "body": self._sent, "more_body": True})
        await hang_up(scope, receive, reset=False)


def _new_request_id() -> str:
    """Fourteen digits of time, nine of nanoseconds, eight random characters, as new-api does."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    digits = time.strftime("%Y%m%d%H%M%S", time.gmtime(seconds))
    tail = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(8))
    return f"{digits}{nanoseconds:09d}{tail}"


async def _read_body(request: Request) -> None:
    """Read the body whole, so that no fault or refusal cuts off a client that is still sending."""
    too_large = ApiError(413, "request body too large", code="read_request_body_failed")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > _MAX_BODY_BYTES:
        raise too_large
    if len(await request.body()) > _MAX_BODY_BYTES:
        raise too_large


def _unzipped(request: Request, body: bytes) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise ApiError(400, f"Content-Encoding {encoding} is not supported")
    decoder = zlib.decompressobj(wbits=31)
    try:
        content = decoder.decompress(body, _MAX_BODY_BYTES)
    except zlib.error:
        raise ApiError(400, "The body is not gzip") from None
    if decoder.unconsumed_tail:
        raise ApiError(413, "request body too large", code="read_request_body_failed")
    if not decoder.eof:
        raise ApiError(400, "The gzip body is cut short")
    return content


def _json_object(body: bytes) -> dict[str, object]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ApiError(400, "The body is not a JSON object")
    return document


async def _upload(part: UploadFile) -> Upload:
    return Upload(content=await part.read(), mime_type=part.content_type)


def _json(document: object) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, reply.headers, reply.media_type)


async def _not_implemented(_: Request) -> Response:
    raise ApiError(501, "API not implemented", code="api_not_implemented")


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    body = error.body(request.state.request_id)
    return Response(body, error.status, error.headers, "application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals in the gateway's words; a wrong method is an unknown path there."""
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        message = f"Invalid URL ({request.method} {request.url.path})"
        return await _api_error(request, ApiError(404, message, type="invalid_request_error"))
    return await _api_error(request, ApiError(error.status_code, error.detail))


async def _nobody_there(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nginx's number for it; the client is gone and reads nothing
