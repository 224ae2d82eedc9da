"""Check from their boxes whether AVIF and HEIC images are complete: ISO/IEC 23008-12, 14496-12.

No pixel is decoded. The item locations must lie in the file, so that a cut is found even if the
last box has no size of its own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from batchgen.images.boxes import FULL_HEAD, Box, boxes
from batchgen.images.formats import (
    MAX_PARTS,
    Extent,
    ImageFormat,
    broken,
    check_pixels,
    truncated,
)
from batchgen.images.mp4 import frame_size

_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIC_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
)
_GENERAL_BRANDS: Final = frozenset({b"mif1", b"msf1", b"mif2"})
"""Brands of any codec; the compatible brands name it."""
_NOT_NUL: Final = re.compile(rb"[^\0]")
_NOT_SPACE: Final = re.compile(rb"[^\r\n\t ]")
_MIN_NULS: Final = 8
"""Fewer may be the start of a box."""
_ALPHA: Final = re.compile(rb"urn:mpeg:(?:mpegB:cicp:systems:auxiliary:alpha|hevc:2015:auxid:1)\0")
_IN_FILE, _IN_IDAT = 0, 1
"""Construction methods of an item's location; others refer to items."""


def heif_format(head: bytes) -> ImageFormat | None:
    """Return the format that the brands of a ``ftyp`` box announce; None for other files.

    12 bytes are enough for most files, and all brands decide for the rest.
    """
    if head[4:8] != b"ftyp":
        return None
    major, end = head[8:12], int.from_bytes(head[:4], "big")
    if major in _AVIF_BRANDS:
        return ImageFormat.AVIF
    if major in _HEIC_BRANDS:
        return ImageFormat.HEIC
    if major not in _GENERAL_BRANDS:
        return None
    others = {head[at : at + 4] for at in range(16, min(end, len(head)), 4)}
    return ImageFormat.AVIF if others & _AVIF_BRANDS else ImageFormat.HEIC


@dataclass(slots=True)
class _Meta:
    """What the description of the items says."""

    primary: int | None = None
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Width and height by the number of their property, which begins with 1."""
    apertures: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Width and height of the part that is shown, in the same way. Encoders pad small images."""
    properties: dict[int, list[int]] = field(default_factory=dict)
    """Numbers of properties by item."""
    has_alpha: bool = False
    items: int = 0
    is_measured: bool = True
    """Whether the length of each item is known."""


def walk_heif(view: memoryview, max_pixels: int, kind: ImageFormat) -> Extent:
    """Walk the boxes to the end of the file. Raises BadImage."""
    file = kind.upper()
    found: dict[bytes, Box] = {}
    end, is_open = len(view), False
    for box in _top_boxes(view, file):
        found.setdefault(box.kind, box)
        end, is_open = box.end, box.is_open
    if b"meta" not in found and b"moov" not in found:
        raise truncated(f"the {file}, which has no description of its image,")
    if b"meta" in found:
        meta = _read_meta(view, found[b"meta"], end, file)
    else:
        meta = _Meta(is_measured=False)
    if is_open and not meta.is_measured:
        raise broken(f"the {file} does not give its length, so that a cut could not be noticed")
    if meta.items == 0 and b"mdat" not in found:
        raise broken(f"the {file} holds no pixels")
    if meta.sizes:
        for size in meta.sizes.values():  # an aperture shows less, but all of it is decoded
            check_pixels(*size, max_pixels)
        width, height = _primary_size(meta, file)
    elif b"moov" in found:
        width, height = frame_size(view, found[b"moov"].start, found[b"moov"].end, file=file)
    else:
        raise broken(f"the {file} does not give its size")
    check_pixels(width, height, max_pixels)
    return Extent(width, height, end, meta.has_alpha)


def _top_boxes(view: memoryview, file: str) -> Iterator[Box]:
    """Yield the boxes of the file up to padding, which is not a cut box."""
    at = 0
    for _ in range(MAX_PARTS):
        if at == len(view) or (at and _is_padding(view, at)):
            return
        box = next(boxes(view, at, len(view), file=file))
        yield box
        at = box.end
    raise broken(f"the {file} has more than {MAX_PARTS:,} boxes")


def _is_padding(view: memoryview, at: int) -> bool:
    """Return whether only NUL or white space follows; a box of that size would be refused."""
    if _NOT_SPACE.search(view, at) is None:
        return True
    return len(view) - at >= _MIN_NULS and _NOT_NUL.search(view, at) is None


