"""Rules of models: valid and invalid values, the nearest valid one, and the endpoint's view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import OptionValue
from batchgen.providers import crazyrouter, openai
from batchgen.providers.adapters.registry import Route
from batchgen.providers.registry import PROFILES
from batchgen.providers.rules.model_rules import ModelRules, Rulebook, faults_of
from batchgen.providers.rules.size_rules import SizeGrid, nearest_legal_size
from batchgen.providers.token_prices import OPENAI_TOKEN_PRICES
from batchgen.simulator.errors import ApiError
from batchgen.simulator.models.rules import edit, generation, parse_size
from tests.support import rig

Options = Mapping[str, OptionValue]

GPT_IMAGE_2 = crazyrouter.GPT_IMAGE_2
GRID = SizeGrid(step=16, max_side=3840, min_pixels=655_360, max_pixels=8_294_400, max_ratio=3)
TODAY = date(2026, 11, 22)
LEGAL_SIZES = [
    "1024x1024", "1536x1024", "1024x1536", "1792x1024", "1344x768", "1280x720", "720x1280",
    "1200x1200", "1600x1600", "1920x1088", "1088x1920", "2000x2000", "2048x2048", "2560x1440",
    "2880x2880", "3840x2160", "1024x640", "816x816", "3840x1280", "2048x1152", "2160x3840",
]  # fmt: skip


def rules_of(provider: str, model: str) -> ModelRules:
    return PROFILES[provider].models[model]


def messages(rules: ModelRules, options: Options, references: int = 0) -> list[str]:
    return [objection.message for objection in faults_of(rules, options, references)]


def book(provider: str, *, today: date = TODAY, refuse: bool = True) -> Rulebook:
    models = PROFILES[provider].models
    return Rulebook(provider=provider, models=models, today=today, refuse=refuse)


# sizes


@pytest.mark.parametrize("size", [*LEGAL_SIZES, "auto"])
def test_documented_sizes_pass(size: str) -> None:
    assert messages(GPT_IMAGE_2, {"size": size}) == []
    assert messages(rules_of("openai", "gpt-image-2.6-flare"), {"size": size}) == []


@pytest.mark.fault("M16")
@pytest.mark.parametrize(
    ("size", "rule", "nearest"),
    [
        ("1920x1080", "multiples of 16", "1920x1088"),
        ("1080x1920", "multiples of 16", "1088x1920"),
        ("1080x1080", "multiples of 16", "1088x1088"),
        ("1000x1000", "multiples of 16", "1008x1008"),
        ("1400x1400", "multiples of 16", "1408x1408"),
        ("3000x2000", "multiples of 16", "3008x2000"),
        ("1200x628", "multiples of 16", "1200x640"),
        ("1500x500", "multiples of 16", "1504x512"),
        ("512x512", "at least 655,360 pixels", "816x816"),
        ("800x800", "at least 655,360 pixels", "816x816"),
        ("3840x2176", "at most 8,294,400 pixels", "3824x2160"),
        ("7680x4320", "no side may exceed 3840 and the size must have at most", "3840x2160"),
        ("4096x1024", "no side may exceed 3840 and the long side must be at most 3", "3840x1280"),
        ("1x1", "multiples of 16", "816x816"),
        ("1024X1024", "WIDTHxHEIGHT", "1024x1024"),
        (" 1920 x 1080px", "WIDTHxHEIGHT", "1920x1088"),
        ("0x0", "WIDTHxHEIGHT", "816x816"),
    ],
)
def test_invalid_size_is_reported_with_rule_and_nearest_value(
    size: str, rule: str, nearest: str
) -> None:
    (message,) = messages(GPT_IMAGE_2, {"size": size})
    assert message.startswith(f"invalid value {size!r}: ")
    assert rule in message
    assert message.endswith(
        f"(Crazyrouter's page on gpt-image-2, June 2026); the nearest valid value is {nearest}"
    )


@pytest.mark.parametrize("size", ["large", "", "1024", 1024, True, 1.5, "16:9", "x" * 1000])
def test_invalid_size_is_reported_with_an_example(size: OptionValue) -> None:
    (message,) = messages(GPT_IMAGE_2, {"size": size})
    assert message.endswith("write it like 1024x1024")
    assert len(message) < 300


SIDES = st.integers(1, 5_000) | st.integers(1, 999_999) | st.integers(1, 300).map(lambda n: 16 * n)


@given(SIDES, SIDES)
def test_the_nearest_size_is_legal_and_its_own_nearest(width: int, height: int) -> None:
    size = nearest_legal_size(GRID, width, height)
    assert parse_size(f"{size[0]}x{size[1]}") == size
    assert nearest_legal_size(GRID, *size) == size


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_nearest_size_keeps_the_ratio_within_a_grid_step(width: int, height: int) -> None:
    near = nearest_legal_size(GRID, width, height)
    wanted = min(max(width / height, 1 / 3), 3)
    assert near[0] / near[1] == pytest.approx(wanted, rel=0.05)


@given(st.integers(950, 2_800), st.integers(950, 2_800))
def test_where_the_bounds_allow_it_nothing_is_lost(width: int, height: int) -> None:
    near = nearest_legal_size(GRID, width, height)
    assert near == (-(-width // 16) * 16, -(-height // 16) * 16)


@given(SIDES, SIDES)
def test_size_rule_agrees_with_the_endpoint(width: int, height: int) -> None:
    size = f"{width}x{height}"
    assert bool(messages(GPT_IMAGE_2, {"size": size})) is is_refused({"size": size})


# gpt-image-2 at Crazyrouter, row by row


@pytest.mark.parametrize(
    "options",
    [
        {},
        *({"quality": quality} for quality in ("auto", "low", "medium", "high", "hd")),
        *({"background": background} for background in ("auto", "opaque")),
        *({"output_format": format_} for format_ in ("png", "jpeg", "webp")),
        *({"moderation": moderation} for moderation in ("auto", "low")),
        {"output_format": "jpeg", "output_compression": 0},
        {"output_format": "webp", "output_compression": 100},
        {"stream": False},
        {"stream": True, "partial_images": 0},
        {"stream": True, "partial_images": 3},
        {"user": "shop-7"},
    ],
)
def test_what_the_page_allows_passes_here_and_at_the_endpoint(options: Options) -> None:
    assert messages(GPT_IMAGE_2, options) == []
    assert not is_refused(options)


REFUSED: list[tuple[Options, str, str]] = [
    (
        {"response_format": "b64_json"},
        "is not supported",
        "output_format selects png, jpeg or webp",
    ),
    ({"style": "vivid"}, "is not supported", "describe the style in the prompt"),
    ({"input_fidelity": "high"}, "is not supported", "remove it"),
    ({"background": "transparent"}, "auto or opaque", "nearest valid value is opaque"),
    ({"quality": "standard"}, "auto, low, medium, high or hd", "nearest valid value is auto"),
    ({"quality": "hihg"}, "auto, low, medium, high or hd", "nearest valid value is high"),
    ({"quality": "HIGH"}, "auto, low, medium, high or hd", "nearest valid value is high"),
    ({"quality": "best"}, "auto, low, medium, high or hd", "use one of these"),
    ({"output_format": "jpg"}, "png, jpeg or webp", "nearest valid value is jpeg"),
    ({"moderation": "none"}, "auto or low", "use one of these"),
    ({"output_compression": 80}, "not png, its default", "use output_format: jpeg"),
    (
        {"output_compression": 80, "output_format": "png"},
        "output_compression requires output_format: jpeg or webp, not 'png'",
        "or remove output_compression",
    ),
    ({"output_compression": 101, "output_format": "webp"}, "0 to 100", "value is 100"),
    ({"output_compression": -1, "output_format": "webp"}, "0 to 100", "value is 0"),
    ({"output_compression": 80.5, "output_format": "webp"}, "integer", "value is 80"),
    ({"output_compression": "80", "output_format": "webp"}, "integer", "is 80, without quotes"),
    ({"output_compression": "best", "output_format": "webp"}, "integer", "write a number"),
    ({"output_compression": True, "output_format": "webp"}, "integer", "write a number"),
    ({"partial_images": 2}, "requires stream: true, not false", "use stream: true"),
    ({"partial_images": 0, "stream": False}, "not false", "or remove partial_images"),
    ({"partial_images": 4, "stream": True}, "0 to 3", "value is 3"),
    ({"stream": "true"}, "true or false", "write true without quotes"),
    ({"stream": 1}, "true or false", "use one of these"),
    ({"user": 7}, "expected text", "quote it: '7'"),
    ({"size": 1024}, "auto or WIDTHxHEIGHT", "write it like 1024x1024"),
]


@pytest.mark.parametrize(("options", "rule", "remedy"), REFUSED)
def test_documented_refusals_agree_with_the_endpoint(
    options: Options, rule: str, remedy: str
) -> None:
    (message,) = messages(GPT_IMAGE_2, options)
    assert rule in message
    assert remedy in message
    assert "(Crazyrouter's page on gpt-image-2, June 2026)" in message
    assert is_refused(options)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("qualty", "did you mean 'quality'?"),
        ("Size", "did you mean 'size'?"),
        ("seed", "known options are size, quality, background"),
    ],
)
def test_an_option_that_would_be_dropped_and_billed_is_a_fault(name: str, words: str) -> None:
    (message,) = messages(GPT_IMAGE_2, {name: "auto"})
    assert message.startswith(f"unknown option {name!r}: the provider ignores")
    assert words in message
    assert not is_refused({name: "auto"})


def test_images_are_counted_by_count_and_never_by_n() -> None:
    for profile in PROFILES.values():
        for rules in profile.models.values():
            (message,) = messages(rules, {"n": 1})
            assert "use count: for several images" in message


def test_sixteen_references_are_taken_and_no_more() -> None:
    assert messages(GPT_IMAGE_2, {}, 16) == []
    (fault,) = faults_of(GPT_IMAGE_2, {}, 17)
    assert fault.place == ("images",)
    assert "at most 16 reference images are supported, not 17" in fault.message


def test_moderation_is_for_generations_only() -> None:
    assert messages(GPT_IMAGE_2, {"moderation": "low"}) == []
    (message,) = messages(GPT_IMAGE_2, {"moderation": "low"}, 1)
    assert "not supported with reference images" in message


def test_all_faults_are_reported_at_once_with_their_options() -> None:
    options: Options = {"size": "1x1", "quality": "x", "output_compression": 5, "stile": "y"}
    places = [fault.place for fault in faults_of(GPT_IMAGE_2, options, 17)]
    assert places == [
        ("options", "size"),
        ("options", "quality"),
        ("options", "stile"),
        ("options", "output_compression"),
        ("images",),
    ]


def test_a_condition_waits_for_the_values_it_is_about() -> None:
    (message,) = messages(GPT_IMAGE_2, {"stream": "true", "partial_images": 2})
    assert message.startswith("invalid value 'true'")


VALUES: st.SearchStrategy[OptionValue] = st.one_of(
    st.booleans(),
    st.integers(-2, 105),
    st.floats(),
    st.sampled_from(
        ["auto", "low", "high", "hd", "opaque", "transparent", "png", "jpeg", "webp", "80", "true"]
    ),
    st.sampled_from(LEGAL_SIZES),
    st.text(min_size=1),
)


@given(
    st.dictionaries(
        st.sampled_from([*GPT_IMAGE_2.options, *GPT_IMAGE_2.refused]), VALUES, max_size=5
    )
)
def test_known_options_are_judged_as_the_endpoint_judges_them(
    options: dict[str, OptionValue],
) -> None:
    assert bool(messages(GPT_IMAGE_2, options)) is is_refused(options)


@given(st.dictionaries(st.sampled_from([*GPT_IMAGE_2.options]), VALUES, max_size=5))
def test_what_passes_here_passes_as_an_edit_too(options: dict[str, OptionValue]) -> None:
    if not messages(GPT_IMAGE_2, options, 1):
        fields = {"model": "gpt-image-2", "prompt": "A mug", **options}
        texts = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in fields.items()
        }
        edit(texts, block_word="")


def is_refused(options: Options) -> bool:
    """What the embedded endpoint, which knows nothing of our rules, says of a generation."""
    try:
        generation({"model": "gpt-image-2", "prompt": "A mug", **options}, block_word="")
    except ApiError:
        return True
    return False


@given(
    st.dictionaries(
        st.sampled_from([*GPT_IMAGE_2.options, "style", "n"]) | st.text(max_size=50),
        VALUES | st.text(),
    ),
    st.integers(0, 10_000),
)
def test_any_options_of_a_manifest_are_judged(
    options: dict[str, OptionValue], references: int
) -> None:
    for profile in PROFILES.values():
        for rules in profile.models.values():
            for fault in faults_of(rules, options, references):
                assert fault.fatal
                assert rules.source in fault.message


# the other models


@pytest.mark.parametrize(
    ("model", "options", "references", "words"),
    [
        ("grok-4-image", {"aspect_ratio": "16:9", "resolution": "2k"}, 0, None),
        ("grok-4-image", {"aspect_ratio": "auto", "response_format": "url"}, 0, None),
        ("grok-4-image", {"resolution": "2K"}, 0, "nearest valid value is 2k"),
        ("grok-4-image", {"aspect_ratio": "wide"}, 0, "write it like '16:9'"),
        ("grok-4-image", {"response_format": "b64_json"}, 0, "nearest valid value is url"),
        ("grok-4-image", {"size": "1024x1024"}, 0, "use aspect_ratio and resolution"),
        ("grok-4-image", {"quality": "high"}, 0, "use resolution"),
        ("grok-4-image", {"style": "vivid"}, 0, "describe the style in the prompt"),
        ("grok-4-image", {}, 1, "it generates from text only"),
        ("qwen-image-plus", {"size": "1328x1328", "response_format": "b64_json"}, 0, None),
        ("qwen-image-max", {"size": "1920x1080"}, 0, None),
        ("qwen-image-max", {"size": "1024*1024"}, 0, "nearest valid value is 1024x1024"),
        ("qwen-image-2.0", {"size": "big"}, 0, "write it like 1024x1024"),
        ("qwen-image-2.0", {"quality": "high"}, 0, "unknown option 'quality'"),
        ("qwen-image-2.0", {}, 1, "it generates from text only"),
        (
            "nano-banana",
            {"image_input": "https://x.test/a.png", "resolution": "1K", "aspect_ratio": "21:9"},
            0,
            None,
        ),
        ("nano-banana-2", {"output_format": "jpg", "output_compression": 80}, 0, None),
        ("nano-banana-2", {"resolution": "4k"}, 0, "nearest valid value is 4K"),
        ("nano-banana-pro", {"size": "1024x1024"}, 0, "use aspect_ratio and resolution"),
        ("nano-banana-pro", {"image_input": "data:image/png;base64,AA"}, 0, "https:// URL"),
        ("nano-banana-pro", {"image_input": "photos/a.png"}, 0, "https:// URL"),
        ("nano-banana-pro", {"imageConfig": "x"}, 0, "is not supported"),
        ("nano-banana-pro", {"generationConfig": "x"}, 0, "is not supported"),
        ("nano-banana-pro", {"imageOutputOptions": "x"}, 0, "use output_format"),
        ("nano-banana-pro", {}, 1, "set the option image_input to its URL"),
    ],
)
def test_the_gateways_other_models(
    model: str, options: Options, references: int, words: str | None
) -> None:
    check(rules_of("crazyrouter", model), options, references, words)


@pytest.mark.parametrize(
    ("model", "options", "references", "words"),
    [
        ("gpt-image-2", {"size": "2048x1152", "safety_identifier": "u1"}, 16, None),
        ("gpt-image-2", {"background": "transparent"}, 0, "nearest valid value is opaque"),
        ("gpt-image-2", {"quality": "xhigh"}, 0, "nearest valid value is high"),
        ("gpt-image-2", {"quality": "hd"}, 0, "nearest valid value is high"),
        ("gpt-image-2", {"response_format": "url"}, 0, "always contains the image itself"),
        ("gpt-image-2", {"input_fidelity": "high"}, 1, "it is always high"),
        ("gpt-image-2", {"complexity": "low"}, 0, "unknown option 'complexity'"),
        ("gpt-image-2", {}, 17, "at most 16 reference images"),
        ("gpt-image-2-2026-04-21", {"size": "1920x1080"}, 0, "1920x1088"),
        ("gpt-image-2.5-flare", {"quality": "max", "background": "transparent"}, 0, None),
        ("gpt-image-2.5-sunburst", {"quality": "xhigh"}, 0, None),
        ("gpt-image-2.5-sunburst-2026-09-08", {"complexity": "low"}, 0, "unknown option"),
        (
            "gpt-image-2.5-flare",
            {"background": "transparent", "output_format": "jpeg"},
            0,
            "background: transparent requires output_format: png or webp, not 'jpeg'",
        ),
        ("gpt-image-2.5-flare", {"input_fidelity": "low"}, 1, "it is always high"),
        ("gpt-image-2.6-sunburst", {"complexity": "medium", "quality": "max"}, 0, None),
        ("gpt-image-2.6-flare", {"output_format": "gif"}, 0, "which have a published price"),
        ("gpt-image-2.6-flare", {"style": "natural"}, 0, "describe the style"),
        ("gpt-image-2.6-flare", {"moderation": "low"}, 1, "not supported with reference images"),
        ("gpt-image-1.5", {"size": "1536x1024", "background": "transparent"}, 0, None),
        ("gpt-image-1.5", {"input_fidelity": "high"}, 1, None),
        ("gpt-image-1.5", {"input_fidelity": "high"}, 0, "requires reference images"),
        ("gpt-image-1.5", {"size": "1920x1080"}, 0, "nearest valid value is 1536x1024"),
        ("gpt-image-1.5", {"size": "512x512"}, 0, "nearest valid value is 1024x1024"),
        ("gpt-image-1.5", {"size": "huge"}, 0, "use one of these"),
        ("gpt-image-1.5", {"quality": "xhigh"}, 0, "nearest valid value is high"),
        ("gpt-image-1-mini", {"input_fidelity": "high"}, 1, "nearest valid value is low"),
        ("chatgpt-image-latest", {"size": "1024x1536"}, 0, None),
        ("dall-e-3", {"quality": "hd", "style": "vivid", "size": "1792x1024"}, 0, None),
        ("dall-e-2", {"size": "640x640"}, 0, "nearest valid value is 512x512"),
        ("dall-e-2", {}, 2, "at most 1 reference image"),
    ],
)
def test_openais_models(model: str, options: Options, references: int, words: str | None) -> None:
    check(rules_of("openai", model), options, references, words)


def check(rules: ModelRules, options: Options, references: int, words: str | None) -> None:
    """Hold a request against rules: nothing is wrong with it, or one thing is."""
    found = messages(rules, options, references)
    if words is None:
        assert found == []
    else:
        (message,) = found
        assert words in message
        assert rules.source in message


def test_every_image_model_with_a_shipped_price_has_rules() -> None:
    assert set(crazyrouter.PRICES.models) == set(crazyrouter.MODELS)
    assert set(OPENAI_TOKEN_PRICES) <= set(openai.MODELS)


def test_the_embedded_endpoint_has_the_gateways_rules() -> None:
    assert PROFILES["local"].known_models() == PROFILES["crazyrouter"].known_models()


def test_a_model_on_another_route_has_the_rules_of_that_route() -> None:
    native = replace(PROFILES["crazyrouter"], routes={"nano-banana": Route.GEMINI})
    asked: dict[str, OptionValue] = {"aspect_ratio": "16:9", "temperature": 0.5, "seed": 7}
    assert not faults_of(native.known_models()["nano-banana"], asked, 3)
    (fault,) = faults_of(native.known_models()["nano-banana"], {"temperature": "9"}, 0)
    assert "the nearest valid value is 2, without quotes" in fault.message
    assert faults_of(PROFILES["crazyrouter"].known_models()["nano-banana"], {"seed": 7}, 0)


# the rulebook of a day


@pytest.mark.parametrize(
    ("model", "today", "fatal", "words"),
    [
        ("gpt-image-1", date(2026, 10, 23), True, "was shut down on 2026-10-23"),
        ("dall-e-3", TODAY, True, "was shut down on 2026-05-12"),
        ("dall-e-2", TODAY, True, "was shut down on 2026-05-12"),
        ("gpt-image-1.5", date(2026, 11, 30), False, "will be shut down on 2026-12-01"),
        ("gpt-image-1.5", date(2026, 12, 1), True, "its successor is gpt-image-2.6-sunburst"),
        ("gpt-image-1-mini", date(2026, 12, 2), True, "its successor is gpt-image-2.6-flare"),
        ("chatgpt-image-latest", TODAY, False, "OpenAI's deprecations page"),
    ],
)
def test_retiring_model_is_warned_of_then_refused(
    model: str, today: date, fatal: bool, words: str
) -> None:
    (objection,) = book("openai", today=today).of_request(model, {}, 0)
    assert (objection.place, objection.fatal) == (("model",), fatal)
    assert words in objection.message


def test_an_unknown_model_passes_with_a_warning() -> None:
    (objection,) = book("crazyrouter").of_request("gpt-imgae-2", {"size": "1x1"}, 99)
    assert (objection.place, objection.fatal) == (("model",), False)
    assert "no rules are known for model 'gpt-imgae-2' at crazyrouter" in objection.message
    assert objection.message.endswith("did you mean 'gpt-image-2'?")


@pytest.mark.fault("M23")
@pytest.mark.parametrize(
    ("provider", "model", "limit"),
    [
        ("crazyrouter", "gpt-image-2", 32_000),
        ("openai", "gpt-image-2.6-flare", 32_000),
        ("openai", "dall-e-3", 4_000),
        ("openai", "dall-e-2", 1_000),
    ],
)
def test_a_prompt_has_a_longest_length(provider: str, model: str, limit: int) -> None:
    assert book(provider).of_prompt(model, limit) is None
    objection = book(provider).of_prompt(model, limit + 1)
    assert objection is not None
    assert f"longer than the limit of {limit:,} characters" in objection.message


@pytest.mark.parametrize("model", ["grok-4-image", "unknown-model"])
def test_where_no_limit_is_published_any_prompt_passes(model: str) -> None:
    assert book("crazyrouter").of_prompt(model, 1_000_000) is None


def test_rules_warn_only_reports_violations() -> None:
    strict, lenient = book("crazyrouter"), book("crazyrouter", refuse=False)
    refused = strict.of_request("gpt-image-2", {"size": "1x1"}, 17)
    warned = lenient.of_request("gpt-image-2", {"size": "1x1"}, 17)
    assert [objection.message for objection in refused] == [one.message for one in warned]
    assert {objection.fatal for objection in refused} == {True}
    assert {objection.fatal for objection in warned} == {False}
    prompt = lenient.of_prompt("gpt-image-2", 40_000)
    assert prompt is not None
    assert not prompt.fatal


# the commands


def written(directory: Path, text: str) -> Path:
    path = directory / "m.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_check_leads_to_the_line_and_column_of_each_option(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "model: gpt-image-2\n"
        "options: {size: 1920x1080, style: vivid}\n"
        "jobs:\n"
        "  - A mug\n"
        "  - prompt: A bag\n"
        "    options:\n"
        "      size: 1024x1024\n"
        "      style: null\n"
        "      qualty: high\n",
    )
    stderr = rig.batchgen("check", path.name, cwd=tmp_path, code=2).stderr
    size, style, unknown = stderr.splitlines()
    assert size == (
        "m.yaml:2:17: options.size: invalid value '1920x1080': both sides must be multiples of 16"
        " (Crazyrouter's page on gpt-image-2, June 2026); the nearest valid value is 1920x1088"
    )
    assert style.startswith("m.yaml:2:35: options.style: style is not supported (")
    assert unknown.startswith(
        "m.yaml:9:15: jobs[1].options.qualty: unknown option 'qualty': the provider ignores"
    )


def test_a_run_against_the_rules_sends_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "provider: local\noptions: {size: 512x512}\njobs: [A mug]\n")
    refused = rig.batchgen("run", path, cwd=tmp_path, code=2)
    assert "the nearest valid value is 816x816" in refused.stderr
    assert not (tmp_path / "batchgen.db.local").exists()


def test_with_rules_that_warn_the_endpoint_has_the_last_word(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "provider: local\nrules: warn\noptions: {size: 512x512}\njobs:\n"
        "  - A mug\n  - A bag\n  - {prompt: A hook, options: {size: 816x816}}\n",
    )
    warning = (
        "warning: m.yaml:3:17: options.size: invalid value '512x512': the size must have at least"
        " 655,360 pixels, not 262,144 (Crazyrouter's page on gpt-image-2, June 2026); the nearest"
        " valid value is 816x816 (2 jobs)\n"
    )
    assert rig.batchgen("plan", "m.yaml", cwd=tmp_path).stderr == warning
    assert rig.batchgen("check", "m.yaml", cwd=tmp_path).stderr == warning
    done = rig.batchgen("run", path.name, cwd=tmp_path, code=1)
    assert done.stderr.count(warning) == 1
    assert "1 of 3 jobs done" in done.stdout


def test_unknown_model_is_one_warning(tmp_path: Path) -> None:
    written(
        tmp_path,
        "provider: {base_url: 'https://images.example/v1', price: 0.05}\n"
        "jobs:\n  - {prompt: A mug, model: new-1, options: {seed: 7}}\n"
        "  - {prompt: A bag, model: new-1, options: {seed: 7}}\n",
    )
    planned = rig.batchgen("plan", "m.yaml", cwd=tmp_path)
    assert "2  new" in planned.stdout
    (line,) = planned.stderr.splitlines()
    assert line.startswith(
        "warning: m.yaml:3:28: jobs[0].model: no rules are known for model 'new-1'"
    )
    assert line.endswith("(2 jobs)")
