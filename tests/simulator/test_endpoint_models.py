"""The other models of the embedded endpoint's Images route: their rules, sizes and prices."""

from __future__ import annotations

import base64
import io
from datetime import date
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchgen.providers.crazyrouter import PRICES
from batchgen.providers.price_list import PriceList, read_price_list
from batchgen.simulator.errors import ApiError
from batchgen.simulator.models import registry
from batchgen.simulator.models.rules import ImageRequest
from batchgen.simulator.models.sizes import fitted_size
from tests.support import rig
from tests.support.endpoint import KEY, PNG, error_of

URL = "https://images.example/mug.png"


@pytest.fixture(scope="module")
def listed(served: rig.Endpoint) -> PriceList:
    """The endpoint's own price list as batchgen reads it."""
    body = httpx.get(served.base_url.removesuffix("/v1") + "/api/pricing").content
    return read_price_list(body, source="the endpoint", day=date(2026, 11, 22))


def ask(endpoint: rig.Endpoint, model: str, **body: Any) -> httpx.Response:
    return httpx.post(
        f"{endpoint.base_url}/images/generations",
        json={"model": model, "prompt": "A mug", **body},
        headers=KEY,
        timeout=60,
    )


def image_of(item: dict[str, str]) -> Image.Image:
    data = base64.b64decode(item["b64_json"]) if item.get("b64_json") else None
    image = Image.open(io.BytesIO(data or httpx.get(item["url"]).content))
    image.load()
    return image


IMAGES: list[tuple[str, dict[str, Any], tuple[int, int], str]] = [
    ("gpt-image-2", {"size": "1024x640"}, (1024, 640), "PNG"),
    ("grok-4-image", {}, (1024, 1024), "JPEG"),
    ("grok-4-image", {"aspect_ratio": "16:9", "resolution": "1k"}, (1360, 768), "JPEG"),
    ("grok-4-image", {"aspect_ratio": "3:2", "resolution": "2k"}, (2512, 1680), "JPEG"),
    ("grok-4-image", {"aspect_ratio": "auto", "response_format": "url"}, (1024, 1024), "JPEG"),
    ("qwen-image-plus", {}, (1328, 1328), "PNG"),
    ("qwen-image-max", {"size": "1664x928"}, (1664, 928), "PNG"),
    ("qwen-image-2.0", {"size": "1024x1024"}, (1024, 1024), "PNG"),
    ("nano-banana", {"resolution": "1K", "aspect_ratio": "auto"}, (1024, 1024), "PNG"),
    ("nano-banana-2", {"resolution": "1K", "aspect_ratio": "16:9"}, (1376, 768), "PNG"),
    ("nano-banana-2", {"resolution": "2K", "output_format": "jpg"}, (2048, 2048), "JPEG"),
    ("nano-banana-2", {"resolution": "4K", "aspect_ratio": "21:9"}, (6336, 2688), "PNG"),
    ("nano-banana-pro", {"resolution": "2K", "aspect_ratio": "9:16"}, (1536, 2752), "PNG"),
    ("nano-banana-pro", {"resolution": "4K", "output_compression": 80}, (4096, 4096), "PNG"),
]


@pytest.mark.parametrize(("model", "options", "size", "form"), IMAGES)
def test_images_have_requested_size_and_listed_price(
    model: str,
    options: dict[str, Any],
    size: tuple[int, int],
    form: str,
    served: rig.Endpoint,
    listed: PriceList,
) -> None:
    (item,) = ask(served, model, **options).json()["data"]
    image = image_of(item)
    assert (image.size, image.format) == (size, form)
    row = served.bill()[-1]
    assert (row["model"], row["n"]) == (model, 1)
    assert row["micros"] == listed.price(model, options, 0)
    assert row["micros"] == PRICES.price(model, options, 0)


def test_references_and_several_images_cost_what_the_list_says(
    served: rig.Endpoint, listed: PriceList
) -> None:
    for count in (1, 2, 14):
        response = ask(served, "nano-banana-2", image_input=[URL] * count, resolution="2K", n=2)
        assert len(response.json()["data"]) == 2
        price = listed.price("nano-banana-2", {"resolution": "2K"}, count)
        assert served.bill()[-1]["micros"] == 2 * (price or 0) == 111_100


def test_image_of_grok_comes_with_its_type_and_always_as_a_url(served: rig.Endpoint) -> None:
    response = ask(served, "grok-4-image", response_format="b64_json").json()
    (item,) = response["data"]
    assert set(item) == {"url", "mime_type", "revised_prompt"}
    assert item["mime_type"] == "image/jpeg"
    assert item["revised_prompt"] == "A mug"
    assert set(response) == {"created", "data"}


