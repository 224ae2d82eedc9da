"""Fingerprints: a hash of every input of an image. An equal fingerprint is not paid for twice."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final

import orjson

from batchgen.job import canonical_json

_FINGERPRINT_VERSION: Final = 1


class Fingerprints:
    """Fingerprints of jobs that differ only in their prompt."""

    __slots__ = ("_after", "_before")

    def __init__(
        self,
        provider: str,
        model: str,
        options_text: str,
        images: tuple[str, ...] = (),
        mask: str | None = None,
    ) -> None:
        before = canonical_json({"images": images, "mask": mask, "model": model})
        after = canonical_json({"provider": provider, "version": _FINGERPRINT_VERSION})
        self._before = sha256(f'{before[:-1]},"options":{options_text},"prompt":'.encode())
        self._after = f",{after[1:]}".encode()

    def of(self, prompt: str) -> str:
        """Return 128 bits of SHA-256 over the canonical JSON of all inputs, as hex digits."""
        digest = self._before.copy()  # hashing what jobs have in common again would take longer
        # orjson encodes strings exactly like `canonical_json`, ten times faster.
        digest.update(orjson.dumps(prompt) + self._after)
        return digest.hexdigest()[:32]


@lru_cache(maxsize=1024)
def fingerprints_with(
    provider: str, model: str, options_text: str, images: tuple[str, ...], mask: str | None
) -> Fingerprints:
    """Return the cached fingerprints of jobs that share reference images."""
    return Fingerprints(provider, model, options_text, images, mask)
