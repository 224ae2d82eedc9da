"""An image is accepted whole or not at all; foreign data, bombs and cut files are named."""

from __future__ import annotations

import contextlib
import io
import mmap
import re
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchgen.images.formats import BadImage, Flaw, ImageFormat, ImageInfo
from batchgen.images.inspect import MAX_PIXELS, decode, inspect, mismatches, oddities, sniff
from batchgen.images.thumbnail import thumbnail_bytes
from tests.support.images import SMALL, drawing, encoded, exif_with_thumbnail, images

FORMATS = {kind.name: kind for kind in ImageFormat}


def animated_png() -> bytes:
    frames = [drawing(9, 7), drawing(9, 7).transpose(Image.Transpose.ROTATE_180)]
    return encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])


LARGE = images(311, 200)
PNG, JPEG, WEBP = (SMALL[name][1] for name in ("png RGB", "jpeg RGB", "webp lossy"))

small = pytest.mark.parametrize("name", SMALL)


def flaw(data: bytes, max_pixels: int = MAX_PIXELS) -> Flaw:
    with pytest.raises(BadImage) as caught:
        inspect(data, max_pixels=max_pixels)
    return caught.value.reason


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def header(
    width: int = 1, height: int = 1, depth: int = 8, color: int = 2, rest: bytes = bytes(3)
) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBB", width, height, depth, color) + rest)


PIXELS = chunk(b"IDAT", zlib.compress(b"\0rgb"))
END = chunk(b"IEND")


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def frame(
    width: int = 8, height: int = 8, marker: int = 0xC0, precision: int = 8, components: int = 1
) -> bytes:
    size = struct.pack(">BHHB", precision, height, width, components)
    return segment(marker, size + b"\x01\x11\x00" * components)


SCAN = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"pixels"
SOI, EOI = b"\xff\xd8", b"\xff\xd9"


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def lossless(width: int, height: int, version: int = 0) -> tuple[bytes, bytes]:
    bits = (width - 1) | (height - 1) << 14 | version << 29
    return b"VP8L", b"\x2f" + struct.pack("<I", bits) + b"pixels"


