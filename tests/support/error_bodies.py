"""Provide error bodies of providers."""

from __future__ import annotations


def with_error(message: str, code: object = None, kind: str = "", **more: object) -> object:
    return {"error": {"message": message, "code": code, "type": kind, **more}}


OPENAI_QUOTA = "You exceeded your current quota, please check your plan and billing details."
XAI = (
    "Your team 0000 has either used all available credits or reached its monthly spending limit. To"
    " continue making API requests, please purchase more credits or raise your spending limit."
)
