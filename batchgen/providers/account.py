"""API keys and accounts at a provider."""

from __future__ import annotations

from dataclasses import dataclass


class ApiKey:
    """A secret that no repr, log, traceback or database row shows."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the key, for the Authorization header only."""
        return self._value

    def __repr__(self) -> str:
        return "ApiKey(***)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account at a provider, which its own pages require."""

    token: ApiKey
    user: str
    """The account's number."""
