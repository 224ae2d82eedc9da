"""The endpoint's behavior, and the seeded chance of its faults."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from types import MappingProxyType


class Fault(StrEnum):
    """What can go wrong with a request; the value is the name of its option."""

    REFUSE = "refuse"
    THROTTLE = "throttle"
    OVERLOAD = "overload"
    HTML = "html"
    ERROR = "error"
    BREAK = "break"
    BILL_ERROR = "bill-error"
    BILL_DROP = "bill-drop"
    BILL_GATEWAY_TIMEOUT = "bill-gateway-timeout"
    BILL_EMPTY = "bill-empty"
    BILL_TRUNCATED = "bill-truncated"
    STREAM_IGNORE = "stream-ignore"
    STREAM_ERROR = "stream-error"
    BILL_STREAM_ERROR = "bill-stream-error"
    BILL_STREAM_CUT = "bill-stream-cut"
    BLOCK = "block"
    TASK_FAIL = "task-fail"
    BILL_TASK_FAIL = "bill-task-fail"
    DOWNLOAD_FORBID = "download-forbid"
    DOWNLOAD_MISS = "download-miss"
    DOWNLOAD_GONE = "download-gone"
    DOWNLOAD_HTML = "download-html"
    DOWNLOAD_EMPTY = "download-empty"
    DOWNLOAD_ERROR = "download-error"
    DOWNLOAD_TRUNCATE = "download-truncate"
    PLAN_LIMIT = "plan-limit"
    BILL_NO_DATA = "bill-no-data"
    BILL_UNREAD = "bill-unread"
    BILL_PAGE = "bill-page"
    BILL_INSIDE = "bill-inside"
    BILL_TASK = "bill-task"
    DOWNLOAD_STALL = "download-stall"


DOWNLOAD_FAULTS = tuple(fault for fault in Fault if fault.startswith("download-"))
TASK_FAULTS = (Fault.TASK_FAIL, Fault.BILL_TASK_FAIL)
POST_FAULTS = tuple(fault for fault in Fault if fault not in DOWNLOAD_FAULTS + TASK_FAULTS)
STREAM_FAULTS = (
    Fault.STREAM_IGNORE,
    Fault.STREAM_ERROR,
    Fault.BILL_STREAM_ERROR,
    Fault.BILL_STREAM_CUT,
)
"""Faults that only a streamed request can have; other requests with them succeed."""

FAULT_HELP: Mapping[Fault, str] = MappingProxyType(
    {
        Fault.REFUSE: "400 at once, permanent; not billed",
        Fault.THROTTLE: "429 with an empty body; not billed",
        Fault.OVERLOAD: "503 in the gateway's envelope; not billed",
        Fault.HTML: "200 with an HTML page; not billed",
        Fault.ERROR: "500 do_request_failed after the latency; not billed",
        Fault.BREAK: "connection closed or reset after the latency; not billed",
        Fault.BILL_ERROR: "500 in no known envelope; billed",
        Fault.BILL_DROP: "connection closed or reset instead of the response; billed",
        Fault.BILL_GATEWAY_TIMEOUT: "504 with an HTML page; billed",
        Fault.BILL_EMPTY: "200 without an image; billed",
        Fault.BILL_TRUNCATED: "200 with half an image; billed",
        Fault.STREAM_IGNORE: "an ordinary response instead of the requested stream; billed",
        Fault.STREAM_ERROR: "an error event after the partial images; not billed",
        Fault.BILL_STREAM_ERROR: "an error event after the partial images; billed",
        Fault.BILL_STREAM_CUT: "connection closed or reset after the partial images; billed",
        Fault.BLOCK: "the prompt is refused by the safety system; not billed",
        Fault.TASK_FAIL: "an accepted task fails; refunded",
        Fault.BILL_TASK_FAIL: "an accepted task fails; billed anyway",
        Fault.DOWNLOAD_FORBID: "a result file returns 403",
        Fault.DOWNLOAD_MISS: "a result file returns 404",
        Fault.DOWNLOAD_GONE: "a result file returns 410",
        Fault.DOWNLOAD_HTML: "a result file returns 200 with an HTML page",
        Fault.DOWNLOAD_EMPTY: "a result file returns 200 with an empty body",
        Fault.DOWNLOAD_ERROR: "a result file returns 503",
        Fault.DOWNLOAD_TRUNCATE: "half of a result file, then the connection closes",
        Fault.PLAN_LIMIT: "400 for an exhausted plan, in unknown words; not billed",
        Fault.BILL_NO_DATA: "200 without the list of images; billed",
        Fault.BILL_UNREAD: "200 with its images under an unknown key; billed",
        Fault.BILL_PAGE: "200 with an HTML page; billed",
        Fault.BILL_INSIDE: "200 with an error inside; billed",
        Fault.BILL_TASK: "202 with a task that no route knows; billed",
        Fault.DOWNLOAD_STALL: "half of a result file, then nothing",
    }
)


class Response(StrEnum):
    """Form of the images in a response."""

    URL = "url"
    B64_JSON = "b64_json"
    MIXED = "mixed"


class GeminiResponse(StrEnum):
    """Form of native Gemini's images: inline data, or a Markdown link in a text."""

    INLINE = "inline"
    DATA_URI = "data-uri"
    URL = "url"


