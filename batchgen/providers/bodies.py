"""Request bodies that hold files: streamed from disk, and made anew for each attempt."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiofiles
import pybase64

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
    """A file in the place where it belongs, as it is or as base64; its size is fixed here."""

    path: Path
    size: int
    base64: bool = False

    @classmethod
    def of(cls, path: Path, *, base64: bool = False) -> FilePiece:
        """Look at a file. Raises OSError where it can't be opened, as that costs nothing yet."""
        with path.open("rb") as file:
            return cls(path, os.fstat(file.fileno()).st_size, base64)

    @property
    def length(self) -> int:
        """Bytes on the wire."""
        return (self.size + 2) // 3 * 4 if self.base64 else self.size

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The bytes, from the start. Raises OSError."""
        async with aiofiles.open(self.path, "rb") as file:
            while chunk := await file.read(_CHUNK_BYTES):
                yield pybase64.b64encode(chunk) if self.base64 else chunk


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
                async for chunk in piece.stream():
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
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; '
            f'filename="{_file_name(path, number)}"\r\n'
            f"Content-Type: {mime_type(path)}\r\n\r\n"
        )
        pieces += [head.encode(), FilePiece.of(path), b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return PiecedBody(f"multipart/form-data; boundary={boundary}", tuple(pieces))


def _as_field(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _file_name(path: Path, number: int) -> str:
    # The gateway takes the MIME type from the name's ending, and the rest of the name is nobody's.
    suffix = path.suffix.lower()
    return f"reference-{number}{suffix if suffix in _MIME_TYPES else '.png'}"


def mime_type(path: Path) -> str:
    """The type of a reference picture, by its name; PNG where that says nothing."""
    return _MIME_TYPES.get(path.suffix.lower(), "image/png")
