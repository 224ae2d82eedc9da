"""Rules and drawings of the embedded endpoint, for any request."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchgen.simulator.drawing import Drawing, draw, draw_fast
from batchgen.simulator.errors import ApiError
from batchgen.simulator.faults import Behavior, Fault
from batchgen.simulator.models import rules
from tests.support.endpoint import PROMPT

NAMES = ["model", "prompt", "n", "size", "quality", "background", "output_format", "style"]
MORE_NAMES = ["output_compression", "moderation", "stream", "partial_images", "user", "other"]
WORDS = ["gpt-image-2", "auto", "1024x1024", "low", "png", "webp", "opaque", "0", "1", "true", ""]
TEXTS = st.sampled_from(WORDS) | st.text(max_size=12)
JSON = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.lists(st.integers())


@given(
    fields=st.dictionaries(st.sampled_from(NAMES + MORE_NAMES), JSON | TEXTS),
    texts=st.dictionaries(st.sampled_from(NAMES + MORE_NAMES), TEXTS),
)
def test_any_fields_make_a_lawful_request_or_an_error(
    fields: dict[str, Any], texts: dict[str, str]
) -> None:
    named = {"model": "gpt-image-2", "prompt": PROMPT}
    check_lawful(lambda: rules.generation({**named, **fields}, block_word="never"))
    check_lawful(lambda: rules.edit({**named, **texts}, block_word="never"))


def check_lawful(read: Callable[[], rules.ImageRequest]) -> None:
    try:
        wanted = read()
    except ApiError as refused:
        status = refused.status
    else:
        status = 200
        assert 1 <= wanted.n <= 10
        assert wanted.output_format in ("png", "jpeg", "webp")
        assert rules.parse_size(wanted.size) == (wanted.width, wanted.height)
    assert status in (200, 400, 503)


def image(name: str, file_format: str, prompt: str = PROMPT) -> Drawing:
    return Drawing(
        name=name,
        prompt=prompt,
        model="gpt-image-2",
        quality="low",
        width=1024,
        height=640,
        output_format=file_format,
        compression=None,
        references=1,
    )


@given(prompt=st.text(min_size=1, max_size=300))
def test_any_prompt_can_be_drawn(prompt: str) -> None:
    with Image.open(io.BytesIO(draw(image("any-1", "jpeg", prompt)))) as drawn:
        assert drawn.size == (1024, 640)


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_fast_images_are_whole_and_never_the_same_file(file_format: str) -> None:
    files = {draw_fast(image(f"name-{number}", file_format)) for number in range(3)}
    assert len(files) == 3
    for file in files:
        with Image.open(io.BytesIO(file)) as drawn:
            drawn.load()
            assert (drawn.format, drawn.size) == (file_format.upper(), (1024, 640))


def test_faults_hit_their_share_and_depend_on_the_seed() -> None:
    rates = {Fault.BREAK: 0.2, Fault.BILL_DROP: 0.3, Fault.DOWNLOAD_ERROR: 0.5}
    drawn = [Behavior(seed=7, rates=rates).post_fault(number) for number in range(4_000)]
    assert drawn == [Behavior(seed=7, rates=rates).post_fault(n) for n in range(4_000)]
    assert drawn != [Behavior(seed=8, rates=rates).post_fault(n) for n in range(4_000)]
    assert 0.17 < drawn.count(Fault.BREAK) / 4_000 < 0.23
    assert 0.27 < drawn.count(Fault.BILL_DROP) / 4_000 < 0.33
    assert Fault.DOWNLOAD_ERROR not in drawn