def test_qwen_responds_in_the_requested_form(served: rig.Endpoint) -> None:
    for form, other in (("url", "b64_json"), ("b64_json", "url")):
        (item,) = ask(served, "qwen-image-max", response_format=form).json()["data"]
        assert item[form]
        assert not item[other]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("grok-4-image", {"size": "1024x1024"}, "Argument not supported: size"),
    ("grok-4-image", {"quality": "high"}, "Argument not supported: quality"),
    ("grok-4-image", {"style": "vivid"}, "Argument not supported: style"),
    ("grok-4-image", {"n": 2}, "Invalid value 2 for n"),
    ("grok-4-image", {"resolution": "1K"}, "for resolution"),
    ("grok-4-image", {"aspect_ratio": "wide"}, "for aspect_ratio"),
    ("grok-4-image", {"aspect_ratio": "4:1"}, "for aspect_ratio"),
    ("qwen-image-plus", {"size": "auto"}, "Expected WIDTHxHEIGHT"),
    ("qwen-image-plus", {"size": "99x1024"}, "Expected WIDTHxHEIGHT"),
    ("nano-banana-2", {"generationConfig": {}}, 'Unknown name "generationConfig"'),
    ("nano-banana-2", {"imageConfig": {}}, 'Unknown name "imageConfig"'),
    ("nano-banana-2", {"imageOutputOptions": {}}, 'Unknown name "imageOutputOptions"'),
    ("nano-banana-2", {"resolution": "2k"}, "for resolution"),
    ("nano-banana", {"resolution": "2K"}, "for resolution"),
    ("nano-banana-2", {"aspect_ratio": "7:5"}, "for aspect_ratio"),
    ("nano-banana-2", {"output_format": "webp"}, "for output_format"),
    ("nano-banana-2", {"image_input": "data:image/png;base64,AAAA"}, "public URLs"),
    ("nano-banana-2", {"image_input": ["mug.png"]}, "public URLs"),
    ("nano-banana-2", {"image_input": [URL] * 15}, "at most 14"),
    ("nano-banana", {"image_input": [URL] * 11}, "at most 10"),
    ("nano-banana-pro", {"image_input": [URL] * 3}, "at most 2"),
    ("nano-banana-pro", {"image": URL}, 'Unknown name "image"'),
    ("qwen-image-max", {"prompt": "a forbidden-word"}, "safety system"),
    ("grok-4-image", {"prompt": "a forbidden-word"}, "safety system"),
    ("nano-banana", {"prompt": ""}, "'prompt'"),
]


@pytest.mark.parametrize(("model", "body", "message"), REFUSED)
def test_what_a_model_does_not_take_is_refused_and_free(
    model: str, body: dict[str, Any], message: str, served: rig.Endpoint
) -> None:
    before = len(served.bill())
    refused = ask(served, model, **body)
    assert refused.status_code == 400
    assert message in refused.json()["error"]["message"]
    assert len(served.bill()) == before


@pytest.mark.parametrize("model", ["grok-4-image", "qwen-image-plus", "nano-banana-pro"])
def test_edits_are_for_gpt_image_only(model: str, served: rig.Endpoint) -> None:
    refused = httpx.post(
        f"{served.base_url}/images/edits",
        data={"model": model, "prompt": "A mug"},
        files={"image": PNG},
        headers=KEY,
    )
    assert error_of(refused) == (500, "convert_request_failed")


def test_every_model_is_listed_and_has_a_price(served: rig.Endpoint, listed: PriceList) -> None:
    response = httpx.get(f"{served.base_url}/models", headers=KEY).json()
    names = {model["id"] for model in response["data"]}
    assert names == set(listed.models) - {"gpt-5.1"}
    assert {"grok-4-image", "qwen-image-2.0", "nano-banana-pro"} < names
    assert all(listed.price(name, {}, 0) for name in names)
    assert listed.price("gpt-5.1", {}, 0) is None


def test_the_price_that_can_be_chosen_is_that_of_gpt_image(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with rig.endpoint(tmp_path_factory.mktemp("dear"), "--price", "0.05") as dear:
        assert ask(dear, "gpt-image-2", size="1024x640").status_code == 200
        assert ask(dear, "grok-4-image").status_code == 200
        assert [row["micros"] for row in dear.bill()] == [50_000, 44_000]


WORDS = ["auto", "1:1", "16:9", "1k", "2K", "1024x1024", "png", "url", "", "0", URL]
VALUES = st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS) | st.text(max_size=9)
NAMES = [
    "size", "n", "quality", "resolution", "aspect_ratio", "response_format", "image_input",
    "output_format", "output_compression", "image", "style", "other",
]  # fmt: skip


@given(
    model=st.sampled_from([*registry.READERS]),
    fields=st.dictionaries(st.sampled_from(NAMES), VALUES | st.lists(VALUES, max_size=3)),
)
def test_any_fields_make_a_priced_request_or_an_error(model: str, fields: dict[str, Any]) -> None:
    try:
        wanted = registry.generation({"prompt": "A mug", **fields, "model": model}, block_word="")
    except ApiError as refused:
        status = refused.status
    else:
        status = 200
        check_lawful(wanted)
    assert status in (200, 400)


def check_lawful(wanted: ImageRequest) -> None:
    assert registry.price(wanted, gpt_image=37_700) > 0
    assert min(wanted.width, wanted.height) >= 256
    assert 1 <= wanted.n <= 10


@given(across=st.integers(1, 40), down=st.integers(1, 40), side=st.sampled_from([1024, 2048]))
def test_a_ratio_is_kept_to_a_step(across: int, down: int, side: int) -> None:
    size = fitted_size(f"{across}:{down}", side)
    if max(across, down) > 3 * min(across, down):
        assert size is None
    else:
        assert size is not None
        width, height = size
        assert width % 16 == height % 16 == 0
        assert abs(width * down - height * across) <= 16 * (across + down)
        assert 0.95 < width * height / side**2 < 1.05
