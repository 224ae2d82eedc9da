"""The review server: pages, their files, the JSON interface and events."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from batchgen.ledger.review import image_index
from batchgen.review import api
from batchgen.review.access import Access, Gate
from batchgen.review.batch import ReviewBatch
from batchgen.review.feed import Feed
from batchgen.review.files import Files
from batchgen.review.prewarm import prepare_thumbnails
from batchgen.review.publisher import ReviewPublisher
from batchgen.version import __version__

_HERE: Final = Path(__file__).parent


def create_app(batch: ReviewBatch, access: Access) -> Starlette:
    """Return the application that serves one batch."""
    files, feed = Files(batch), Feed(batch)
    publisher = ReviewPublisher(batch)
    pages = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined
    )

    def page(path: str, template: str) -> Route:
        html = pages.get_template(template).render(version=__version__)

        async def show(request: Request) -> Response:
            return HTMLResponse(html, headers={"Cache-Control": "no-store"})

        return Route(path, show)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        stop = threading.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed.follow)
            index = batch.read(image_index, batch.id, batch.view.chosen)
            worker = threading.Thread(
                target=prepare_thumbnails, args=(files, index.ids, stop), daemon=True
            )
            worker.start()
            publisher.start()
            yield
            stop.set()
            tasks.cancel_scope.cancel()
        await anyio.to_thread.run_sync(worker.join)
        await anyio.to_thread.run_sync(publisher.stop)
        batch.close()

    return Starlette(
        routes=[
            page("/", "review.html"),
            page("/compare", "comparison.html"),
            page("/run", "run.html"),
            Route("/api/events", feed.stream),
            *api.routes(batch, files, access, publisher),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(Gate, access=access)],
        exception_handlers={api.BadRequestError: api.refuse_bad_request},
        lifespan=lifespan,
    )
