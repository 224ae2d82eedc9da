"""Build streams of server-sent events."""

from __future__ import annotations

import base64
import json
from typing import Any

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
TEXT = base64.b64encode(IMAGE).decode()


USAGE = {"input_tokens": 10, "output_tokens": 196, "total_tokens": 206}

COMPLETED = {"type": "image_generation.completed", "b64_json": TEXT, "usage": USAGE}
PARTIAL = {"type": "image_edit.partial_image", "b64_json": TEXT, "partial_image_index": 0}


def stream(*payloads: Any, end: str = "data: [DONE]\n\n", named: bool = True) -> bytes:
    """Return a body of events; texts are used as they are."""
    lines = []
    for payload in payloads:
        if isinstance(payload, str):
            lines.append(payload)
            continue
        name = f"event: {payload['type']}\n" if named and "type" in payload else ""
        lines.append(f"{name}data: {json.dumps(payload)}\n\n")
    return ("".join(lines) + end).encode()
