"""Walk the boxes of ISO media files: MP4, AVIF and HEIC. ISO/IEC 14496-12, section 4.2."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from batchgen.images.formats import MAX_PARTS, broken, printable, truncated

_EXTENDED: Final = 1
"""Size of a box whose size follows as 64 bits."""
_OPEN: Final = 0
"""Size of a box that reaches to the end of the file."""
FULL_HEAD: Final = 4
"""Length of the version and flags at the start of some boxes' content."""


class Box(NamedTuple):
    """The type of a box and the extent of its content."""

    kind: bytes
    start: int
    end: int
    is_open: bool = False
    """Whether it has no size of its own, so that a cut cannot be noticed."""


def boxes(view: memoryview, start: int, end: int, *, file: str) -> Iterator[Box]:
    """Yield the boxes that fill an extent. Raises BadImage; ``file`` names the file for it."""
    for _ in range(MAX_PARTS):
        if start == end:
            return
        if start + 8 > end:
            raise truncated(f"the {file}")
        size, kind = struct.unpack_from(">I4s", view, start)
        head = 8
        is_open = size == _OPEN
        if size == _EXTENDED and start + 16 <= end:
            size, head = int.from_bytes(view[start + 8 : start + 16], "big"), 16
        elif is_open:
            size = end - start
        if size < head:
            raise broken(f"{file} box {printable(kind)} has an impossible size")
        if start + size > end:
            raise truncated(f"{file} box {printable(kind)}")
        yield Box(kind, start + head, start + size, is_open)
        start += size
    raise broken(f"the {file} has more than {MAX_PARTS:,} boxes")
