"""Keys that stay, and paths that stay inside."""

from __future__ import annotations

import re
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchgen.job import EXT_PLACEHOLDER, canonical_json
from batchgen.planning.naming import (
    EXT_MARK,
    MAX_COMPONENT_BYTES,
    MAX_KEY_CHARS,
    NamingError,
    checked_key,
    collision_key,
    copy_key,
    final_path,
    output_path,
    path_of_stem,
    prompt_key,
    row_key,
    safe_component,
    safe_path,
    text_of,
)
from batchgen.text import slug
from tests.support.naming import assert_safe

HOSTILE = st.lists(
    st.one_of(
        st.sampled_from('./\\:~-_ *?"<>|{}\0\n\u202e\u200d\u0301\u212b\u017fAa' + EXT_MARK),
        st.sampled_from(["CON", "..", "nul", "{ext}", ".png", "\u00e9", "\ud55c", "x" * 90]),
        st.characters(),
    ),
    max_size=12,
).map("".join)


@pytest.mark.fault("D11", "D13", "D14")
@given(HOSTILE)
@example("../../etc/passwd")
@example("C:\\Windows\\x")
@example("//server/share")
@example("\u226e" + "\u0338" * 3)
@example("e\u200d\u0301")
@example("\u2126" * 150)
@example("con. .x")
def test_any_text_becomes_a_safe_path_that_stays_as_it_is(text: str) -> None:
    path = safe_path(text)
    assert_safe(path)
    assert safe_path(path) == path


@pytest.mark.fault("D11", "D13", "D14")
@given(HOSTILE)
@example(f"nul.{EXT_MARK}")
@example(f"\u200b.{EXT_MARK}")
@example("a" * 199 + f".{EXT_MARK}")
def test_any_rendered_path_becomes_a_safe_image_path(text: str) -> None:
    try:
        path = output_path(text)
    except NamingError:
        return
    assert_safe(path)
    assert path.endswith(f".{EXT_PLACEHOLDER}")
    assert EXT_MARK not in path


@given(
    st.from_regex(
        r"(?:[a-zA-Z0-9_][a-zA-Z0-9_-]{0,9}/){0,3}[a-zA-Z0-9_][a-zA-Z0-9_-]{0,9}", fullmatch=True
    )
)
@example("CON/a")
@example("a/lpt1")
def test_ordinary_path_follows_the_rules(text: str) -> None:
    path = output_path(f"{text}.{EXT_MARK}")
    assert path == safe_path(f"{text}.{EXT_MARK}").replace(EXT_MARK, EXT_PLACEHOLDER)


@pytest.mark.fault("D11", "D13", "D14")
@pytest.mark.parametrize(
    ("text", "path"),
    [
        (f"mug/front.{EXT_MARK}", "mug/front.{ext}"),
        ("mug/front", "mug/front.{ext}"),
        ("mug/front.PNG", "mug/front.{ext}"),
        ("mug.v2", "mug.v2.{ext}"),
        (f"{EXT_MARK}/mug", "{ext}/mug.{ext}"),
        (f"mug-{EXT_MARK}", "mug-{ext}.{ext}"),
        ("mug {ext}.webp", "mug _ext_.{ext}"),
        (f"../..//etc/./passwd.{EXT_MARK}", "etc/passwd.{ext}"),
        (f"/abs/C:/a\\b.{EXT_MARK}", "abs/C_/a_b.{ext}"),
        (f"-rf/.hidden/ a .{EXT_MARK}", "rf/hidden/a.{ext}"),
        (f"COM1/nul.{EXT_MARK}", "_COM1/_nul.{ext}"),
        (f'a<b>c:d"e|f?g*.{EXT_MARK}', "a_b_c_d_e_f_g_.{ext}"),
        (f"Caf\u0065\u0301/\u202egpj.{EXT_MARK}", "Caf\u00e9/gpj.{ext}"),
        (f"a\nb\tc.{EXT_MARK}", "a_b_c.{ext}"),
    ],
)
def test_paths(text: str, path: str) -> None:
    assert output_path(text) == path


def test_a_copy_is_numbered_before_the_extension() -> None:
    assert output_path(f"mug.{EXT_MARK}", 2) == "mug-2.{ext}"
    assert output_path("a/mug.png", 3) == "a/mug-3.{ext}"


@pytest.mark.parametrize(
    "text", ["", f".{EXT_MARK}", "directory/", f"a/ .{EXT_MARK}", "a/..", ".png"]
)
def test_a_path_without_a_file_name_is_refused(text: str) -> None:
    with pytest.raises(NamingError, match="no file name"):
        output_path(text)


@pytest.mark.fault("D07")
def test_a_long_name_is_cut_with_a_hash_and_keeps_its_suffix() -> None:
    one, two = (output_path(f"{'é' * 300}{end}.{EXT_MARK}") for end in "ab")
    assert one != two
    assert one.startswith("é" * 80)
    assert one.endswith(".{ext}")
    assert len(one.encode()) <= MAX_COMPONENT_BYTES + 2
    assert one == output_path(f"{'é' * 300}a.{EXT_MARK}")


@pytest.mark.fault("D08")
def test_a_path_of_too_many_directories_is_refused() -> None:
    with pytest.raises(NamingError, match="longer than 1,000 bytes"):
        output_path("directory/" * 200 + "x")


@pytest.mark.fault("D13")
def test_windows_names_with_a_dot_or_superscript_are_reserved() -> None:
    assert [safe_component(name) for name in ("CON.txt", "com\u00b9", "Aux .png", "console")] == [
        "_CON.txt",
        "_com\u00b9",
        "_Aux .png",
        "console",
    ]


