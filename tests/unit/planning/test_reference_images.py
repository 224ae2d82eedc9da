"""Reference images are read before anything is sent, and what is wrong is said in their name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.images.inspect import MAX_BYTES
from batchgen.planning.reference_images import FetchedReference, find_reference
from tests.support import rig
from tests.support.plans import trusted_names


class Noted:
    """URLs that are all fetched to one file, or to none."""

    def __init__(self, copy: FetchedReference) -> None:
        self.copy = copy

    def find(self, url: str) -> FetchedReference:
        return self.copy


def test_file_is_identified_and_recognized_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(rig.image(tmp_path / "a.webp", size=(20, 10)))
    reference = find_reference("photo.jpg", trusted_names(tmp_path), None)
    assert reference.location == str(tmp_path / "photo.jpg")
    assert reference.image is not None
    assert (reference.image.format, reference.image.width) == ("webp", 20)
    assert reference.identity == find_reference("a.webp", trusted_names(tmp_path), None).identity


def test_what_a_phone_appends_to_a_photo_does_no_harm(tmp_path: Path) -> None:
    photo = rig.image(tmp_path / "a.jpg")
    (tmp_path / "motion.jpg").write_bytes(photo + b"a film" * 1000)
    found = find_reference("motion.jpg", trusted_names(tmp_path), None).image
    assert found is not None
    assert found.size_bytes == len(photo) + 6000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"GIF89a" + bytes(50), "a GIF, not a PNG, JPEG or WebP image"),
        (b"<!DOCTYPE html><p>gone", "an HTML page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(4), "is cut off"),
    ],
)
def test_broken_image_is_reported_with_the_expected_formats(
    content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"a\.png cannot be used: .*; expected a complete PNG, JPEG or WebP"
    ) as caught:
        find_reference("a.png", trusted_names(tmp_path), None)
    assert words in str(caught.value)


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MAX_BYTES * 1000)
    with pytest.raises(ValueError, match="67,108,864,000 bytes; expected at most 67,108,864"):
        find_reference("a.png", trusted_names(tmp_path), None)


def test_a_file_replaced_at_the_same_size_and_time_is_reread(tmp_path: Path) -> None:
    def write(name: str, color: str) -> None:
        rig.image(tmp_path / name, color)
        os.utime(tmp_path / name, ns=(1, 1))

    write("a.png", "#102030")
    before = find_reference("a.png", trusted_names(tmp_path), None)
    write("b.png", "#102031")
    assert (tmp_path / "b.png").stat().st_size == (tmp_path / "a.png").stat().st_size
    (tmp_path / "b.png").replace(tmp_path / "a.png")
    assert find_reference("a.png", trusted_names(tmp_path), None).identity != before.identity


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ftp://shop.example/a.png", "unsupported reference image URL"),
        ("https://", "URL is not valid"),
        ("https://shop.example/a mug.png", "%20 for a space"),
        ("https://[shop/a.png", "URL is not valid"),
        ("https://shop.example/" + "a" * 9000, "URL is not valid"),
        ("https://shop.example/\x1b[2J", "shop.example/\ufffd[2J"),
    ],
)
def test_invalid_url_of_a_reference_is_a_fault(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reference image") as caught:
        find_reference(text, trusted_names(tmp_path), None)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("url", ["https://shop.example/a.png", "HTTP://Shop.Example/a.png?v=1"])
def test_url_is_its_own_identity_until_it_is_fetched(url: str, tmp_path: Path) -> None:
    for known in (None, Noted(FetchedReference())):
        reference = find_reference(url, trusted_names(tmp_path), known)
        assert (reference.location, reference.identity) == (url, f"address:{url}")
        assert reference.is_remote
        assert not reference.refusal


def test_damaged_copy_refuses_the_job_without_a_fault(tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(rig.image(copy)[:-9])
    known = Noted(FetchedReference(path=copy, sha256="5e"))
    reference = find_reference("https://shop.example/a.png", trusted_names(tmp_path), known)
    assert (reference.image, reference.identity) == (None, "sha256:5e")
    assert "is cut off" in reference.refusal


@given(st.text(max_size=200))
def test_any_text_is_found_or_a_fault(text: str) -> None:
    try:
        reference = find_reference(text, trusted_names(Path(__file__).parent), None)
    except ValueError:
        return
    assert reference.is_remote or Path(reference.location).is_file()
