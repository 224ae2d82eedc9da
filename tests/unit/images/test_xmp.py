"""XMP in images: read by Pillow, passed by the inspection, and no pixel changed."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from batchgen.images.formats import BadImage
from batchgen.images.inspect import inspect
from batchgen.images.xmp import MAX_VALUE_BYTES, MetadataRefused, embed
from tests.support.images import SMALL

SAVED: list[tuple[str, str, dict[str, object]]] = [
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {}),
    ("JPEG", "RGB", {}),
    ("JPEG", "L", {"progressive": True}),
    ("JPEG", "CMYK", {}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("WEBP", "RGBA", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("WEBP", "RGB", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}),
]


def image(format: str, mode: str, options: dict[str, object], size: tuple[int, int]) -> bytes:
    drawn = Image.linear_gradient("L").resize(size).convert(mode)
    out = io.BytesIO()
    drawn.save(out, format, **options)
    return out.getvalue()


def pixels(data: bytes) -> tuple[str, bytes]:
    with Image.open(io.BytesIO(data)) as image:
        return image.mode, image.tobytes()


def xmp(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        found = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or ""
    return found.decode() if isinstance(found, bytes) else str(found)


@pytest.mark.parametrize(("format", "mode", "options"), SAVED)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    prompt=st.text(max_size=200),
    key=st.text(max_size=20),
)
@settings(max_examples=25, deadline=None)
def test_image_with_metadata_is_as_good_as_before(
    format: str,
    mode: str,
    options: dict[str, object],
    size: tuple[int, int],
    prompt: str,
    key: str,
) -> None:
    plain = image(format, mode, options, size)
    found = embed(plain, {"key": key, "prompt": prompt})
    before, after = inspect(plain), inspect(found)
    assert (after.format, after.width, after.height) == (before.format, *size)
    assert after.has_alpha == before.has_alpha
    assert pixels(found) == pixels(plain)
    assert "batchgen:prompt" in xmp(found)
    assert embed(found, {"key": "another"}) == found


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_prompt_is_written_without_control_characters(format: str) -> None:
    prompt = "a <mug> & a \u00e9tag\u00e8re \U0001f375\0\x1b"
    found = xmp(embed(image(format, "RGB", {}, (8, 8)), {"prompt": prompt}))
    assert "a &lt;mug&gt; &amp; a \u00e9tag\u00e8re \U0001f375<" in found


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_prompt_without_end_is_cut(format: str) -> None:
    plain = image(format, "RGB", {}, (8, 8))
    found = embed(plain, {"prompt": "\u00e9<" * 60_000})
    inspect(found)
    assert MAX_VALUE_BYTES < len(found) - len(plain) < 65_533


def test_a_packet_that_fits_no_segment_is_refused() -> None:
    plain = image("JPEG", "RGB", {}, (8, 8))
    with pytest.raises(MetadataRefused, match="too long for a JPEG"):
        embed(plain, {"prompt": "x" * 60_000, "key": "y" * 60_000})


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_image_with_xmp_of_another_program_is_refused(format: str) -> None:
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>another author</x:xmpmeta>"
    if format == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        theirs = image("PNG", "RGB", {"pnginfo": info}, (8, 8))
    else:
        theirs = image(format, "RGB", {"xmp": packet}, (8, 8))
    assert "another author" in xmp(theirs)
    with pytest.raises(MetadataRefused, match="it has XMP of its own"):
        embed(theirs, {"prompt": "a mug"})


@pytest.mark.parametrize("name", ["gif P", "gif animated", "avif"])
def test_image_of_another_format_is_refused(name: str) -> None:
    if name in SMALL:
        with pytest.raises(MetadataRefused, match="images take none"):
            embed(SMALL[name][1], {"prompt": "a mug"})


@given(st.binary(max_size=200))
def test_data_that_is_not_an_image_is_refused(data: bytes) -> None:
    with pytest.raises(BadImage):
        embed(data, {"prompt": "x"})
