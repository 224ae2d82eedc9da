"""Read the fields of a request one by one, as the gateway and its upstream providers check them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from batchgen.simulator.errors import ApiError, Blocked, invalid_value

T = TypeVar("T")


def prompt_of(fields: Mapping[str, object], most: int | None = None) -> str:
    """Return the prompt, which may have at most this many characters. Raises ApiError."""
    prompt = field(fields, "prompt", str)
    if not prompt:
        raise missing("prompt")
    if most is not None and len(prompt) > most:
        raise invalid_value(
            "prompt", f"The prompt is longer than {most} characters ({len(prompt)})."
        )
    return prompt


def check_allowed(prompt: str, block_word: str) -> None:
    """Raise Blocked for a prompt that the safety system refuses."""
    if block_word and block_word.lower() in prompt.lower():
        raise Blocked


def image_urls(fields: Mapping[str, object], name: str, *, most: int) -> tuple[str, ...]:
    """Return the URL or list of URLs of images. Raises ApiError.

    They are not fetched: this endpoint sends no requests.
    """
    given = fields.get(name)
    urls = given if isinstance(given, list) else [given] if given else []
    if len(urls) > most:
        raise invalid_value(name, f"{len(urls)} images; at most {most} are allowed.")
    return tuple(_image_url(url, name) for url in urls)


def _image_url(url: object, name: str) -> str:
    refused = invalid_value(name, f"{name} takes public URLs of images only.")
    if not isinstance(url, str):
        raise refused
    try:
        parts = urlsplit(url)
    except ValueError:
        raise refused from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise refused
    return url


def missing(name: str) -> ApiError:
    """Return the error for a request that lacks a field."""
    return ApiError(
        400,
        f"Missing required parameter: '{name}'.",
        type="invalid_request_error",
        code="missing_required_parameter",
        param=name,
    )


def field(fields: Mapping[str, object], name: str, kind: type[T]) -> T | None:
    """Return the field's value; None if absent, null or empty, since the gateway's structs drop
    those.

    Raises ApiError.
    """
    value = fields.get(name)
    if value is None or value == "":
        return None
    if type(value) is not kind:  # exact type, because a bool is an int to isinstance
        raise ApiError(
            400,
            f"Invalid type for '{name}': expected {kind.__name__}, got {type(value).__name__}.",
            type="invalid_request_error",
            code="invalid_type",
            param=name,
        )
    return value


def choice(fields: Mapping[str, object], name: str, allowed: tuple[str, ...]) -> str | None:
    """Return one of the allowed words, or None if absent. Raises ApiError."""
    value = field(fields, name, str)
    if value is not None and value not in allowed:
        raise invalid_value(
            name, f"Invalid value '{value[:40]}' for {name}. Supported: {', '.join(allowed)}."
        )
    return value


def number(fields: Mapping[str, object], name: str, least: int, most: int) -> int | None:
    """Return a whole number in the range, or None if absent. Raises ApiError."""
    value = field(fields, name, int)
    if value is not None and not least <= value <= most:
        raise invalid_value(name, f"Invalid value {value} for {name}: {least} to {most} allowed.")
    return value