def canvas(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + sizes


@small
def test_a_whole_image_is_accepted_with_its_size(name: str) -> None:
    for corpus, (width, height) in ((SMALL, (13, 9)), (LARGE, (311, 200))):
        kind, data = corpus[name]
        with Image.open(io.BytesIO(data)) as image:
            has_alpha = image.has_transparency_data
        if name == "gif animated":  # Pillow composes the frames, some of which are transparent
            has_alpha = inspect(data).has_alpha
        assert inspect(data) == ImageInfo(
            format=FORMATS[kind],
            width=width,
            height=height,
            size_bytes=len(data),
            has_alpha=has_alpha,
        )


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": exif_with_thumbnail()}])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_places_are_seen_without_decoding(kind: str, options: dict[str, Any]) -> None:
    image = drawing(16, 16, "RGBA")
    assert not inspect(encoded(image.convert("RGB"), kind, **options)).has_alpha
    image.putpixel((3, 3), (0, 0, 0, 0))
    assert inspect(encoded(image, kind, **options)).has_alpha


@pytest.mark.fault("B14", "B15")
@small
def test_image_cut_at_any_byte_is_refused(name: str) -> None:
    data = SMALL[name][1]
    for length in range(len(data)):
        with pytest.raises(BadImage):
            inspect(data[:length])


@pytest.mark.fault("B14")
@small
def test_a_large_image_cut_at_any_percent_is_refused(name: str) -> None:
    data = LARGE[name][1]
    ends = {len(data) * percent // 100 for percent in range(100)}
    for end in ends | {len(data) - cut for cut in range(1, 17)}:
        assert flaw(data[:end]) in (Flaw.EMPTY, Flaw.TRUNCATED)


@pytest.mark.parametrize("name", [name for name in LARGE if not name.startswith(("webp", "avif"))])
def test_a_preallocated_file_filled_only_in_part_is_refused(name: str) -> None:
    data = LARGE[name][1]
    for percent in range(1, 100):
        kept = len(data) * percent // 100
        with pytest.raises(BadImage):
            inspect(data[:kept] + bytes(len(data) - kept))


@pytest.mark.parametrize("name", [name for name in SMALL if name.startswith("png")])
def test_a_png_with_any_single_bit_flipped_is_refused(name: str) -> None:
    data = bytearray(SMALL[name][1])
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadImage):
            inspect(data)
        data[bit // 8] ^= 1 << bit % 8
    inspect(data)


def test_an_animated_png_is_accepted() -> None:
    assert inspect(animated_png()).width == 9


@given(
    head=st.sampled_from([b"", PNG[:8], PNG[:33], JPEG[:3], JPEG[:20], WEBP[:12], WEBP[:20]]),
    rest=st.binary(max_size=200),
)
def test_any_bytes_are_judged_without_another_error(head: bytes, rest: bytes) -> None:
    with contextlib.suppress(BadImage):
        inspect(head + rest)


@given(
    name=st.sampled_from(sorted(SMALL)),
    edits=st.lists(st.tuples(st.integers(0, 100_000), st.binary(max_size=4)), max_size=4),
    end=st.integers(0, 100_000),
)
def test_mutated_images_are_judged_without_another_error(
    name: str, edits: list[tuple[int, bytes]], end: int
) -> None:
    data = bytearray(SMALL[name][1])
    for place, octets in edits:
        start = place % len(data)
        data[start : start + len(octets)] = octets
    for view in (data, data[: end % len(data)]):
        with contextlib.suppress(BadImage):
            info = inspect(view)
            assert 0 < info.width * info.height <= MAX_PIXELS


@pytest.mark.fault("B16")
@pytest.mark.parametrize(
    "data",
    [
        png(header(60_000, 60_000), PIXELS, END),
        SOI + frame(60_000, 60_000) + SCAN + EOI,
        riff(lossless(16_384, 16_384)),
        riff(canvas(60_000, 60_000), lossless(1, 1)),
    ],
    ids=["png", "jpeg", "webp", "webp canvas"],
)
def test_a_decompression_bomb_is_refused_by_its_header(data: bytes, tmp_path: Path) -> None:
    assert flaw(data) is Flaw.TOO_MANY_PIXELS
    bomb = tmp_path / "bomb"
    bomb.write_bytes(data)
    with pytest.raises(BadImage, match="more than 33,177,600 pixels"):
        decode(bomb)


def test_the_pixel_cap_holds_the_image_that_fills_it() -> None:
    assert inspect(PNG, max_pixels=13 * 9).height == 9
    assert flaw(PNG, max_pixels=13 * 9 - 1) is Flaw.TOO_MANY_PIXELS


def test_a_file_over_the_byte_cap_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadImage) as caught:
        inspect(PNG, max_bytes=len(PNG) - 1)
    assert caught.value.reason is Flaw.TOO_LARGE
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    with pytest.raises(BadImage) as caught:
        decode(path, max_bytes=len(PNG) - 1)
    assert caught.value.reason is Flaw.TOO_LARGE


@pytest.mark.fault("B13", "B17")
@pytest.mark.parametrize(
    ("data", "reason", "found"),
    [
        (b"", Flaw.EMPTY, "empty"),
        (b"<!DOCTYPE html><title>Sign in", Flaw.NOT_AN_IMAGE, "an HTML page beginning '<!DOCTYPE"),
        (b"\xef\xbb\xbf\n<HTML lang=en>", Flaw.NOT_AN_IMAGE, "an HTML page"),
        (b"<?xml version='1.0'?><Error>", Flaw.NOT_AN_IMAGE, "an XML text"),
        (b'{"error": {"code": 1}}', Flaw.NOT_AN_IMAGE, "a JSON text"),
        (b"\x1b[31mred\x00\xe9", Flaw.NOT_AN_IMAGE, r"data beginning '\x1b[31mred\x00\xe9'"),
        (encoded(drawing(4, 4), "TIFF"), Flaw.UNSUPPORTED_FORMAT, "a TIFF"),
        (encoded(drawing(4, 4), "BMP"), Flaw.UNSUPPORTED_FORMAT, "a BMP"),
        (encoded(drawing(4, 4), "ICO"), Flaw.UNSUPPORTED_FORMAT, "an ICO"),
        (encoded(drawing(4, 4), "PDF"), Flaw.UNSUPPORTED_FORMAT, "a PDF"),
        (encoded(drawing(4, 4), "EPS"), Flaw.UNSUPPORTED_FORMAT, "an EPS"),
        (b"GIF88a", Flaw.UNSUPPORTED_FORMAT, "a GIF of an unknown version"),
        (b"\0\0\0\x20ftypj2ki", Flaw.UNSUPPORTED_FORMAT, "a HEIF of an unknown codec"),
        (b"\xff\x0a\xff\x07", Flaw.UNSUPPORTED_FORMAT, "a JPEG XL"),
        (b"<?xml version='1.0'?>\n<svg xmlns=", Flaw.UNSUPPORTED_FORMAT, "an SVG"),
        (b"RIFF\x10\0\0\0WAVEfmt ", Flaw.NOT_AN_IMAGE, "RIFF"),
    ],
)
def test_unsupported_data_is_named_by_its_format(data: bytes, reason: Flaw, found: str) -> None:
    with pytest.raises(BadImage, match=re.escape(found)) as caught:
        inspect(data)
    assert caught.value.reason is reason


@pytest.mark.fault("B17")
@pytest.mark.parametrize("data", [PNG, JPEG, WEBP], ids=["png", "jpeg", "webp"])
def test_data_after_an_image_is_kept_and_counted(data: bytes) -> None:
    """Whole images with labels, films or a second file after their end are shown everywhere."""
    for padding in (b"", b"\r\n--boundary--\r\n", bytes(5000)):
        info = inspect(data + padding)
        assert (info.width, info.trailing_bytes) == (13, 0)
        assert oddities(info, {}) == ()
    for trailer in (b"<script>alert()</script>", b"label of a generator" * 3, data):
        info = inspect(data + trailer)
        assert (info.width, info.trailing_bytes) == (13, len(trailer))
        assert f"{len(trailer):,} bytes of other data follow" in oddities(info, {})[0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png(header(), PIXELS), Flaw.TRUNCATED),
        (png(header(), PIXELS, END[:-4] + b"\0\0\0\0"), Flaw.BAD_CRC),
        (png(header(), PIXELS, chunk(b"IEND", b"x")), Flaw.BAD_STRUCTURE),
        (png(PIXELS, header(), END), Flaw.BAD_STRUCTURE),
        (png(chunk(b"tEXt"), header(), PIXELS, END), Flaw.BAD_STRUCTURE),
        (png(header(), header(), PIXELS, END), Flaw.BAD_STRUCTURE),
        (png(header(), END), Flaw.BAD_STRUCTURE),
        (png(header(), chunk(b"IDAT"), END), Flaw.BAD_STRUCTURE),
        (png(header(color=3), PIXELS, END), Flaw.BAD_STRUCTURE),
        (png(header(width=0), PIXELS, END), Flaw.BAD_STRUCTURE),
        (png(header(height=0), PIXELS, END), Flaw.BAD_STRUCTURE),
        (png(header(width=1 << 31), PIXELS, END), Flaw.BAD_STRUCTURE),
        (png(header(depth=4), PIXELS, END), Flaw.BAD_STRUCTURE),
        (png(header(color=5), PIXELS, END), Flaw.BAD_STRUCTURE),
        (png(header(rest=b"\1\0\0"), PIXELS, END), Flaw.BAD_STRUCTURE),
        (png(header(rest=b"\0\1\0"), PIXELS, END), Flaw.BAD_STRUCTURE),
        (png(header(rest=b"\0\0\2"), PIXELS, END), Flaw.BAD_STRUCTURE),
        (png(header(rest=bytes(4)), PIXELS, END), Flaw.BAD_STRUCTURE),
        (png(header(), PIXELS, chunk(b"acTL", bytes(8)), END), Flaw.BAD_STRUCTURE),
        (png(header(), *[chunk(b"tEXt")] * 70_000, PIXELS, END), Flaw.BAD_STRUCTURE),
    ],
)
def test_a_png_of_wrong_structure_is_refused(data: bytes, reason: Flaw) -> None:
    assert inspect(png(header(), PIXELS, END)).width == 1
    assert flaw(data) is reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SOI + frame() + SCAN, Flaw.TRUNCATED),
        (SOI + frame() + SCAN + b"\xff\x00\xff\xd0more", Flaw.TRUNCATED),
        (SOI + frame() + EOI, Flaw.BAD_STRUCTURE),
        (SOI + frame() + SCAN.removesuffix(b"pixels") + EOI, Flaw.BAD_STRUCTURE),
        (SOI + SCAN + EOI, Flaw.BAD_STRUCTURE),
        (SOI + SCAN + frame() + EOI, Flaw.BAD_STRUCTURE),
        (SOI + frame() + frame() + SCAN + EOI, Flaw.BAD_STRUCTURE),
        (SOI + SOI + frame() + SCAN + EOI, Flaw.BAD_STRUCTURE),
        (SOI + b"\xff\xe0\x00\x01" + frame() + SCAN + EOI, Flaw.BAD_STRUCTURE),
        (SOI + segment(0xE0, b"") + b"junk" + frame() + SCAN + EOI, Flaw.BAD_STRUCTURE),
        (SOI + frame() + b"\xff\xda\x00\x01pixels" + EOI, Flaw.BAD_STRUCTURE),
        (SOI + frame(width=0) + SCAN + EOI, Flaw.BAD_STRUCTURE),
        (SOI + frame(height=0) + SCAN + EOI, Flaw.BAD_STRUCTURE),
        (SOI + frame(components=2) + SCAN + EOI, Flaw.BAD_STRUCTURE),
        (SOI + segment(0xC0, b"\x08\x00") + SCAN + EOI, Flaw.BAD_STRUCTURE),
        (SOI + frame(precision=12) + SCAN + EOI, Flaw.UNSUPPORTED_FORMAT),
        (SOI + frame(marker=0xC3) + SCAN + EOI, Flaw.UNSUPPORTED_FORMAT),
        (SOI + frame(marker=0xC9) + SCAN + EOI, Flaw.UNSUPPORTED_FORMAT),
        (SOI + segment(0xFE, b"") * 70_000 + frame() + SCAN + EOI, Flaw.BAD_STRUCTURE),
    ],
)
def test_a_jpeg_of_wrong_structure_is_refused(data: bytes, reason: Flaw) -> None:
    assert inspect(SOI + frame() + SCAN + EOI).width == 8
    assert flaw(data) is reason


