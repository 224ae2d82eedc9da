"""Where providers put the state of a task, and the words they use for it.

Creation, polling, images and errors read the same places. Otherwise one response could be a running
task to one reader and a finished image to another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_INNER: Final = ("data", "output", "result")
_OUTER: Final = ("response", "task")
"""Some providers repeat the request or the finished response here: the document itself wins."""
_STATUSES: Final = ("task_status", "taskStatus", "status", "state")
"""``status`` next to the first two may be that of the HTTP response."""

RUNNING: Final = frozenset(
    {
        *("queued", "pending", "processing", "running", "in_progress", "in_queue", "starting"),
        *("submitted", "created", "waiting", "generating", "not_start", "accepted", "in progress"),
    }
)
DONE: Final = frozenset(
    {"success", "succeeded", "succeed", "completed", "complete", "ready", "finished", "done"}
)
MODERATED: Final = frozenset({"request moderated", "content moderated"})
"""Black Forest Labs: https://docs.bfl.ai/api_integration/errors"""
FAILED: Final = frozenset(
    {
        *("failed", "fail", "failure", "error", "cancelled", "canceled", "expired"),
        *("rejected", "moderated", *MODERATED),
    }
)


def holders(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of a document that may describe its task, the most likely first.

    A list with a single object counts as that object.
    """
    yield from _parts(document, _INNER)
    yield document
    yield from _parts(document, _OUTER)


def status_of(holder: Mapping[str, Any]) -> str:
    """Return the status in a part of a document, in lower case; empty without one.

    A word wins over a number, which may be an HTTP status.
    """
    number = ""
    for name in _STATUSES:
        value = holder.get(name)
        if value is None:
            continue
        if isinstance(value, str) and (word := value.strip().lower()):
            if not word.isdecimal():
                return word
            number = number or word
        elif isinstance(value, int) and not isinstance(value, bool):
            number = number or str(value)
    return number


def task_and_status(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return the part of a document that describes the task, and its status in lower case.

    The status is empty if no part has one.
    """
    for holder in holders(document):
        if status := status_of(holder):
            return holder, status
    return document, ""


def lacks_result(holder: Mapping[str, Any]) -> bool:
    """Return whether the status says that URLs next to it are at best those of the request."""
    status = status_of(holder)
    return status in RUNNING or status in FAILED or holder.get("success") is False


def _parts(document: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    for name in names:
        part = document.get(name)
        if isinstance(part, list) and len(part) == 1:
            part = part[0]
        if isinstance(part, dict):
            yield part
