"""Rules for reference images and masks; the local endpoint agrees with them."""

from __future__ import annotations

import io
from datetime import date
from pathlib import Path

import pytest
from PIL import Image

from batchgen.images.formats import ImageFormat, ImageInfo
from batchgen.planning.reference_images import Reference, find_reference
from batchgen.providers.registry import PROFILES
from batchgen.providers.rules.model_rules import Rulebook
from batchgen.simulator.errors import ApiError
from batchgen.simulator.uploads import Upload, check_uploads
from tests.support.plans import trusted_names


def reference(
    name: str,
    kind: ImageFormat = ImageFormat.PNG,
    *,
    side: int = 64,
    size: int = 1000,
    alpha: bool = False,
    remote: bool = False,
) -> Reference:
    image = ImageInfo(format=kind, width=side, height=64, size_bytes=size, has_alpha=alpha)
    return Reference(name=name, location=name, identity="", image=image, is_remote=remote)


PHOTO = reference("photo.jpg", ImageFormat.JPEG)
MASK = reference("mask.png", alpha=True)


def book(provider: str = "crazyrouter", *, refuse: bool = True) -> Rulebook:
    models = PROFILES[provider].models
    return Rulebook(provider=provider, models=models, today=date(2026, 11, 22), refuse=refuse)


@pytest.mark.parametrize(
    ("images", "mask", "place", "words"),
    [
        ([PHOTO], reference("m.png"), ("mask",), "m.png has no alpha channel"),
        (
            [PHOTO],
            reference("m.webp", ImageFormat.WEBP, alpha=True),
            ("mask",),
            "m.webp is a WEBP image, but a mask must be PNG",
        ),
        (
            [PHOTO],
            reference("m.png", side=65, alpha=True),
            ("mask",),
            "m.png is 65x64, but a mask must have the size of the first image, photo.jpg: 64x64",
        ),
        (
            [reference("https://x/a.png", remote=True)],
            reference("m.png", side=65, alpha=True),
            ("images", 0),
            "scale the mask to 64x64",
        ),
        (
            [PHOTO],
            reference("m.png", size=4_000_000, alpha=True),
            ("mask",),
            "m.png has 4,000,000 bytes, but a mask must be under 4 MB",
        ),
        (
            [PHOTO, reference("b.png", size=50_000_000)],
            None,
            ("images", 1),
            "b.png has 50,000,000 bytes, but a reference image must be under 50 MB",
        ),
    ],
)
def test_a_fault_names_the_file_the_rule_its_source_and_a_remedy(
    images: list[Reference], mask: Reference | None, place: tuple[object, ...], words: str
) -> None:
    (objection,) = book().of_references("gpt-image-2", images, mask)
    assert objection.place == place
    assert words in objection.message
    assert "(OpenAI's image reference, November 2026); " in objection.message
    assert objection.fatal
    (warning,) = book(refuse=False).of_references("gpt-image-2", images, mask)
    assert (warning.message, warning.fatal) == (objection.message, False)


def test_what_is_just_within_bounds_passes() -> None:
    images = [reference("a.png", size=49_999_999), *[PHOTO] * 15]
    mask = reference("m.png", size=3_999_999, alpha=True)
    for provider in PROFILES:
        assert book(provider).of_references("gpt-image-2", images, mask) == ()


def test_what_is_not_fetched_yet_is_judged_by_what_is_known() -> None:
    unknown = Reference(name="u", location="u", identity="", is_remote=True)
    assert book().of_references("gpt-image-2", [unknown], MASK) == ()
    assert book().of_references("gpt-image-2", [PHOTO], unknown) == ()
    (objection,) = book().of_references("gpt-image-2", [unknown], reference("m.png"))
    assert "no alpha channel" in objection.message


def test_the_oldest_model_takes_png_only() -> None:
    (objection,) = book("openai").of_references("dall-e-2", [PHOTO], None)
    assert "photo.jpg is a JPEG image, but a reference image must be PNG" in objection.message


def test_an_unknown_model_is_asked_to_judge_for_itself() -> None:
    assert book().of_references("gpt-image-9", [PHOTO], reference("m.png", side=1)) == ()


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "LA", "L", "P"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("side", [64, 32])
def test_the_rules_say_of_masks_what_the_endpoint_says(
    mode: str, kind: str, side: int, tmp_path: Path
) -> None:
    def upload(name: str, mode: str, kind: str, side: int) -> Upload:
        buffer = io.BytesIO()
        image = Image.new("RGBA", (side, side), (10, 20, 30, 0))
        image.convert(mode if kind != "JPEG" else "RGB").save(buffer, kind)
        (tmp_path / name).write_bytes(buffer.getvalue())
        return Upload(content=buffer.getvalue(), mime_type=f"image/{kind.lower()}")

    photo, mask = upload("a.jpg", "RGB", "JPEG", 64), upload("m.png", mode, kind, side)
    known = [find_reference(name, trusted_names(tmp_path), None) for name in ("a.jpg", "m.png")]
    objections = book("local").of_references("gpt-image-2", known[:1], known[1])
    try:
        check_uploads([photo], mask)
    except ApiError:
        assert objections
    else:
        assert not objections
