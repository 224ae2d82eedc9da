"""Videos are known by their boxes: whole ones pass, cut ones never."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.images.formats import BadImage, Flaw, ImageFormat
from batchgen.images.mp4 import inspect_mp4
from tests.support.mp4 import FTYP, MDAT, MOOV, VIDEO, box, track


@pytest.mark.parametrize(
    "video",
    [
        VIDEO,
        FTYP + MDAT + MOOV,
        FTYP + box(b"free") + MOOV + box(b"mdat", b"frames", large=True),
        FTYP + MOOV + struct.pack(">I4s", 0, b"mdat") + b"frames to the end",
    ],
)
def test_a_whole_video_passes_with_its_size(video: bytes) -> None:
    info = inspect_mp4(video)
    assert (info.width, info.height, info.format) == (1280, 720, ImageFormat.MP4)
    assert (info.size_bytes, info.format.extension, info.format.mime) == (
        len(video),
        "mp4",
        "video/mp4",
    )


@pytest.mark.parametrize("video", [VIDEO, FTYP + MDAT + MOOV])
def test_a_video_cut_anywhere_is_refused(video: bytes) -> None:
    for end in range(len(video)):
        with pytest.raises(BadImage):
            inspect_mp4(video[:end])


@pytest.mark.parametrize(
    ("video", "flaw"),
    [
        (b"<html>not a video</html>", Flaw.NOT_AN_IMAGE),
        (FTYP + MOOV, Flaw.BAD_STRUCTURE),
        (FTYP + MOOV + box(b"mdat"), Flaw.BAD_STRUCTURE),
        (FTYP + box(b"moov", track(0, 0)) + MDAT, Flaw.BAD_STRUCTURE),
        (VIDEO + b"junk", Flaw.TRUNCATED),
        (FTYP + struct.pack(">I4s", 4, b"moov"), Flaw.BAD_STRUCTURE),
        (FTYP + MDAT, Flaw.TRUNCATED),
    ],
)
def test_incomplete_video_has_a_reason(video: bytes, flaw: Flaw) -> None:
    with pytest.raises(BadImage) as found:
        inspect_mp4(video)
    assert found.value.reason is flaw


@given(st.binary(max_size=300).map(lambda data: FTYP + data) | st.binary(max_size=100))
def test_any_bytes_are_a_video_or_refused(data: bytes) -> None:
    try:
        inspect_mp4(data)
    except BadImage:
        return
