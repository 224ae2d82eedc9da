"""What determines a picture, as one hash: a job whose hash is the same is not bought again."""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import sha256
from typing import Final

from batchgen.job import canonical_json

_FINGERPRINT_VERSION: Final = 1


def fingerprint(
    provider: str,
    model: str,
    prompt: str,
    options_text: str,
    images: tuple[str, ...],
    mask: str | None,
) -> str:
    """128 bits of SHA-256 over the canonical JSON of all that determines the picture."""
    head, tail = _around_the_prompt(provider, model, options_text, images, mask)
    return sha256(f"{head}{_quoted(prompt)}{tail}".encode()).hexdigest()[:32]


_quoted: Final = json.JSONEncoder(ensure_ascii=False).encode
"""As `canonical_json`, without making an encoder for each prompt of a million."""


@lru_cache(maxsize=1024)
def _around_the_prompt(
    provider: str, model: str, options_text: str, images: tuple[str, ...], mask: str | None
) -> tuple[str, str]:
    """The canonical JSON up to the prompt and after it; from job to job it hardly changes."""
    before = {"images": images, "mask": mask, "model": model}
    after = {"provider": provider, "version": _FINGERPRINT_VERSION}
    head = f'{canonical_json(before)[:-1]},"options":{options_text},"prompt":'
    return head, f",{canonical_json(after)[1:]}"
