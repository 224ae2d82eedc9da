"""Request bodies with files, streamed from disk, and read again for each attempt."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import aiofiles
import pybase64

from batchgen.images.formats import USUAL_FORMATS
from batchgen.images.inspect import sniff
from batchgen.planning.reference_images import digest_of

_CHUNK_BYTES: Final = 255 * 1024
"""A multiple of three, so that base64 chunks join without padding."""

_MIME_TYPES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}


@dataclass(frozen=True, slots=True)
class FilePiece:
    """A file inside a body, as raw bytes or base64. Its size and hash are fixed on creation."""

    path: Path
    size: int
    sha256: str
    base64: bool = False

    @classmethod
    def of(cls, path: Path, *, base64: bool = False) -> FilePiece:
        """Read size and hash of a file. Raises OSError before the request costs anything."""
        with path.open("rb") as file:
            return cls(path, os.fstat(file.fileno()).st_size, digest_of(path), base64)

    @property
    def length(self) -> int:
        """The number of bytes in the body."""
        return (self.size + 2) // 3 * 4 if self.base64 else self.size

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes, from the start. Raises OSError, also if the file has changed.

        The last chunk is sent only after the whole file is verified: a request that is cut off
        before its end costs nothing.
        """
        digest, held = sha256(), b""
        async with aiofiles.open(self.path, "rb") as file:
            while chunk := await file.read(_CHUNK_BYTES):
                digest.update(chunk)
                if held:
                    yield self._encoded(held)
                held = chunk
        if digest.hexdigest() != self.sha256:
            raise OSError(f"{self.path} changed while it was sent")
        if held:
            yield self._encoded(held)

    def _encoded(self, chunk: bytes) -> bytes:
        return pybase64.b64encode(chunk) if self.base64 else chunk


@dataclass(frozen=True, slots=True)
class PiecedBody:
    """A sequence of texts and files."""

    content_type: str
    pieces: tuple[bytes | FilePiece, ...]

    @property
    def headers(self) -> Mapping[str, str]:
        """``Content-Length`` and ``Content-Type``."""
        length = sum(p.length if isinstance(p, FilePiece) else len(p) for p in self.pieces)
        return {"Content-Type": self.content_type, "Content-Length": str(length)}

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes, from the start. Raises OSError."""
        for piece in self.pieces:
            if isinstance(piece, FilePiece):
                async with aclosing(piece.stream()) as chunks:
                    async for chunk in chunks:
                        yield chunk
            else:
                yield piece


def multipart(
    boundary: str, fields: Mapping[str, Any], files: Iterable[tuple[str, Path]]
) -> PiecedBody:
    """Build a multipart/form-data body. Raises OSError for an unreadable file."""
    pieces: list[bytes | FilePiece] = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        + _as_field(value).encode()
        + b"\r\n"
        for name, value in fields.items()
    ]
    for number, (name, path) in enumerate(files, start=1):
        mime = mime_type(path)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; '
            f'filename="reference-{number}{_ending(path, mime)}"\r\n'
            f"Content-Type: {mime}\r\n\r\n"
        )
        pieces += [head.encode(), FilePiece.of(path), b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return PiecedBody(f"multipart/form-data; boundary={boundary}", tuple(pieces))


def _as_field(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _ending(path: Path, mime: str) -> str:
    # new-api derives the MIME type from the extension. The rest of the name stays private.
    suffix = path.suffix.lower()
    fits = _MIME_TYPES.get(suffix) == mime
    return suffix if fits else next(end for end, kind in _MIME_TYPES.items() if kind == mime)


def mime_type(path: Path) -> str:
    """Return the MIME type of a reference image by its first bytes, else its name, else PNG.

    Bytes come first because shops serve WebP files with a JPEG name. Raises OSError.
    """
    with path.open("rb") as file:
        found = sniff(file.read(12))
    if found in USUAL_FORMATS:
        return found.mime
    return _MIME_TYPES.get(path.suffix.lower(), "image/png")
