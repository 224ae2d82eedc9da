"""Error answers in the two forms a client meets: the gateway's own and the carrier's behind it."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

GATEWAY = "new_api_error"
CARRIER = "image_generation_user_error"
UPSTREAM = "upstream_error"


class ApiError(Exception):
    """A request that is answered with an error envelope and never billed.

    `type` is GATEWAY when the gateway itself refuses; its messages then end with the request id,
    as stock new-api writes them. Anything else is a carrier's error passed on.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = GATEWAY,
        code: str = "",
        param: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> bytes:
        """The JSON envelope to send."""
        message = self.message
        if self.type == GATEWAY:
            message = f"{message} (request id: {request_id})"
        error = {"message": message, "type": self.type, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})

    def task_body(self, code: str) -> bytes:
        """What the routes of tasks send instead, under a code of their own."""
        return orjson.dumps({"code": code, "message": self.message, "data": None})


def invalid_value(param: str, message: str) -> ApiError:
    """The carrier's refusal of one parameter's value."""
    return ApiError(400, message, type=CARRIER, code="invalid_value", param=param)


def no_channel(model: str) -> ApiError:
    """The gateway's refusal of a model that nobody carries."""
    return ApiError(
        503,
        f"No available channel for model {model[:80]} under group default (distributor)",
        code="model_not_found",
    )


def not_taken(name: str, message: str) -> ApiError:
    """A carrier's refusal of a field, when its error has a form that the gateway does not know."""
    return ApiError(400, message, type=UPSTREAM, code="unknown_error", param=name)


class Blocked(ApiError):
    """The safety system's refusal of a prompt."""

    def __init__(self) -> None:
        super().__init__(
            400,
            "Your request was rejected by the safety system.",
            type=CARRIER,
            code="moderation_blocked",
        )
