"""Search a paid response of unknown shape for its image: the last resort after `find_images`.

Gateways invent field names. A charged image that is not found is lost, so here the content of a
field counts more than its place: inline images wherever they are, then URLs in fields for results.
Fields that repeat the request, or lead to pages and tasks, are skipped. Nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

import orjson

from batchgen.outcomes.exchange import Task
from batchgen.providers.adapters.find_images import MAX_IMAGES, Found, image_in_text
from batchgen.providers.adapters.task_states import DONE, lacks_result, task_and_status

_MAX_DEPTH: Final = 8
_MAX_VALUES: Final = 20_000
_MAX_NAME_CHARS: Final = 64
_NOT_RESULT: Final = re.compile(
    r"input|request|prompt|param|option|config|mask|init|source|origin|reference|thumb|"
    r"preview|partial|avatar|icon|logo|poll|status|cancel|log|hook|callback|doc|help|support|error|"
    r"warning|user|author|site|home|template|example|thought|get$|web$|self$|stream$|next$|prev"
)
"""Fields that are not results, by a part of their name in lower case."""
_RESULT: Final = re.compile(r"im(?:a)?ge?s?|pic|photo|output|result|artifact|sample|media|asset")
_LINK: Final = re.compile(r"ur[il]|link|href|src|file|download|body")
_IMAGE_FILE: Final = re.compile(r"[^?#]+\.(?:png|jpe?g|webp|gif|avif)(?:[?#].*)?", re.I | re.DOTALL)


def search_images(document: object, task: Task | None) -> list[Found]:
    """Return the images of a response without an error, at most `MAX_IMAGES`.

    ``task`` is the task that the response names, if any.
    """
    inline: list[str] = []
    files: list[str] = []
    others: list[str] = []
    paths: list[str] = []
    for names, text in islice(_texts(document, ()), _MAX_VALUES):
        base64, url = image_in_text(text) or (None, None)
        if base64 is not None:
            inline.append(base64)
        elif url is not None and names:
            if "//" not in url[:8]:
                paths.append(url)
            elif _IMAGE_FILE.fullmatch(url):
                files.append(url)
            elif _may_be_result(names, task):
                others.append(url)
    if inline:
        return [Found(index, base64=text) for index, text in enumerate(inline[:MAX_IMAGES])]
    if _is_running(document, task):
        return []
    urls = [
        url for url in dict.fromkeys((*files, *others, *paths)) if task is None or url != task.url
    ]
    return [Found(index, url=url) for index, url in enumerate(urls[:MAX_IMAGES])]


def _is_running(document: object, task: Task | None) -> bool:
    """Return whether URLs in a response may only lead to a task that is not done."""
    if not isinstance(document, dict):
        return False
    _, status = task_and_status(document)
    if lacks_result(document) or lacks_result({"status": status}):
        return True
    return task is not None and task.is_named and status not in DONE


def _may_be_result(names: tuple[str, ...], task: Task | None) -> bool:
    """Return whether a field may have the URL of a result.

    Next to an id, a field called ``url`` may lead to a task.
    """
    if any(_RESULT.search(name) for name in names):
        return True
    return task is None and _LINK.search(names[-1]) is not None


def _texts(value: object, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the texts that may be results, each with the names of the fields around it."""
    if len(names) > _MAX_DEPTH:
        return
    if isinstance(value, str):
        document = _document_in(value)
        if document is None:
            yield names, value
        else:
            yield from _texts(document, (*names, "body"))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, (*names, names[-1]) if names else ("data",))
    elif isinstance(value, dict):
        yield from _fields(value, names)


def _fields(
    holder: Mapping[str, Any], names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str]]:
    kind = holder.get("type")
    if (isinstance(kind, str) and kind.startswith("input")) or holder.get("thought"):
        return
    is_unfinished = lacks_result(holder)
    for name, value in holder.items():
        lower = name[:_MAX_NAME_CHARS].lower()
        if _NOT_RESULT.search(lower) is None:
            for found, text in _texts(value, (*names, lower)):
                yield () if is_unfinished else found, text


def _document_in(text: str) -> object:
    """Return the JSON document that a text is; None for any other text."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return orjson.loads(text)
    except ValueError:
        return None
