"""Poll the tasks of a provider, of videos and images. Polling is free and can be repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from batchgen.http.client import ApiClient, NoDocument
from batchgen.http.network import key_origin
from batchgen.outcomes.classify import ErrorBody
from batchgen.providers.adapters.video import TaskState, is_video_task, read_state
from batchgen.urls import url_in_document

POLL_S: Final = 10.0
"""Poll interval that the provider recommends."""
MAX_TASK_S: Final = 1800.0
"""Most tasks take one to five minutes. The next run polls a task that takes longer."""
_MAX_FAILURES: Final = 8
"""Consecutive failed polls."""
_UNKNOWN_TRIES: Final = 4
"""A recently accepted task may not be known on all servers yet. After this many consecutive polls,
about 30 s, it is left to the next run."""
_UNKNOWN_IMAGE_TRIES: Final = 8
"""The same 30 s: images are polled more often at first."""
_FIRST_IMAGE_POLL_S: Final = 1.0
_POLL_GROWTH: Final = 1.5
"""Images take seconds: their tasks are polled after 1 s, then less and less often."""
_NO_TASK: Final = frozenset({400, 404, 405, 410})
"""Statuses of a polling URL that has no task."""


class _NoTask(NoDocument):
    """Nothing is known at the polling URL."""


@dataclass(frozen=True, slots=True)
class TaskDone:
    """The video or image is available at this absolute URL."""

    url: str


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The provider reports that the task failed."""

    error: ErrorBody


@dataclass(frozen=True, slots=True)
class TaskUnresolved:
    """The state of the task stays unknown in this run."""

    reason: str
    unknown: bool = False
    """Whether the provider does not know the task."""


TaskResult = TaskDone | TaskFailed | TaskUnresolved


class TaskPoller:
    """Polls the tasks of one endpoint.

    ``pause(seconds)`` sleeps, and returns False if the run is ending.
    """

    def __init__(
        self,
        client: ApiClient,
        base_url: str,
        *,
        pause: Callable[[float], Awaitable[bool]],
        poll_s: float = POLL_S,
    ) -> None:
        self._client = client
        self._base_url = base_url
        self._pause = pause
        self._poll_s = poll_s
        self._known: set[str] = set()
        """Running tasks. One that is unknown later was created all the same."""

    async def poll_until_done(self, task: str) -> TaskResult:
        """Poll until the task is done, has failed or cannot be polled any further in this run."""
        url = self._url(task)
        created_at, current = key_origin(url), key_origin(self._base_url)
        if created_at is None or created_at != current:
            return TaskUnresolved(
                f"it was created at {created_at or 'an invalid URL'}, but base_url is now"
                f" {current}; restore base_url and resume: the key is sent to no other host"
            )
        is_video = is_video_task(task)
        pause_s = self._poll_s if is_video else min(self._poll_s, _FIRST_IMAGE_POLL_S)
        max_unknown = _UNKNOWN_TRIES if is_video else _UNKNOWN_IMAGE_TRIES
        waited_s, failures, unknown = 0.0, 0, 0
        while True:
            try:
                state = await self._poll(url)
            except _NoTask as exc:
                failures, unknown = failures + 1, unknown + (not is_video)
                if unknown >= max_unknown or failures >= _MAX_FAILURES:
                    is_unknown = unknown >= max_unknown and task not in self._known
                    return TaskUnresolved(_no_task_text(url, exc), unknown=is_unknown)
            except NoDocument as exc:
                failures += 1
                if failures >= _MAX_FAILURES:
                    return TaskUnresolved(f"its state cannot be read: {exc}")
            else:
                failures = 0
                if (end := self._end_of(task, url, state)) is not None:
                    return end
                unknown = unknown + 1 if state.unknown else 0
                if unknown >= max_unknown:
                    return TaskUnresolved(
                        "the provider does not know this task for this key",
                        unknown=task not in self._known,
                    )
            if waited_s >= MAX_TASK_S:
                return TaskUnresolved(f"it is not finished after {MAX_TASK_S / 60:g} minutes")
            if not await self._pause(pause_s):
                return TaskUnresolved("the run was ending")
            waited_s += pause_s
            pause_s = min(self._poll_s, pause_s * _POLL_GROWTH)

    def _end_of(self, task: str, url: str, state: TaskState) -> TaskDone | TaskFailed | None:
        """Return how a task ended; None while it is running or unknown."""
        if state.url is None and state.failed is None:
            if not state.unknown:
                self._known.add(task)
            return None
        self._known.discard(task)
        if state.failed is not None:
            return TaskFailed(state.failed)
        return TaskDone(url_in_document(state.url or "", url))

    def _url(self, task: str) -> str:
        """Return the URL of a task.

        The local endpoint, whose port changes, and ledgers of schema 2 store paths below the base
        URL.
        """
        return f"{self._base_url}{task}" if task.startswith("/") else task

    async def _poll(self, url: str) -> TaskState:
        """Return the state of a task. Raises NoDocument for any response without a state."""
        response = await self._client.fetch_document(url.partition("#")[0])
        try:
            return read_state(response.body, http_status=response.status, url=url)
        except ValueError as exc:
            text = f"HTTP {response.status}: {exc}"
            raise (_NoTask if response.status in _NO_TASK else NoDocument)(text) from None


def _no_task_text(url: str, failure: NoDocument) -> str:
    """Return that nothing is known at a polling URL, with the id that is not part of the URL."""
    place, _, task = url.partition("#")
    named = f"{unquote(task)}, polled at " if task else ""
    return f"{named}{place}: {failure}"