def test_fill_bytes_and_restarts_in_a_jpeg_are_no_end() -> None:
    scan = SCAN + b"\xff\x00\xff\xd3more\xff\xff"
    assert inspect(SOI + b"\xff\xff" + frame() + scan + EOI).width == 8


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (riff(), Flaw.BAD_STRUCTURE),
        (riff((b"EXIF", b"exif")), Flaw.BAD_STRUCTURE),
        (riff(lossless(3, 2), lossless(3, 2)), Flaw.BAD_STRUCTURE),
        (riff(lossless(3, 2, version=1)), Flaw.BAD_STRUCTURE),
        (riff((b"VP8L", b"\x2f\0\0\0\0")), Flaw.BAD_STRUCTURE),
        (riff((b"VP8L", b"\x2e\0\0\0\0pixels")), Flaw.BAD_STRUCTURE),
        (riff((b"VP8 ", b"\x10\0\0no start code")), Flaw.BAD_STRUCTURE),
        (riff((b"VP8 ", b"\x11\0\0\x9d\x01\x2a\x03\0\x02\0pixels")), Flaw.BAD_STRUCTURE),
        (riff((b"VP8 ", b"\x10\xff\0\x9d\x01\x2a\x03\0\x02\0pixels")), Flaw.TRUNCATED),
        (riff((b"VP8 ", b"\x10\0\0\x9d\x01\x2a\0\0\0\0pixels")), Flaw.BAD_STRUCTURE),
        (riff(canvas(3, 2)), Flaw.BAD_STRUCTURE),
        (riff(canvas(4, 2), lossless(3, 2)), Flaw.BAD_STRUCTURE),
        (riff(lossless(3, 2), canvas(3, 2)), Flaw.BAD_STRUCTURE),
        (riff((b"VP8X", b"short"), lossless(3, 2)), Flaw.BAD_STRUCTURE),
        (riff(canvas(3, 2, flags=2)), Flaw.BAD_STRUCTURE),
        (riff(canvas(3, 2, flags=2), (b"ANMF", bytes(24))), Flaw.BAD_STRUCTURE),
        (riff((b"ANMF", bytes(40))), Flaw.BAD_STRUCTURE),
        (riff(lossless(3, 2), (b"EXIF", b"odd"))[:-1], Flaw.TRUNCATED),
        (b"RIFF\x0d\0\0\0WEBPVP8L\x01\0\0\0\x2f", Flaw.BAD_STRUCTURE),
        (b"RIFF\x02\0\0\0WEBP", Flaw.BAD_STRUCTURE),
        (riff(*[(b"junk", b"")] * 70_000, lossless(3, 2)), Flaw.BAD_STRUCTURE),
    ],
)
def test_a_webp_of_wrong_structure_is_refused(data: bytes, reason: Flaw) -> None:
    assert inspect(riff(canvas(3, 2), lossless(3, 2), (b"EXIF", b"odd"))).width == 3
    assert inspect(riff((b"VP8 ", b"\x10\0\0\x9d\x01\x2a\x03\0\x02\0pixels"))).height == 2
    assert flaw(data) is reason


