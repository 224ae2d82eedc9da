"""Price lists as gateways publish them, what is made of them, and what is shipped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import OptionValue
from batchgen.providers.crazyrouter import CRAZYROUTER, PRICES
from batchgen.providers.local import LOCAL
from batchgen.providers.openai import OPENAI
from batchgen.providers.price_list import PriceList, PriceListError, Unit, read_price_list
from batchgen.providers.profile import Profile
from tests.support.price_list import DAY, check

Row = dict[str, Any]


def flat(name: str, **columns: object) -> Row:
    """A row with a price of its own."""
    return {"model_name": name, "quota_type": 1, "model_price": 0.058, "discount": 1, **columns}


def ruled(name: str, kind: str, *rules: Row, **columns: object) -> Row:
    """A row with its price in rules, and whose `model_price` is 0."""
    row = {"model_name": name, "quota_type": 1, "model_price": 0, "discount": 1}
    return {**row, kind: {"profile": {}, "rules": list(rules)}, **columns}


def rule(bucket: str, resolution: str, price: object, *, verified: bool = False) -> Row:
    return {
        "capability_bucket": bucket,
        "resolution": resolution,
        "platform_base_price": price,
        "platform_currency": "USD",
        "verification_status": "verified" if verified else "beta",
    }


def sound(rule: Row, *, audio: bool) -> Row:
    return {**rule, "has_audio": audio}


IMAGES = ruled(
    "images",
    "image_pricing",
    rule("t2i", "1K", 0.067),
    rule("t2i", "4K", 0.15),
    rule("i2i", "1K", 0.08, verified=True),
    rule("i2i", "4K", 0.16),
    rule("reference", "1K", 0.09),
    billing_mode="per_image",
    discount=0.55,
)
VIDEO = ruled(
    "video",
    "video_pricing",
    sound(rule("t2v", "720p", 0.2, verified=True), audio=False),
    sound(rule("t2v", "720p", 0.4), audio=True),
    sound(rule("t2v", "4k", 0.4), audio=False),
    sound(rule("t2v", "4k", 0.6), audio=True),
    billing_mode="per_second",
)
ROWS = [
    flat("flat", discount=0.65, public_endpoint_types=["image-generation"]),
    IMAGES,
    VIDEO,
    ruled("by-request", "video_pricing", rule("t2v", "", 0.35), billing_mode="per_request"),
    ruled("by-tokens", "video_pricing", rule("t2v", "", 4), billing_mode="per_output_token"),
    {"model_name": "text", "quota_type": 0, "model_price": 0, "model_ratio": 0.6, "discount": 1},
    flat("nothing", model_price=0),
]


def text(*rows: object, **more: object) -> bytes:
    document = {"success": True, "data": list(rows), "group_ratio": {"default": 1}, **more}
    return json.dumps(document).encode()


def read(*rows: object, **more: object) -> PriceList:
    return read_price_list(text(*rows, **more), source="a test", day=DAY)


@pytest.fixture(scope="module")
def prices() -> PriceList:
    return read(*ROWS)


@pytest.mark.parametrize(
    ("model", "options", "references", "micros"),
    [
        ("flat", {}, 0, 37_700),
        ("flat", {"size": "3840x2160", "quality": "high"}, 5, 37_700),
        ("images", {"resolution": "1K"}, 0, 36_850),
        ("images", {"resolution": "4k"}, 0, 82_500),
        ("images", {"resolution": "4K"}, 1, 88_000),
        ("images", {"resolution": "1K"}, 2, 49_500),
        ("images", {"resolution": "1K"}, 9, 49_500),
        ("video", {"size": "720P", "duration": 8}, 0, 1_600_000),
        ("video", {"size": "1280x720", "duration": 5}, 0, 1_000_000),
        ("video", {"size": "720x1280", "seconds": "4"}, 0, 800_000),
        ("video", {"size": "720p", "duration": 2.5}, 0, 500_000),
        ("video", {"size": "720p", "duration": 1, "generate_audio": True}, 0, 400_000),
        ("video", {"size": "3840x2160", "duration": 1, "audio": False}, 0, 400_000),
        ("by-request", {}, 0, 350_000),
    ],
)
def test_a_request_is_priced_by_the_rule_that_fits(
    prices: PriceList,
    model: str,
    options: dict[str, OptionValue],
    references: int,
    micros: int,
) -> None:
    assert prices.price(model, options, references) == micros


@pytest.mark.parametrize(
    ("options", "references", "micros"),
    [
        ({}, 0, 82_500),  # no resolution said, and no rule verified
        ({}, 1, 88_000),  # no resolution set: the highest, verified or not
        ({"resolution": "8K"}, 0, 82_500),
        ({"resolution": "8K"}, 1, 88_000),  # the highest, verified or not
        ({"size": "auto"}, 0, 82_500),
    ],
)
def test_what_the_list_does_not_know_costs_the_highest(
    prices: PriceList, options: dict[str, OptionValue], references: int, micros: int
) -> None:
    assert prices.price("images", options, references) == micros


def test_a_bucket_without_rules_costs_the_highest_of_all(prices: PriceList) -> None:
    assert prices.price("video", {"size": "720p", "duration": 1}, 1) == 600_000


def test_a_video_of_no_said_length_is_priced_at_the_common_one(prices: PriceList) -> None:
    assert prices.price("video", {"size": "720p"}, 0) == 8 * 200_000
    assert prices.price("video", {"size": "720p", "duration": "long"}, 0) is None


@pytest.mark.parametrize("model", ["text", "by-tokens", "nothing", "not listed"])
def test_a_row_without_a_price_is_unknown_and_not_free(prices: PriceList, model: str) -> None:
    assert prices.price(model, {}, 0) is None


@pytest.mark.parametrize(
    "row",
    [
        flat("it", model_price=None),
        flat("it", model_price="0.058"),
        flat("it", model_price=True),
        flat("it", model_price=-1),
        flat("it", model_price=1e300),
        flat("it", model_price=20_000),
        flat("it", discount=0),
        flat("it", discount=None),
        flat("it", discount="0.65"),
        flat("it", billing_mode="per_moon"),
        flat("it", billing_mode=["per_image"]),
        flat("it", quota_type=0, model_ratio=0.1),
        ruled("it", "image_pricing"),
        ruled("it", "image_pricing", rule("t2i", "1K", 0)),
        ruled("it", "image_pricing", {**rule("t2i", "1K", 1), "platform_currency": "CNY"}),
        ruled("it", "video_pricing", rule("t2v", "", 1)),  # an hour, or a second?
    ],
)
def test_a_row_that_says_no_usable_price_is_unknown(row: Row) -> None:
    assert read(row).price("it", {}, 0) is None


def test_one_rule_without_a_price_leaves_the_highest_unknown() -> None:
    row = ruled("it", "image_pricing", rule("t2i", "1K", 0.1), rule("t2i", "4K", None))
    assert read(row).price("it", {"resolution": "1K"}, 0) == 100_000
    assert read(row).price("it", {"resolution": "2K"}, 0) is None


def test_model_listed_twice_is_unknown_unless_equal() -> None:
    assert read(flat("it"), flat("it")).price("it", {}, 0) == 58_000
    assert read(flat("it"), flat("it", discount=0.5)).price("it", {}, 0) is None


def test_discount_and_group_ratio_multiply() -> None:
    row = flat("it", discount=0.5)
    assert read(row, group_ratio={"default": 1.5, "vip": 0.1}).price("it", {}, 0) == 43_500
    assert read(row, group_ratio={"vip": 0.1}).price("it", {}, 0) == 29_000
    assert read(flat("it")).price("it", {}, 0) == 58_000


@pytest.mark.parametrize(
    ("written", "micros"),
    [
        ("0.07142857142857142", 71_429),
        ("0.0000005", 1),
        ("1e-12", 1),
        ("1234.567890123456789", 1_234_567_890),
        ("0.1000005", 100_001),  # half up; as a binary float it would be less
    ],
)
def test_amounts_are_exact_decimals_of_the_text(written: str, micros: int) -> None:
    body = text(flat("it", model_price="PRICE")).replace(b'"PRICE"', written.encode())
    found = read_price_list(body, source="", day=DAY)
    assert found.price("it", {}, 0) == micros


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"data": [1e99999999999999999999]}', "not JSON"),
        (b'{"data": [NaN]}', "NaN is not a number"),
        (b'{"data": [' + b"9" * 5000 + b"]}", "not JSON"),
        (b"[]", "expected an object"),
        (b'{"data": {}}', "expected an object"),
        (b'{"data": []}', "names a model"),
        (b'{"data": [{"model_name": "\\u001b[2J"}, {"model_name": 7}, 8]}', "names a model"),
        (b'{"success": false, "message": "no", "data": []}', "success: false"),
        (text(flat("it"), group_ratio=[]), "group_ratio"),
        (text(flat("it"), group_ratio={"default": "1"}), "group_ratio"),
    ],
)
def test_invalid_price_list_is_refused_with_a_reason(body: bytes, message: str) -> None:
    with pytest.raises(PriceListError, match=message):
        read_price_list(body, source="", day=DAY)


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["per_second", "per_image", "t2i", "1K", "verified", "USD", 0.1, 1]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OPTIONS = st.dictionaries(
    st.sampled_from(["resolution", "size", "duration", "audio"]),
    st.sampled_from(["1K", "auto", "720p", "1280x720", "", "x", -1, 0, 3, 1e300, True, "NaN"]),
)


def places(node: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield path
    if isinstance(node, dict | list):
        for name, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(inner, (*path, name))


@given(st.binary() | ANY_JSON.map(lambda value: json.dumps(value).encode()), OPTIONS)
def test_any_text_is_a_price_list_or_refused(body: bytes, options: dict[str, OptionValue]) -> None:
    check(body, options, 0)


@given(st.data(), OPTIONS, st.integers(0, 3))
def test_no_price_list_makes_a_model_free(
    data: st.DataObject, options: dict[str, OptionValue], references: int
) -> None:
    document: Any = json.loads(text(*ROWS))
    *way, last = data.draw(st.sampled_from([path for path in places(document) if path]))
    node = document
    for step in way:
        node = node[step]
    node[last] = data.draw(ANY_JSON)
    check(json.dumps(document).encode(), options, references)


def test_people_see_what_a_rate_is_for(prices: PriceList) -> None:
    assert prices.models["flat"].variants() == (("", 37_700),)
    assert prices.models["nothing"].variants() == (("", None),)
    assert ("i2i 4k", 88_000) in prices.models["images"].variants()
    assert ("720p silent", 200_000) in prices.models["video"].variants()


@pytest.mark.parametrize("profile", [CRAZYROUTER, LOCAL, OPENAI])
def test_every_model_that_is_shipped_has_a_price(profile: Profile) -> None:
    assert profile.prices is not None
    for model in profile.prices.models:
        price = profile.price(model)
        assert price is not None
        assert price > 0
    assert profile.price("an unknown model") is None


def test_url_of_a_price_list_is_below_the_root() -> None:
    assert CRAZYROUTER.price_url == "https://cn.crazyrouter.com/api/pricing"
    assert LOCAL.price_url is None
    assert OPENAI.price_url is None


@pytest.fixture(scope="module")
def real() -> PriceList:
    directory = os.environ.get("BATCHGEN_TEST_DATA")
    if not directory:
        pytest.skip("BATCHGEN_TEST_DATA names no directory with the provider's own list")
    path = Path(directory, "crazyrouter-api-pricing-2026-06-06.json")
    return read_price_list(path.read_bytes(), source="real", day=DAY)


@pytest.mark.parametrize(
    ("model", "options", "micros"),
    [
        ("gpt-image-2", {}, 37_700),
        ("grok-4-image", {"resolution": "2k"}, 44_000),
        ("nano-banana", {"resolution": "1K"}, 21_450),
        ("nano-banana-2", {"resolution": "1K"}, 36_850),
        ("nano-banana-2", {"resolution": "2K"}, 55_550),
        ("nano-banana-2", {"resolution": "4K"}, 82_500),
        ("nano-banana-pro", {"resolution": "2K"}, 73_700),
        ("nano-banana-pro", {"resolution": "4K"}, 132_000),
        ("qwen-image-plus", {}, 28_571),
        ("qwen-image-max", {"size": "1328x1328"}, 71_429),
        ("veo-3.1", {"size": "1080P", "duration": 1}, 200_000),
        ("veo-3.1", {"size": "4k", "duration": 1, "audio": True}, 600_000),
        ("veo-3.1-fast", {"size": "720P", "duration": 8}, 800_000),
        ("glm-4-flash", {}, None),
        ("gpt-5.1", {}, None),
    ],
)
def test_real_list_gives_published_prices(
    real: PriceList, model: str, options: dict[str, OptionValue], micros: int | None
) -> None:
    assert real.price(model, options, 0) == micros


def test_in_the_real_list_nothing_reads_as_free(real: PriceList) -> None:
    assert len(real.models) == 250
    unknown = set()
    for model, price in real.models.items():
        amount = real.price(model, {}, 0)
        assert amount is None or amount > 0
        if amount is None and price.unit is not Unit.TOKEN:
            unknown.add(model)
    assert unknown == {"glm-4-flash"}


def test_what_is_shipped_prices_as_the_real_list_does(real: PriceList) -> None:
    resolutions = ("auto", "1k", "2K", "4K", "8K", "720P", "1080p", "1280x720", "1024x1024")
    names = ("resolution", "size")
    sounds: list[dict[str, OptionValue]] = [{}, {"audio": True}, {"audio": False}]
    for model, name, resolution, more, references in product(
        PRICES.models, names, resolutions, sounds, range(4)
    ):
        asked = {name: resolution, **more}
        shipped = PRICES.price(model, asked, references)
        assert shipped == real.price(model, asked, references), (model, asked, references)