@pytest.mark.fault("D10")
@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("A.{ext}", "a.{ext}"),
        ("caf\u00e9.{ext}", "cafe\u0301.{ext}"),
        ("STRASSE.{ext}", "stra\u00dfe.{ext}"),
        ("\u212aelvin.{ext}", "kelvin.{ext}"),
    ],
)
def test_paths_that_some_file_system_takes_for_one_collide(one: str, two: str) -> None:
    assert collision_key("out", one) == collision_key("./out/", two)


def test_different_paths_do_not_collide() -> None:
    assert collision_key("out", "a.{ext}") != collision_key("out", "b.{ext}")
    assert collision_key("out", "a.{ext}") != collision_key("other", "a.{ext}")


def test_slugs() -> None:
    assert slug("Blue Mug, 0.3 l!") == "blue-mug-0-3-l"
    assert slug("  Grüße aus Köln ") == "grüße-aus-köln"
    assert slug("हिन्दी शब्द") == "हिन्दी-शब्द"
    assert slug("a clean product photo of a ceramic mug", 14) == "a-clean"
    assert slug("a clean product", 7) == "a-clean"
    assert slug("x" * 50, 10) == "x" * 10
    assert slug("!!!") == ""


@given(st.text(), st.integers(1, 50))
def test_a_slug_is_short_and_its_own_slug(text: str, limit: int) -> None:
    words = slug(text, limit)
    assert len(words) <= limit
    assert slug(words, limit) == words


def test_a_row_is_named_by_its_best_filled_column_and_the_matrix() -> None:
    row = {"handle": "mug", "sku": " A/1 ", "id": "", "key": None}
    assert row_key(row, ()) == "A/1"
    assert row_key(row, ("front", 2, True)) == "A/1/front/2/true"
    assert row_key({"id": 7}, ()) == "7"
    assert row_key({"title": "Mug"}, ("front",)) is None
    with pytest.raises(NamingError, match="a value of type list cannot be a key"):
        row_key({"id": ["a"]}, ())


def test_the_key_of_a_prompt_never_changes() -> None:
    prompt = "A clean product photo of a ceramic coffee mug on a white background"
    words = "a-clean-product-photo-of-a-ceramic"
    assert prompt_key(prompt, {}) == f"{words}-d5fb13901b5a"
    assert prompt_key(prompt, {"view": "front", "n": 2}) == f"{words}-57be72a11d72"
    assert prompt_key("\N{PARTY POPPER}", {}) == "b3ba9a12f355"


def test_keys_are_stripped_normal_and_of_one_line() -> None:
    assert checked_key(" cafe\u0301/front ") == "caf\u00e9/front"
    for key, words in [(" ", "empty"), ("x" * 201, "at most 200"), ("a\nb", "control character")]:
        with pytest.raises(NamingError, match=words):
            checked_key(key)


def test_a_key_may_be_full_length_and_partly_invisible() -> None:
    assert checked_key("x" * MAX_KEY_CHARS) == "x" * MAX_KEY_CHARS
    assert checked_key("a\u200db") == "a\u200db"


def test_true_and_false_are_named_as_in_json() -> None:
    values = (True, False, None, 7, 0.5, "x")
    assert [text_of(value) for value in values] == ["true", "false", "", "7", "0.5", "x"]


@given(st.text("ab -,.é\u0301\u200b1\u0915", max_size=40), st.integers(2, 12))
@example("a" * 11 + "\u0301", 5)
def test_a_short_slug_is_cut_from_the_whole(text: str, limit: int) -> None:
    whole = slug(text)
    words = slug(text, limit)
    assert words == (whole if len(whole) <= limit else slug(whole, limit))
    if len(whole) > limit:
        assert whole.startswith(words)
        assert whole[len(words)] == "-" or "-" not in whole[: limit + 1]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_key_hashes_the_canonical_json_of_its_prompt(prompt: str) -> None:
    digest = sha256(canonical_json([prompt, {}]).encode()).hexdigest()[:12]
    assert prompt_key(prompt, {}).endswith(digest)


def test_a_slug_keeps_the_letters_at_its_ends() -> None:
    assert slug("X-ray of an axX") == "x-ray-of-an-axx"
    assert slug("Xénon auX") == "xénon-aux"


@pytest.mark.parametrize(
    ("path", "rank", "final"),
    [
        ("a/b.{ext}", 0, "a/b.png"),
        ("{ext}/b.{ext}", 0, "png/b.png"),
        ("{ext}/b.{ext}", 1, "png/b-extra.png"),
        ("a/b.{ext}", 2, "a/b-extra-2.png"),
        ("a/b.{ext}.{ext}", 3, "a/b.png-extra-3.png"),
    ],
)
def test_images_beyond_the_requested_one_are_marked(path: str, rank: int, final: str) -> None:
    assert final_path(path, "png", rank) == final


def test_the_first_copy_has_the_plain_key() -> None:
    assert [copy_key("mug", index) for index in (1, 2, 3)] == ["mug", "mug-2", "mug-3"]


@given(
    st.text()
    | st.from_regex(r"[\w./-]{0,30}", fullmatch=True)
    | st.lists(st.sampled_from(["con", "NUL.", "com1", "a", "/", "-", ".", "B" * 99])).map("".join),
    st.integers(1, 3),
)
def test_path_without_its_extension_has_the_same_result(stem: str, copy: int) -> None:
    try:
        expected = output_path(f"{stem}.{EXT_MARK}", copy)
    except NamingError as error:
        with pytest.raises(NamingError, match=re.escape(str(error))):
            path_of_stem(stem, copy)
    else:
        assert path_of_stem(stem, copy) == expected
