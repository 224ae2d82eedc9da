"""The routes of providers and their adapters."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Protocol

from batchgen.http.request import ApiRequest
from batchgen.job import AttemptId, Job
from batchgen.outcomes.classify import Response
from batchgen.providers.adapters import gemini, images, video


class Route(StrEnum):
    """A protocol for requesting images. Each spooled response stores its route's name."""

    IMAGES = "images"
    """OpenAI's ``/images/generations`` and ``/images/edits``."""
    GEMINI = "gemini"
    """Gemini's native ``generateContent``."""
    VIDEO = "video"
    """``/video/create``, which returns a task to poll."""


class Adapter(Protocol):
    """The functions that differ between routes, implemented by one module per route."""

    def build_request(self, job: Job, attempt: AttemptId, base_url: str) -> ApiRequest:
        """Build the request of an attempt. Raises OSError if a reference cannot be read."""

    def read_response(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Parse a spooled response, complete or cut. Never raises."""

    def inline_base64(self, body: bytes, headers: Mapping[str, str], index: int) -> str:
        """Return the base64 text of an image in a response. Raises ValueError if it is missing."""

    def partial_images(self, body: bytes, headers: Mapping[str, str]) -> list[bytes]:
        """Return the partial images of a response, in order; most responses have none."""


ADAPTERS: Final[Mapping[Route, Adapter]] = {
    Route.IMAGES: images,
    Route.GEMINI: gemini,
    Route.VIDEO: video,
}


def adapter_of(route: str) -> Adapter:
    """Return the adapter of a route; the Images API's for an unknown name."""
    return ADAPTERS[Route(route)] if route in set(Route) else images