def test_a_mapped_file_is_free_again_after_its_inspection(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for data in (JPEG, JPEG[:-1], JPEG + bytes(100), b"GIF89a"):
        path.write_bytes(data)
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        kept: BadImage | None = None
        try:
            inspect(mapped)
        except BadImage as bad:
            kept = bad
        assert (kept is None) == data.startswith(JPEG)
        mapped.close()  # raises BufferError while anything still points into it


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (PNG[:12], ImageFormat.PNG),
        (JPEG[:12], ImageFormat.JPEG),
        (WEBP[:12], ImageFormat.WEBP),
        (PNG[:7], None),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"", None),
    ],
)
def test_format_is_recognized_by_the_first_bytes(head: bytes, kind: ImageFormat | None) -> None:
    assert sniff(head) is kind


def test_each_format_has_its_file_ending_and_media_type() -> None:
    assert [(kind.extension, kind.mime) for kind in ImageFormat] == [
        ("png", "image/png"),
        ("jpg", "image/jpeg"),
        ("webp", "image/webp"),
        ("gif", "image/gif"),
        ("avif", "image/avif"),
        ("heic", "image/heic"),
        ("mp4", "video/mp4"),
    ]


@small
def test_whole_images_decode(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(SMALL[name][1])
    assert decode(path) == inspect(SMALL[name][1])


def test_pixels_that_do_not_decode_are_a_bad_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    short = chunk(b"IDAT", zlib.compress(b"\0r"))
    for broken in (
        png(header(), short, END),
        png(header(), chunk(b"IDAT", b"no zlib stream"), END),
        SOI + frame() + SCAN + EOI,
        riff(lossless(3, 2)),
    ):
        inspect(broken)
        path.write_bytes(broken)
        with pytest.raises(BadImage) as caught:
            decode(path)
        assert caught.value.reason is Flaw.UNDECODABLE
        assert caught.value.__cause__ is not None


def test_a_cut_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG[:-4])
    with pytest.raises(BadImage) as caught:
        decode(path)
    assert caught.value.reason is Flaw.TRUNCATED


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere RLIMIT_AS is not kept")
def test_a_lack_of_memory_is_not_blamed_on_the_image(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(encoded(Image.new("RGBA", (5000, 5000)), "PNG"))
    starved = f"""
import pathlib, resource
from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from batchgen.images.inspect import decode
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), resource.RLIM_INFINITY))
try:
    decode(pathlib.Path({str(path)!r}))
except MemoryError:
    print("out of memory")
"""
    run = subprocess.run([sys.executable, "-c", starved], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("out of memory\n", "")


def test_missing_file_is_not_a_bad_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "none.png")


def with_odd_metadata() -> dict[str, bytes]:
    """Whole images whose metadata Pillow warns about."""
    ifd = struct.pack("<HHHII", 1, 0x011A, 5, 1, 5000) + bytes(4)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + ifd
    return {
        "exif": SOI + segment(0xE1, exif) + JPEG[2:],
        "apng": PNG[:33] + chunk(b"acTL", bytes(8)) + PNG[33:],
    }


@pytest.mark.parametrize("name", ["exif", "apng"])
def test_odd_metadata_raises_no_warning(name: str, tmp_path: Path) -> None:
    data = with_odd_metadata()[name]
    with (
        pytest.warns(UserWarning, match="APNG|Truncated"),
        Image.open(io.BytesIO(data)) as image,
    ):
        image.load()
    path = tmp_path / "odd"
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        decode(path)
        thumbnail_bytes(path, 64)
    assert seen == []


def thumbnail_width(path: Path) -> int:
    with Image.open(io.BytesIO(thumbnail_bytes(path, 64))) as image:
        return image.width


def decoded_width(path: Path) -> int:
    return decode(path).width


@pytest.mark.parametrize("read", [decoded_width, thumbnail_width])
def test_threads_leave_the_warning_filters_alone(
    read: Callable[[Path], int], tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(with_odd_metadata()["exif"])
    before = list(warnings.filters)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(read, [path] * 400)) == {13}
    finally:
        sys.setswitchinterval(interval_s)
    assert warnings.filters == before


@pytest.mark.fault("B24")
def test_image_that_differs_from_the_request_is_reported() -> None:
    info = inspect(JPEG)
    assert mismatches(info, {}) == ()
    assert mismatches(info, {"size": "13x9", "output_format": "jpeg"}) == ()
    assert mismatches(info, {"size": "auto", "output_format": "jpg"}) == ()
    assert mismatches(info, {"size": "2K", "output_format": ""}) == ()
    assert mismatches(info, {"size": "9x13"}) == ("requested 9x13, got 13x9",)
    assert mismatches(info, {"size": "1024x1024", "output_format": "webp"}) == (
        "requested 1024x1024, got 13x9",
        "requested webp, got jpeg",
    )


def test_importing_the_module_does_not_import_pillow() -> None:
    check = "import sys, batchgen.images.inspect; sys.exit('PIL' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


CRC_SCRIPT = """
import sys
sys.modules["isal"] = None  # as on a platform for which it has no wheels
from batchgen.images.inspect import inspect
data = bytes.fromhex(sys.argv[1])
print(inspect(data).width)
inspect(data[:-1] + bytes([data[-1] ^ 1]))
"""


def test_png_is_checked_without_isal() -> None:
    data = png(header(), PIXELS, END)
    done = subprocess.run(
        [sys.executable, "-c", CRC_SCRIPT, data.hex()], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(inspect(data).width)
    assert "is damaged (CRC)" in done.stderr
