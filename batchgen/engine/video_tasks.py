"""Waits for videos that a provider makes as tasks: asking is free, and only ever repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from batchgen.http.client import ApiClient, NoDocument
from batchgen.outcomes.classify import ErrorBody
from batchgen.providers.adapters.video import TaskState, read_state

POLL_S: Final = 10.0
"""What the provider asks for (Crazyrouter sheet, section 11.3)."""
MAX_TASK_S: Final = 1800.0
"""Most take one to five minutes. One that takes longer is asked for again by the next run."""
_MAX_FAILURES: Final = 8
"""Questions in a row that bring nothing."""
_UNKNOWN_TRIES: Final = 4
"""A task that was accepted a moment ago may not be known everywhere yet. What is not known after
these is left to the next run."""


@dataclass(frozen=True, slots=True)
class TaskMade:
    """The file is there, at this address."""

    url: str


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The provider gave the task up."""

    error: ErrorBody


@dataclass(frozen=True, slots=True)
class TaskLater:
    """Nothing more is to be learned of the task in this run."""

    reason: str
    unknown: bool = False
    """Whether the provider says that there is no such task."""


TaskEnd = TaskMade | TaskFailed | TaskLater


class TaskWatch:
    """Asks for tasks of one endpoint.

    ``pause`` sleeps for so many seconds and says whether the run goes on.
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

    async def until_over(self, task: str) -> TaskEnd:
        """Ask until the task is made or has failed, or until asking is of no use for now."""
        url = self._url(task)
        if not _same_origin(url, self._base_url):
            return TaskLater(
                f"it was made at {_origin(url)}, and base_url is {_origin(self._base_url)} now;"
                " set base_url back and resume: no other host gets the key"
            )
        waited_s, failures, unknown = 0.0, 0, 0
        while True:
            try:
                state = await self._ask(url)
            except NoDocument as exc:
                failures += 1
                if failures >= _MAX_FAILURES:
                    return TaskLater(f"its state can't be read: {exc}")
            else:
                failures = 0
                if state.url is not None:
                    return TaskMade(state.url)
                if state.failed is not None:
                    return TaskFailed(state.failed)
                unknown += state.unknown
                if unknown >= _UNKNOWN_TRIES:
                    return TaskLater("the provider knows no such task for this key", unknown=True)
            if waited_s >= MAX_TASK_S:
                return TaskLater(f"it is not made after {MAX_TASK_S / 60:g} minutes")
            if not await self._pause(self._poll_s):
                return TaskLater("the run was ending")
            waited_s += self._poll_s

    def _url(self, task: str) -> str:
        """Return where to ask.

        The embedded endpoint, whose port changes, and ledgers of schema 2 have paths below the
        base URL.
        """
        return f"{self._base_url}{task}" if task.startswith("/") else task

    async def _ask(self, url: str) -> TaskState:
        """Raises NoDocument for whatever does not tell the task's state."""
        response = await self._client.fetch_document(url)
        try:
            return read_state(response.body)
        except ValueError as exc:
            raise NoDocument(f"HTTP {response.status}: {exc}") from None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _same_origin(one: str, other: str) -> bool:
    return _origin(one).lower() == _origin(other).lower()
