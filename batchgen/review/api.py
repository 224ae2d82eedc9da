"""The JSON interface of the review page. GET reads; POST appends decisions; nothing is sent."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from batchgen.ledger.budgets import period_budgets
from batchgen.ledger.busy import is_busy
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.decisions import (
    ImageChangedError,
    NewDecision,
    NothingToUndoError,
    decision_counts,
    record_decisions,
    undo_decisions,
)
from batchgen.ledger.newest_decisions import Decision
from batchgen.ledger.review import (
    SORTS,
    ImageFilter,
    image_detail,
    image_index,
    image_rows,
    related_images,
)
from batchgen.ledger.review_summary import basket, facets
from batchgen.money import decimal_string
from batchgen.review.access import MAX_BODY, Access
from batchgen.review.batch import ReviewBatch
from batchgen.review.compared_batch import ComparedBatch
from batchgen.review.comparison import NoComparison
from batchgen.review.dashboard import Dashboard
from batchgen.review.files import Files
from batchgen.review.image_files import NoFileError
from batchgen.review.publisher import ReviewPublisher

_MOST_ROWS: Final = 500
_MOST_DECISIONS: Final = 100_000
_MOST_TEXT: Final = 60_000
_FOREVER: Final = {"Cache-Control": "private, max-age=31536000, immutable"}
_NEVER: Final = {"Cache-Control": "no-store"}
_DAY_S: Final = 86_400
_MOST_ID: Final = 2**63


class BadRequestError(Exception):
    """The page sent something that it never sends."""


def routes(
    batch: ReviewBatch, files: Files, access: Access, publisher: ReviewPublisher
) -> list[BaseRoute]:
    """Return the routes of the interface."""
    api = _Api(batch, files, access, publisher)
    return [
        Route("/api/session", api.session, methods=["POST"]),
        Route("/api/batch", api.describe),
        Route("/api/index", api.index),
        Route("/api/images", api.rows),
        Route("/api/images/{image:int}", api.detail),
        Route("/api/related/{image:int}", api.related),
        Route("/api/basket", api.basket),
        Route("/api/comparison/rows", api.comparison_rows),
        Route("/api/comparison/cells", api.comparison_cells),
        Route("/api/run", api.run),
        Route("/api/decisions", api.decide, methods=["POST"]),
        Route("/api/undo", api.undo, methods=["POST"]),
        Route("/thumb/{image:int}/{side:int}", api.thumbnail),
        Route("/image/{image:int}", api.original),
        Route("/reference/{job:int}/{number:int}", api.reference),
    ]


class _Api:
    """The endpoints; each reads or writes the ledger in a thread."""

    def __init__(
        self, batch: ReviewBatch, files: Files, access: Access, publisher: ReviewPublisher
    ) -> None:
        self._batch = batch
        self._publisher = publisher
        self._files = files
        self._access = access
        self._dashboard = Dashboard(batch)
        self._compared = ComparedBatch(batch)

    async def session(self, request: Request) -> Response:
        """Exchange the token of the URL for a cookie."""
        if not self._access.is_token((await _body(request)).get("token")):
            return _error(403, "the token is not valid; open the URL that was printed")
        response = JSONResponse({"ok": True}, headers=_NEVER)
        response.set_cookie(
            self._access.cookie_name,
            self._access.cookie,
            httponly=True,
            samesite="strict",
            max_age=_DAY_S,
        )
        return response

    async def describe(self, request: Request) -> Response:
        """Return what the header and the filters show."""

        def read() -> dict[str, Any]:
            batch = self._batch
            counts = batch.read(decision_counts, batch.id)
            return {
                "name": batch.row.name,
                "provider": batch.row.provider,
                "by": batch.view.by,
                "runs": list(batch.view.chosen.runs),
                "compared_runs": list(batch.view.compared_runs),
                "axes": list(self._compared.axes),
                "is_narrow": batch.view.chosen.is_narrow or batch.view.chosen.only is not None,
                "facets": batch.read(facets, batch.id),
                "sorts": list(SORTS),
                "counts": asdict(counts),
            }

        return await _json_or_error(read)

    async def index(self, request: Request) -> Response:
        """Return the ids of the images that pass a filter, in order, with their decisions."""
        query = request.query_params
        chosen, sort = self._filter(query), query.get("sort", "key")
        if sort not in SORTS:
            return _error(400, "unknown sort")

        def read() -> dict[str, Any]:
            found = self._batch.read(image_index, self._batch.id, chosen, sort)
            return {"ids": found.ids, "decisions": found.decisions}

        return await _json_or_error(read)

    def _filter(self, query: Mapping[str, str]) -> ImageFilter:
        """Return the filter of the page within the view of the command line."""
        given: dict[str, Any] = {"text": query.get("text", "")[:1000]}
        for name in ("decisions", "tags", "models", "sizes", "warnings"):
            if name in query:
                given[name] = _strings(query[name])
        if "runs" in query:
            given["runs"] = _ids(_strings(query["runs"]))
        chosen = {name: value for name, value in given.items() if value or name == "runs"}
        return replace(self._batch.view.chosen, **chosen)

    async def rows(self, request: Request) -> Response:
        """Return the tiles of some images."""
        ids = _ids(request.query_params.get("ids", "").split(",")[:_MOST_ROWS])
        return await _json_or_error(lambda: self._batch.read(image_rows, self._batch.id, ids))

    async def detail(self, request: Request) -> Response:
        """Return everything about one image."""
        image = _id(request, "image")

        def read() -> dict[str, Any] | None:
            found = self._batch.read(image_detail, self._batch.id, image)
            return found and found | {"trouble": self._publisher.troubles.get(image)}

        return await _json_or_error(read)

    async def related(self, request: Request) -> Response:
        """Return the images of the same manifest line: variations, models or views."""
        image = _id(request, "image")
        return await _json_or_error(
            lambda: {"ids": self._batch.read(related_images, self._batch.id, image)}
        )

    async def comparison_rows(self, request: Request) -> Response:
        """Return the rows and columns of the comparison grid."""
        axes = _strings(request.query_params.get("axes", "[]"))
        return await _json_or_error(lambda: self._compared.rows(axes))

    async def comparison_cells(self, request: Request) -> Response:
        """Return what the cells of the comparison grid hold of the images that pass a filter."""
        query = request.query_params
        axes, chosen = _strings(query.get("axes", "[]")), self._filter(query)
        return await _json_or_error(lambda: self._compared.cells(axes, chosen))

    async def run(self, request: Request) -> Response:
        """Return the snapshot of a run for the dashboard."""
        wanted = [_ids([request.query_params.get(name, "")]) for name in ("run", "compare")]
        run, compare = (one[0] if one else None for one in wanted)
        return await _json_or_error(lambda: self._dashboard.snapshot(run, compare))

    async def basket(self, request: Request) -> Response:
        """Return what the next run sends because of decisions, and the budgets."""

        def read() -> dict[str, Any]:
            batch = self._batch
            groups = batch.read(basket, batch.id)
            budgets = batch.read(period_budgets, timestamp(utc_now()))
            return {
                "groups": [
                    {"group": one.group, "jobs": one.jobs, "cost": decimal_string(one.cost)}
                    for one in groups
                ],
                "total": decimal_string(sum(one.cost for one in groups)),
                "budgets": [
                    {"period": one.period, "left": decimal_string(one.left)} for one in budgets
                ],
                "command": batch.run_command,
            }

        return await _json_or_error(read)

    async def decide(self, request: Request) -> Response:
        """Record decisions durably, then return the tiles of their images."""
        body = await _body(request)
        action, session = _text(body, "action", 64), _text(body, "session", 64)
        decisions = [_decision(one) for one in _list(body, "decisions")]
        if not action or not decisions or len(decisions) > _MOST_DECISIONS:
            raise BadRequestError("an action and decisions are expected")

        def write() -> dict[str, Any]:
            batch = self._batch
            batch.write(
                record_decisions, batch.id, decisions, batch.reviewer(session), action=action
            )
            self._publisher.wake()
            return self._changed([one.image for one in decisions])

        return await _json_or_error(write)

    async def undo(self, request: Request) -> Response:
        """Take back the newest action of this reviewer, then return the tiles of its images."""
        body = await _body(request)
        action, session = _text(body, "action", 64), _text(body, "session", 64)

        def write() -> dict[str, Any]:
            batch = self._batch
            images = batch.write(undo_decisions, batch.id, batch.reviewer(session), action=action)
            return self._changed(images)

        return await _json_or_error(write)

    def _changed(self, images: list[int]) -> dict[str, Any]:
        batch = self._batch
        return {
            "rows": batch.read(image_rows, batch.id, images[:_MOST_ROWS]),
            "images": images,
            "counts": asdict(batch.read(decision_counts, batch.id)),
        }

    async def thumbnail(self, request: Request) -> Response:
        """Return a thumbnail; it is made if it is not there."""
        image, side = _id(request, "image"), _id(request, "side")
        try:
            path = await run_sync(self._files.thumbnail, image, side)
        except NoFileError as exc:
            return _error(404, str(exc))
        except sqlite3.OperationalError as exc:
            return _busy(exc)
        return FileResponse(path, media_type="image/webp", headers=_FOREVER)

    async def original(self, request: Request) -> Response:
        """Return the file of an image."""
        try:
            path, row = await run_sync(self._files.original, _id(request, "image"))
        except NoFileError as exc:
            return _error(404, str(exc))
        except sqlite3.OperationalError as exc:
            return _busy(exc)
        kind = "video/mp4" if row.format == "mp4" else f"image/{row.format}"
        return FileResponse(path, media_type=kind, headers=_FOREVER)

    async def reference(self, request: Request) -> Response:
        """Return a reference image of a job."""
        job, number = _id(request, "job"), _id(request, "number")
        try:
            path, kind = await run_sync(self._files.reference, job, number)
        except NoFileError as exc:
            return _error(404, str(exc))
        except sqlite3.OperationalError as exc:
            return _busy(exc)
        return FileResponse(path, media_type=kind, headers=_NEVER)


async def _json_or_error(work: Callable[[], Any]) -> Response:
    """Run something in a thread and return its result as JSON; None is 404."""
    try:
        found = await run_sync(work)
    except ImageChangedError as exc:
        return JSONResponse({"error": str(exc), "image": exc.image}, 409, headers=_NEVER)
    except (NothingToUndoError, NoComparison) as exc:
        return _error(409, str(exc))
    except sqlite3.OperationalError as exc:
        return _busy(exc)
    return _error(404, "no such image") if found is None else JSONResponse(found, headers=_NEVER)


def _busy(exc: sqlite3.OperationalError) -> Response:
    if not is_busy(exc):
        raise exc
    return _error(503, "the ledger is locked by another program; the page tries again")


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status, headers=_NEVER)


async def refuse_bad_request(request: Request, exc: Exception) -> Response:
    """Turn a `BadRequestError` into a response."""
    return _error(400, str(exc))


async def _body(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request. Raises BadRequestError."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise BadRequestError("the body is too large")
    try:
        found = json.loads(data)
    except ValueError:
        raise BadRequestError("the body is not JSON") from None
    if not isinstance(found, dict):
        raise BadRequestError("the body is not an object")
    return found


def _text(body: Mapping[str, Any], name: str, most: int) -> str:
    found = body.get(name, "")
    if not isinstance(found, str) or len(found) > most:
        raise BadRequestError(f"{name}: expected a text of at most {most:,} characters")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise BadRequestError(f"{name}: expected valid Unicode text") from None
    return found


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    found = body.get(name)
    if not isinstance(found, list):
        raise BadRequestError(f"{name}: expected a list")
    return found


def _decision(given: object) -> NewDecision:
    if not isinstance(given, dict):
        raise BadRequestError("decisions: expected objects")
    image = given.get("image")
    if type(image) is not int or not 0 < image < _MOST_ID:
        raise BadRequestError("image: expected an id")
    name = _text(given, "decision", 10)
    if name not in list(Decision):
        raise BadRequestError(f"decision: expected one of {', '.join(Decision)}")
    prompt = _text(given, "prompt", _MOST_TEXT) if given.get("prompt") is not None else None
    if prompt is not None and not prompt.strip():
        raise BadRequestError("prompt: must not be empty")
    return NewDecision(
        image=image,
        sha256=_text(given, "sha256", 64),
        decision=Decision(name),
        note=_text(given, "note", _MOST_TEXT),
        prompt=None if prompt is None else prompt.strip(),
    )


def _id(request: Request, name: str) -> int:
    """Return a number of the path; too large ones become one that no row has."""
    return min(int(request.path_params[name]), _MOST_ID - 1)


def _ids(texts: Sequence[str]) -> tuple[int, ...]:
    return tuple(min(int(one), _MOST_ID - 1) for one in texts if one.isdecimal())


def _strings(text: str) -> tuple[str, ...]:
    """Return a JSON list of texts from a query. Raises BadRequestError."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise BadRequestError("expected a JSON list of texts")
    return tuple(found)
