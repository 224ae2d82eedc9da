"""API keys, and accounts at a provider."""

from __future__ import annotations

from dataclasses import dataclass


class ApiKey:
    """A secret that shows itself to nobody: not in a repr, a log, a traceback or a row."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key, for the Authorization header and nothing else."""
        return self._value

    def __repr__(self) -> str:
        return "ApiKey(***)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account at a provider, for what it alone may see."""

    token: ApiKey
    user: str
    """Its number."""
