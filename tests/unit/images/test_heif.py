"""AVIF and HEIC images are complete to their last box, or refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.images.formats import BadImage, Flaw, ImageFormat
from batchgen.images.inspect import decode, inspect, sniff
from tests.support.images import HAS_AVIF, HEIC, HEIC_ALPHA, SMALL
from tests.support.mp4 import MDAT, box, track


def full(kind: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *content)


def ftyp(major: bytes, *others: bytes) -> bytes:
    return box(b"ftyp", major, bytes(4), *others)


PITM = full(b"pitm", struct.pack(">H", 1))
ISPE = full(b"ispe", struct.pack(">II", 64, 48))
IPMA = full(b"ipma", struct.pack(">IHBB", 1, 1, 1, 1))
FTYP = ftyp(b"avif", b"mif1", b"avif")


def iprp(*properties: bytes, ipma: bytes = IPMA) -> bytes:
    return box(b"iprp", box(b"ipco", *properties), ipma)


def iloc(offset: int, length: int, method: int = 0) -> bytes:
    item = struct.pack(">HHHHII", 1, method, 0, 1, offset, length)
    return full(b"iloc", b"\x44\x00", struct.pack(">H", 1), item, version=1)


def avif(
    length: int = 300,
    *,
    offset: int = 0,
    properties: bytes | None = None,
    primary: bytes = PITM,
    method: int = 0,
    data: bytes = MDAT,
) -> bytes:
    """An AVIF with a description of one item, and the pixels of MDAT."""
    known = iprp(ISPE) if properties is None else properties
    own = box(b"idat", bytes(30)) if method == 1 else b""

    def described(at: int) -> bytes:
        return full(b"meta", primary, known, iloc(at, length, method), own)

    before = len(FTYP) + len(described(0)) + 8
    return FTYP + described(offset or (before if method == 0 else 0)) + data


def flaw(data: bytes) -> Flaw:
    with pytest.raises(BadImage) as caught:
        inspect(data)
    return caught.value.reason


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x20ftypavif", ImageFormat.AVIF),
        (b"\0\0\0\x20ftypavis", ImageFormat.AVIF),
        (b"\0\0\0\x20ftypheic", ImageFormat.HEIC),
        (b"\0\0\0\x20ftypmif1", ImageFormat.HEIC),
        (ftyp(b"mif1", b"mif1", b"avif", b"miaf"), ImageFormat.AVIF),
        (ftyp(b"msf1", b"hevc"), ImageFormat.HEIC),
        (ftyp(b"mif1", b"heic") + b"avif", ImageFormat.HEIC),
        (b"\0\0\0\x20ftypisom", None),
    ],
)
def test_brands_decide_the_format(head: bytes, kind: ImageFormat | None) -> None:
    assert sniff(head) is kind


@pytest.mark.parametrize(("data", "has_alpha"), [(HEIC, False), (HEIC_ALPHA, True)])
def test_whole_heic_is_accepted_with_its_size(data: bytes, has_alpha: bool, tmp_path: Path) -> None:
    info = inspect(data)
    assert (info.format, info.width, info.height) == (ImageFormat.HEIC, 64, 48)
    assert (info.size_bytes, info.has_alpha) == (len(data), has_alpha)
    (tmp_path / "a.heic").write_bytes(data)
    assert decode(tmp_path / "a.heic") == info  # without a decoder


@pytest.mark.parametrize("data", [HEIC, HEIC_ALPHA, avif(), avif(30, method=1, data=b"")])
def test_heif_cut_at_any_byte_is_refused(data: bytes) -> None:
    assert inspect(data).width == 64
    for end in range(len(data)):
        with pytest.raises(BadImage):
            inspect(data[:end])


@pytest.mark.parametrize("length", [0, 1, 300])
def test_open_last_box_is_accepted_only_if_its_items_fit(length: int) -> None:
    """A box without a size reaches to the end of the file, wherever it was cut."""
    open_ended = avif(length, data=struct.pack(">I", 0) + MDAT[4:])
    if length == 0:
        assert flaw(open_ended) is Flaw.BAD_STRUCTURE
        return
    assert inspect(open_ended).width == 64
    for cut in range(1, 301):
        data = open_ended[: len(open_ended) - cut]
        if len(MDAT) - 8 - cut >= length:
            assert inspect(data).width == 64
        else:
            assert flaw(data) is Flaw.TRUNCATED


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (FTYP + MDAT, Flaw.TRUNCATED),
        (avif(301, offset=len(avif()) - 300), Flaw.TRUNCATED),
        (avif(1, offset=1 << 31), Flaw.TRUNCATED),
        (avif(properties=b""), Flaw.BAD_STRUCTURE),
        (avif(properties=iprp()), Flaw.BAD_STRUCTURE),
        (avif(properties=iprp(ISPE, ipma=b"")), Flaw.BAD_STRUCTURE),
        (avif(properties=iprp(full(b"ispe", bytes(4)))), Flaw.BAD_STRUCTURE),
        (avif(properties=iprp(ISPE[:-4])), Flaw.TRUNCATED),
        (avif(primary=full(b"pitm", struct.pack(">H", 2))), Flaw.BAD_STRUCTURE),
        (avif(primary=box(b"pitm")), Flaw.BAD_STRUCTURE),
        (
            avif(properties=iprp(full(b"ispe", struct.pack(">II", 0, 9)))),
            Flaw.BAD_STRUCTURE,
        ),
        (
            avif(properties=iprp(full(b"ispe", struct.pack(">II", 60_000, 60_000)))),
            Flaw.TOO_MANY_PIXELS,
        ),
        (avif(30, method=1).replace(b"idat", b"free"), Flaw.TRUNCATED),
        (avif(31, method=1), Flaw.TRUNCATED),
        (FTYP + full(b"meta") + MDAT, Flaw.BAD_STRUCTURE),
        (FTYP + box(b"meta") + MDAT, Flaw.TRUNCATED),
        (FTYP + box(b"free") * 70_000, Flaw.BAD_STRUCTURE),
    ],
)
def test_heif_of_wrong_structure_is_refused(data: bytes, reason: Flaw) -> None:
    assert inspect(avif()).width == 64
    assert flaw(data) is reason


def test_counts_beyond_reason_are_refused_at_once() -> None:
    """Without fields, an extent takes no byte, so that only a limit ends the loop."""
    items = struct.pack(">HHH", 1, 0, 0xFFFF) * 0x7FFF
    location = full(b"iloc", b"\0\0", struct.pack(">H", 0x7FFF), items)
    data = FTYP + full(b"meta", PITM, iprp(ISPE), location) + MDAT
    assert flaw(data) is Flaw.BAD_STRUCTURE


def test_sequence_without_items_has_the_size_of_its_track() -> None:
    moov = box(b"moov", box(b"mvhd", bytes(100)), track(640, 480))
    data = ftyp(b"msf1", b"hevc") + moov + MDAT
    assert (inspect(data).width, inspect(data).height) == (640, 480)
    assert flaw(data[:-1]) is Flaw.TRUNCATED
    assert flaw(ftyp(b"msf1", b"hevc") + moov) is Flaw.BAD_STRUCTURE


@pytest.mark.parametrize("padding", [b"\n", b"\r\n\r\n", bytes(8), bytes(5000)])
def test_padding_after_the_last_box_does_no_harm(padding: bytes) -> None:
    for data in (HEIC, avif()):
        assert inspect(data + padding).width == 64


@pytest.mark.parametrize("rest", [b"\0", bytes(7), b"\0\0\1\0free", b"label of a generator"])
def test_other_data_after_the_last_box_may_be_a_cut_box(rest: bytes) -> None:
    assert flaw(HEIC + rest) in (Flaw.TRUNCATED, Flaw.BAD_STRUCTURE)


@pytest.mark.skipif(not HAS_AVIF, reason="this Pillow has no AVIF")
def test_avif_with_broken_pixels_does_not_decode(tmp_path: Path) -> None:
    """Its boxes are complete."""
    data = SMALL["avif"][1]
    kept = data.index(b"mdat") + 4
    path = tmp_path / "a.avif"
    path.write_bytes(data[:kept] + b"\xff" * (len(data) - kept))
    assert inspect(path.read_bytes()).width == 13
    with pytest.raises(BadImage, match="the avif cannot be decoded"):
        decode(path)


@pytest.mark.parametrize("make", [lambda data: HEIC[:40] + data, lambda data: FTYP + data])
@given(data=st.binary(max_size=300))
def test_any_boxes_are_an_image_or_refused(make: Callable[[bytes], bytes], data: bytes) -> None:
    with pytest.raises(BadImage):
        inspect(make(data))


@given(edits=st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=4))))
def test_mutated_heic_is_judged_without_another_error(edits: list[tuple[int, bytes]]) -> None:
    data = bytearray(HEIC)
    for place, octets in edits:
        data[place : place + len(octets)] = octets
    try:
        info = inspect(data)
    except BadImage:
        return
    assert info.width > 0
