"""Content credentials are found, and a signed image takes no metadata."""

from __future__ import annotations

import pytest

from batchgen.images.inspect import inspect
from batchgen.images.xmp import MetadataRefused, embed
from tests.support.c2pa import manifest_store, sign
from tests.support.images import SMALL

USUAL = [name for name in SMALL if name.startswith(("png", "jpeg", "webp"))]


@pytest.mark.parametrize("size", [200, 200_000])
@pytest.mark.parametrize("name", USUAL)
def test_manifest_is_found_and_the_image_is_left_alone(name: str, size: int) -> None:
    plain = SMALL[name][1]
    signed = sign(plain, size)
    assert not inspect(plain).is_signed
    info = inspect(signed)
    assert (info.is_signed, info.width, info.trailing_bytes) == (True, 13, 0)
    with pytest.raises(MetadataRefused, match="content credentials"):
        embed(signed, {"prompt": "a mug"})


def test_other_boxes_in_a_jpeg_are_no_credentials() -> None:
    """JPEG XT and JPEG 360 use the same segments."""
    signed = sign(SMALL["jpeg RGB"][1])
    for other in (signed.replace(b"jumdc2pa", b"jumdj360"), signed.replace(b"JP\0\1", b"XX\0\1")):
        assert not inspect(other).is_signed
        assert len(embed(other, {"prompt": "a mug"})) > len(other)


def test_extended_box_length_is_understood() -> None:
    store = manifest_store()
    signed = sign(SMALL["jpeg RGB"][1])
    long = b"\0\0\0\1jumb" + (len(store) + 8).to_bytes(8, "big")
    begin = signed.index(store[:8])
    length = int.from_bytes(signed[4:6], "big") + 8
    longer = signed[:4] + length.to_bytes(2, "big") + signed[6:begin] + long + signed[begin + 8 :]
    assert inspect(longer).is_signed
