"""Reading the fields of a request one by one, as the gateway and its carriers judge them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from batchgen.simulator.errors import ApiError, Blocked, invalid_value

T = TypeVar("T")


def prompt_of(fields: Mapping[str, object], most: int | None = None) -> str:
    """The prompt, of at most so many characters. Raises ApiError."""
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


def web_addresses(fields: Mapping[str, object], name: str, *, most: int) -> tuple[str, ...]:
    """One URL of an image or a list of them. Raises ApiError.

    They are not fetched: this endpoint calls nobody.
    """
    given = fields.get(name)
    addresses = given if isinstance(given, list) else [given] if given else []
    if len(addresses) > most:
        raise invalid_value(name, f"{len(addresses)} images; at most {most} are allowed.")
    return tuple(_web_address(address, name) for address in addresses)


def _web_address(address: object, name: str) -> str:
    refused = invalid_value(name, f"{name} takes public URLs of images only.")
    if not isinstance(address, str):
        raise refused
    try:
        parts = urlsplit(address)
    except ValueError:
        raise refused from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise refused
    return address


def missing(name: str) -> ApiError:
    """The refusal of a request that lacks a field."""
    return ApiError(
        400,
        f"Missing required parameter: '{name}'.",
        type="invalid_request_error",
        code="missing_required_parameter",
        param=name,
    )


def field(fields: Mapping[str, object], name: str, kind: type[T]) -> T | None:
    """The field's value; None when absent, null or empty, as the gateway's structs drop those.

    Raises ApiError.
    """
    value = fields.get(name)
    if value is None or value == "":
        return None
    if type(value) is not kind:  # exact, because a bool is an int to isinstance
        raise ApiError(
            400,
            f"Invalid type for '{name}': expected {kind.__name__}, got {type(value).__name__}.",
            type="invalid_request_error",
            code="invalid_type",
            param=name,
        )
    return value


def choice(fields: Mapping[str, object], name: str, allowed: tuple[str, ...]) -> str | None:
    """One of the allowed words, or None when absent. Raises ApiError."""
    value = field(fields, name, str)
    if value is not None and value not in allowed:
        raise invalid_value(
            name, f"Invalid value '{value[:40]}' for {name}. Supported: {', '.join(allowed)}."
        )
    return value


def number(fields: Mapping[str, object], name: str, least: int, most: int) -> int | None:
    """A whole number in the range, or None when absent. Raises ApiError."""
    value = field(fields, name, int)
    if value is not None and not least <= value <= most:
        raise invalid_value(name, f"Invalid value {value} for {name}: {least} to {most} allowed.")
    return value