def _read_meta(view: memoryview, box: Box, end: int, file: str) -> _Meta:
    """Read which items exist, where they are and how large they are."""
    meta = _Meta()
    if box.start + FULL_HEAD > box.end:
        raise truncated(f"{file} box 'meta'")
    inner = {one.kind: one for one in boxes(view, box.start + FULL_HEAD, box.end, file=file)}
    try:
        if (pitm := inner.get(b"pitm")) is not None:
            meta.primary = _Fields(view, pitm).after_version(2, 4)
        if (iprp := inner.get(b"iprp")) is not None:
            _read_properties(view, iprp, meta, file)
        if (iloc := inner.get(b"iloc")) is not None:
            _check_locations(_Fields(view, iloc), inner.get(b"idat"), end, meta, file)
    except (struct.error, IndexError) as exc:
        raise broken(f"the {file}'s description of its items ends too early") from exc
    return meta


def _read_properties(view: memoryview, iprp: Box, meta: _Meta, file: str) -> None:
    for box in boxes(view, iprp.start, iprp.end, file=file):
        if box.kind == b"ipco":
            for number, one in enumerate(boxes(view, box.start, box.end, file=file), 1):
                if one.kind == b"ispe":
                    fields = _Fields(view, one)
                    fields.skip(FULL_HEAD)
                    meta.sizes[number] = fields.take(4), fields.take(4)
                elif one.kind == b"clap":
                    fields = _Fields(view, one)
                    sides = [fields.take(4) // (fields.take(4) or 1) for _ in range(2)]
                    meta.apertures[number] = sides[0], sides[1]
                elif one.kind == b"auxC" and _ALPHA.search(view, one.start, one.end):
                    meta.has_alpha = True
        elif box.kind == b"ipma":
            _read_associations(_Fields(view, box), meta)


def _read_associations(fields: _Fields, meta: _Meta) -> None:
    version, flags = fields.take(1), fields.take(3)
    for _ in range(_counted(fields.take(4))):
        item = fields.take(2 if version < 1 else 4)
        listed = meta.properties.setdefault(item, [])
        for _ in range(fields.take(1)):
            listed.append(fields.take(2) & 0x7FFF if flags & 1 else fields.take(1) & 0x7F)


def _primary_size(meta: _Meta, file: str) -> tuple[int, int]:
    """Return the size of the primary item; that of the first item that has one without it."""
    order = [meta.primary] if meta.primary is not None else sorted(meta.properties)
    for item in order:
        for known in (meta.apertures, meta.sizes):
            for number in meta.properties.get(item, ()):
                if number in known:
                    return known[number]
    raise broken(f"the {file} does not give the size of its image")


def _check_locations(fields: _Fields, idat: Box | None, end: int, meta: _Meta, file: str) -> None:
    """Check that each item lies in the file, or in the data of its description."""
    version = fields.take(1)
    fields.skip(3)
    sizes, more = fields.take(1), fields.take(1)
    offset_size, length_size, base_size = sizes >> 4, sizes & 15, more >> 4
    index_size = more & 15 if version in (1, 2) else 0
    meta.items = _counted(fields.take(2 if version < 2 else 4))
    extents = 0
    for _ in range(meta.items):
        fields.skip(2 if version < 2 else 4)
        method = fields.take(2) & 15 if version in (1, 2) else _IN_FILE
        fields.skip(2)
        base, count = fields.take(base_size), fields.take(2)
        extents = _counted(extents + count)
        for _ in range(count):
            fields.skip(index_size)
            offset, length = base + fields.take(offset_size), fields.take(length_size)
            if method not in (_IN_FILE, _IN_IDAT):
                continue
            room = end if method == _IN_FILE else idat.end - idat.start if idat else 0
            if offset + length > room or offset >= room:
                raise truncated(f"an item of the {file}")
            meta.is_measured = meta.is_measured and length > 0


def _counted(number: int) -> int:
    if number > MAX_PARTS:
        raise broken(f"more than {MAX_PARTS:,} items")
    return number


class _Fields:
    """Read the numbers of a box, one after the other. Raises IndexError at its end."""

    def __init__(self, view: memoryview, box: Box) -> None:
        self._view = view
        self._at, self._end = box.start, box.end

    def skip(self, size: int) -> None:
        self._at += size
        if self._at > self._end:
            raise IndexError

    def take(self, size: int) -> int:
        """Return a number of this many bytes; 0 for none."""
        self.skip(size)
        return int.from_bytes(self._view[self._at - size : self._at], "big")

    def after_version(self, first: int, later: int) -> int:
        """Return the number after version and flags, whose length depends on the version."""
        version = self.take(1)
        self.skip(3)
        return self.take(first if version == 0 else later)
