"""Request bodies that hold files: streamed from disk, and made anew for each attempt."""

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

from batchgen.images.inspect import sniff
from batchgen.planning.reference_images import digest_of

_CHUNK_BYTES: Final = 255 * 1024
"""A multiple of three, so that pieces of base64 join without padding."""

_MIME_TYPES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}


@dataclass(frozen=True, slots=True)
class FilePiece:
    """A file in the place where it belongs, as it is or as base64; its content is fixed here."""

    path: Path
    size: int
    sha256: str
    base64: bool = False

    @classmethod
    def of(cls, path: Path, *, base64: bool = False) -> FilePiece:
        """Look at a file. Raises OSError where it can't be opened, as that costs nothing yet."""
        with path.open("rb") as file:
            return cls(path, os.fstat(file.fileno()).st_size, digest_of(path), base64)

    @property
    def length(self) -> int:
        """Bytes on the wire."""
        return (self.size + 2) // 3 * 4 if self.base64 else self.size

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The bytes, from the start. Raises OSError, also if they are not those of before.

        The end is held back until all of it is read: a request that is cut off there is free.
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
    """Texts and files, one behind the other."""

    content_type: str
    pieces: tuple[bytes | FilePiece, ...]

    @property
    def headers(self) -> Mapping[str, str]:
        """Length and type."""
        length = sum(p.length if isinstance(p, FilePiece) else len(p) for p in self.pieces)
        return {"Content-Type": self.content_type, "Content-Length": str(length)}

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The bytes, from the start. Raises OSError."""
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
    """Text fields and files as multipart/form-data. Raises OSError for a file."""
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
    # The gateway takes the MIME type from the name's ending, and the rest of the name is nobody's.
    suffix = path.suffix.lower()
    fits = _MIME_TYPES.get(suffix) == mime
    return suffix if fits else next(end for end, kind in _MIME_TYPES.items() if kind == mime)


def mime_type(path: Path) -> str:
    """The type of a reference image, by its first bytes, else by its name, else PNG.

    Shops serve WebP under the name of a JPEG. Raises OSError.
    """
    with path.open("rb") as file:
        found = sniff(file.read(12))
    return found.mime if found else _MIME_TYPES.get(path.suffix.lower(), "image/png")