class TaskResponse(StrEnum):
    """Which of the two documented forms the responses about tasks have."""

    NEW = "new"
    OLD = "old"


class BillAt(StrEnum):
    """When the charge is made: after the request is read, or after the images exist."""

    BODY = "body"
    WORK = "work"


class Idempotency(StrEnum):
    """Whether a repeated Idempotency-Key replays the billed response; the provider has none."""

    NONE = "none"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """All settings of the endpoint that can change while it runs. Times are in seconds.

    `rate` is requests per minute and `url_ttl` how long a result file is served; 0 is unlimited.
    `download_faults` is the number of downloads, from the first, that may have a fault; 0 is
    unlimited. A stream pings when it opens and then every `ping_interval`. The first `fault_after`
    requests, tasks and downloads have no fault. `rates` gives each fault its share of requests, 0
    to 1. Raises ValueError for a value out of range.
    """

    latency: float = 0.0
    latency_jitter: float = 0.0
    response: Response = Response.URL
    gemini_response: GeminiResponse = GeminiResponse.INLINE
    task_response: TaskResponse = TaskResponse.NEW
    task_latency: float = 0.0
    rate: float = 0.0
    burst: int = 10
    retry_after: bool = False
    url_ttl: float = 0.0
    download_faults: int = 0
    ping_interval: float = 1.0
    bill_at: BillAt = BillAt.WORK
    idempotency: Idempotency = Idempotency.NONE
    fast_images: bool = False
    seed: int = 0
    fault_after: int = 0
    rates: Mapping[Fault, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("latency", "latency_jitter", "task_latency", "rate", "url_ttl"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{_switch(name)} must be 0 or more, not {value}")
        if not (math.isfinite(self.ping_interval) and self.ping_interval > 0):
            raise ValueError(f"ping-interval must be more than 0, not {self.ping_interval}")
        if self.download_faults < 0:
            raise ValueError(f"download-faults must be 0 or more, not {self.download_faults}")
        if self.burst < 1:
            raise ValueError(f"burst must be 1 or more, not {self.burst}")
        for fault, rate in self.rates.items():
            if not 0 <= rate <= 1:
                raise ValueError(f"{fault} must be from 0 to 1, not {rate}")
        for group in (POST_FAULTS, TASK_FAULTS, DOWNLOAD_FAULTS):
            if sum(self.rates.get(fault, 0.0) for fault in group) > 1 + 1e-9:
                raise ValueError(f"the rates of {', '.join(group)} add up to more than 1")

    def changed(self, document: Mapping[str, object]) -> Behavior:
        """Return the behavior with the changes of `document`, whose names are those of the options.

        Faults that it does not name stop; other options that it does not name keep their values.
        Raises ValueError for an unknown name or a value of the wrong type or range.
        """
        faults = set(Fault)
        rates: dict[Fault, float] = {}
        changes: dict[str, object] = {}
        defaults = {item.name: item.default for item in fields(self) if item.name != "rates"}
        for given, value in document.items():
            name = given.replace("_", "-")
            if name in faults:
                rates[Fault(name)] = _as_float(name, value)
            elif name.replace("-", "_") in defaults:
                name = name.replace("-", "_")
                changes[name] = _like(defaults[name], name, value)
            else:
                raise ValueError(f"unknown option {given!r}")
        return replace(self, rates=rates, **changes)  # type: ignore[arg-type]  # checked by _like

    def document(self) -> dict[str, object]:
        """Return all settings under the names of the options; the inverse of `changed`."""
        plain = {_switch(f.name): getattr(self, f.name) for f in fields(self) if f.name != "rates"}
        return plain | {fault.value: self.rates.get(fault, 0.0) for fault in Fault}

    def post_fault(self, number: int, *, streamed: bool = False) -> Fault | None:
        """Return the fault of the POST with this number, or None."""
        fault = self._fault("post", number, POST_FAULTS)
        return None if fault in STREAM_FAULTS and not streamed else fault

    def task_fault(self, number: int) -> Fault | None:
        """Return the fault of the task created by the POST with this number, or None."""
        return self._fault("task", number, TASK_FAULTS)

    def download_fault(self, number: int) -> Fault | None:
        """Return the fault of the download with this number, or None."""
        if self.download_faults and number > self.download_faults:
            return None
        return self._fault("download", number, DOWNLOAD_FAULTS)

    def chance(self, what: str, number: int) -> float:
        """Return a number in [0, 1) that depends only on seed, purpose and number."""
        text = f"{self.seed}/{what}/{number}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest()) / 2**48

    def _fault(self, what: str, number: int, faults: tuple[Fault, ...]) -> Fault | None:
        if number <= self.fault_after:
            return None
        drawn = self.chance(what, number)
        for fault in faults:
            drawn -= self.rates.get(fault, 0.0)
            if drawn < 0:
                return fault
        return None


def _switch(name: str) -> str:
    return name.replace("_", "-")


def _like(default: object, name: str, value: object) -> object:
    if isinstance(default, StrEnum):
        return type(default)(str(value))
    if isinstance(default, float):
        return _as_float(name, value)
    if type(value) is not type(default):
        raise ValueError(f"{_switch(name)} must be {type(default).__name__}, not {value!r}")
    return value


def _as_float(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_switch(name)} must be a number, not {value!r}")
    return float(value)
