"""The facts about one attempt that the classification rules look at. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from batchgen.outcomes.error_meanings import HTTP_NAMES, kind_of_name, says
from batchgen.outcomes.error_row import Kind
from batchgen.outcomes.exchange import ErrorBody, Exchange, Failure, Reach, Response

_FEE_PREFIX: Final = "violation_fee."
"""new-api charges a fee for such a refusal (https://github.com/QuantumNous/new-api,
``service/violation_fee.go``)."""
_OWN_ERRORS: Final = frozenset({500, 502, 503, 529})
"""An endpoint sends these for a request that it did not run."""
_UNNAMED: Final = frozenset({"", "error", "null", "none"})

_ENDINGS: Final = {
    Failure.CONNECT: ("unreachable", "no connection"),
    Failure.TLS: ("tls", "the TLS handshake or the check of the endpoint's certificate failed"),
    Failure.DEADLINE: ("deadline", "no complete response within the deadline"),
    Failure.NETWORK: ("connection_lost", "the connection broke"),
    Failure.TOO_LARGE: ("too_large", "the response is larger than the limit"),
    Failure.INTERRUPTED: ("interrupted", "batchgen was stopped while the request was in flight"),
    Failure.NONE: ("incomplete", "the response is incomplete"),
}
"""Code and text for an exchange that was not completed."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """The facts about an attempt that the rules look at."""

    exchange: Exchange
    response: Response
    prompt: str = ""

    @property
    def reach(self) -> Reach:
        """How far the exchange got."""
        return self.exchange.reach

    @property
    def status(self) -> int:
        """The HTTP status; 0 without a response."""
        return self.exchange.status or 0

    @cached_property
    def error(self) -> ErrorBody | None:
        """The error in the response.

        Under an error status a plain text is one, too; without an image also one that says why.
        """
        response, text = self.response, self.response.text
        if response.error is not None or response.html or not text:
            return response.error
        is_error = self.status >= 400 or (not response.images and self._says_why(text))
        return ErrorBody(message=text, envelope=False) if is_error else None

    @property
    def is_only_text(self) -> bool:
        """Whether the error is only a text of a success."""
        return self.error is not None and self.response.error is None and self.status < 300

    def _says_why(self, text: str) -> bool:
        """Return whether the text of a success without an image speaks of money or safety."""
        return any(says(kind, text, prompt=self.prompt) for kind in (Kind.MONEY, Kind.BLOCKED))

    @cached_property
    def code(self) -> str:
        """The code for reports: the error's code or type, otherwise ``http_429``."""
        return self._shown_name or f"http_{self.status}"

    @cached_property
    def _shown_name(self) -> str:
        names = [name for name in (self.error.code, self.error.type) if name] if self.error else []
        # LiteLLM and Google repeat the status as the code; the type is more specific.
        specific = [name for name in names if not (name.isdecimal() and len(name) == 3)] or names
        return specific[0] if specific else ""

    @property
    def text(self) -> str:
        """The text for people: the error's message, otherwise its name or ``HTTP 429``."""
        message = self.error.message if self.error else ""
        return message or self._shown_name or f"HTTP {self.status}{self.quoted}"

    @property
    def quoted(self) -> str:
        """The title of a page or the text of a body without an error; empty without one."""
        return f": {self.response.text}" if self.response.text else ""

    @property
    def own(self) -> bool:
        """Whether the endpoint itself reports the error, not a proxy."""
        return self.error is not None and self.error.envelope

    @property
    def names_count(self) -> bool:
        """Whether codes and types are trusted: not from a server that may have run the request."""
        return self.status < 500 or self.own

    @property
    def words_count(self) -> bool:
        """Whether phrases in the message are trusted as well."""
        return self.status < 500 or (self.own and self.status in _OWN_ERRORS)

    @property
    def has_wait(self) -> bool:
        """Whether the response has a ``Retry-After`` header."""
        return "retry-after" in (self.exchange.headers or {})

    @cached_property
    def known(self) -> tuple[str, Kind | None]:
        """The first code or type with a known meaning, and that meaning."""
        for name in self.error.all_names() if self.error else ():
            kind = kind_of_name(name)
            if kind is None and self.status < 300:
                kind = HTTP_NAMES.get(name)
            if kind is not None:
                return name, kind
        return "", None

    @property
    def fee(self) -> str:
        """The code of a fee for a refused request; empty without one."""
        names = self.error.all_names() if self.error else ()
        return next((name for name in names if name.startswith(_FEE_PREFIX)), "")

    def says(self, kind: Kind) -> bool:
        """Whether the message contains a phrase of this kind that the prompt does not contain."""
        return self.error is not None and says(kind, self.error.message, prompt=self.prompt)

    def fields(self) -> dict[str, object]:
        """Return the values for the templates of a rule."""
        exchange = self.exchange
        ending_code, ending = _ENDINGS[exchange.failure]
        size, task = exchange.upload_bytes, self.response.task
        return {
            "status": self.status,
            "code": self.code,
            "inner_code": self.code if self._shown_name else "error_in_success",
            "name": self.known[0],
            "fee": self.fee,
            "ending_code": ending_code,
            "ending": f"{ending}: {exchange.detail}" if exchange.detail else ending,
            "size": f"{size:,} bytes" if size else "the request",
            "location": (exchange.headers or {}).get("location", "another URL"),
            "task": task.id if task else "",
            "task_url": f"; poll it at {task.url}" if task and task.url else "",
            "quoted": self.quoted,
        }


@dataclass(frozen=True, kw_only=True)
class TaskCase(Case):
    """The facts about an accepted task that failed."""

    @cached_property
    def code(self) -> str:
        """The code or type of the error; ``task_failed`` if it says nothing."""
        name = (self.error.code or self.error.type) if self.error else ""
        return "task_failed" if name.lower() in _UNNAMED else name

    @property
    def text(self) -> str:
        """The error's message."""
        return self.error.message if self.error else ""
