"""Error responses in both forms that a client meets: the gateway's and the upstream provider's."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

GATEWAY = "new_api_error"
CARRIER = "image_generation_user_error"
UPSTREAM = "upstream_error"


class ApiError(Exception):
    """A request that gets an error envelope and is never billed.

    `type` is GATEWAY if the gateway itself refuses; its messages then end with the request id, as
    in stock new-api. Any other type is an error passed on from upstream.
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
        """Return the JSON envelope."""
        message = self.message
        if self.type == GATEWAY:
            message = f"{message} (request id: {request_id})"
        error = {"message": message, "type": self.type, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})

    def task_body(self, code: str) -> bytes:
        """Return the body that the task routes send instead, under a code of their own."""
        return orjson.dumps({"code": code, "message": self.message, "data": None})


def invalid_value(param: str, message: str) -> ApiError:
    """Return the upstream error for an invalid value of one parameter."""
    return ApiError(400, message, type=CARRIER, code="invalid_value", param=param)


def no_channel(model: str) -> ApiError:
    """Return the gateway's error for a model without a channel."""
    return ApiError(
        503,
        f"No available channel for model {model[:80]} under group default (distributor)",
        code="model_not_found",
    )


def not_taken(name: str, message: str) -> ApiError:
    """Return an upstream error for a field, in a form that the gateway does not know."""
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
