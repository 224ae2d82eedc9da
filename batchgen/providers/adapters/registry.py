"""Which route of a provider a model is asked on, and who speaks it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Protocol

from batchgen.http.request import ApiRequest
from batchgen.job import AttemptId, Job
from batchgen.outcomes.classify import Response
from batchgen.providers.adapters import gemini, images, video


class Route(StrEnum):
    """A way to ask for images. Its name goes with each spooled response, to be read by."""

    IMAGES = "images"
    """OpenAI's ``/images/generations`` and ``/images/edits``."""
    GEMINI = "gemini"
    """Gemini's own ``generateContent``."""
    VIDEO = "video"
    """``/video/create`` and a task to ask for."""


class Adapter(Protocol):
    """All that differs between routes; a module of functions is one."""

    def build_request(self, job: Job, attempt: AttemptId, base_url: str) -> ApiRequest:
        """Write the one request of an attempt. Raises OSError when a reference can't be read."""

    def read_response(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Read a spooled response, whole or cut; whatever it is, it is an Answer."""

    def inline_base64(self, body: bytes, headers: Mapping[str, str], index: int) -> str:
        """The base64 of an image of a spooled response. Raises ValueError where there is none."""

    def partial_images(self, body: bytes, headers: Mapping[str, str]) -> list[bytes]:
        """The unfinished images of a spooled response, in order; of most there are none."""


ADAPTERS: Final[Mapping[Route, Adapter]] = {
    Route.IMAGES: images,
    Route.GEMINI: gemini,
    Route.VIDEO: video,
}


def adapter_of(route: str) -> Adapter:
    """The adapter of a route by its name; that of the Images API for a name nobody knows."""
    return ADAPTERS[Route(route)] if route in set(Route) else images
