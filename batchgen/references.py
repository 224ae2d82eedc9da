"""Reference images of a manifest: found on disk, and known by their content."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from stat import S_ISREG


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference image that was found."""

    address: str
    """An absolute path or a URL."""
    identity: str
    """What of it goes into the fingerprint."""


def find_reference(text: str, base: Path) -> Reference:
    """Find a reference image. Raises ValueError, with a message for the manifest's writer."""
    if not text:
        raise ValueError("the name of the reference image is empty")
    if text.lower().startswith(("http://", "https://")):
        raise ValueError(
            f"the reference image {text} is an address; put the file beside the manifest"
        )
    path = base / text
    try:
        stat = path.stat()
        if not S_ISREG(stat.st_mode):
            raise ValueError(f"the reference image {path} is no file")
        digest = _digest(str(path), stat.st_mtime_ns, stat.st_size)
    except FileNotFoundError:
        raise ValueError(f"there is no reference image {path}") from None
    except OSError as error:
        raise ValueError(f"the reference image cannot be read: {error}") from None
    return Reference(str(path), f"sha256:{digest}")


@lru_cache(maxsize=4096)
def _digest(path: str, mtime_ns: int, size: int) -> str:
    """The digest of a file's content; time and size are there to notice that it changed."""
    with Path(path).open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
