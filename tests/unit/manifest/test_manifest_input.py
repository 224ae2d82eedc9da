"""Any bytes, damaged manifests and hostile ones are read or refused."""

from __future__ import annotations

from typing import Any, Final

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from batchgen.errors import ManifestError
from batchgen.manifest.loader import (
    json_schema,
)
from tests.support.manifests import NIGHTLY, SHORT, in_a_child, parse

# Anything at all


def quoted(text: str) -> str:
    """A text in double quotes, with escapes for what a file must not contain."""
    return '"' + "".join(
        char if char.isprintable() and char not in '"\\\ufeff' else f"\\U{ord(char):08X}"
        for char in text
    ) + '"'  # fmt: skip


TEXTS: Final = st.text(st.characters(codec="utf-8"), min_size=1)


@given(TEXTS)
@example("a\u2028b\x85c\ufeff\r\n\t \0")
@example("NO")
@example("${HOME} {{ x }}")
def test_a_quoted_text_is_read_back_as_it_is(text: str) -> None:
    if text.strip():
        document = (
            f"jobs: [{quoted(text)}]\nmatrix: {{{quoted(text)}: [{quoted(text)}]}}\nprompt: a"
        )
        manifest = parse(document).manifest
        assert manifest.jobs == [text]
        assert manifest.matrix == {text: [text]}


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_a_text_in_single_quotes_is_read_back_as_it_is(text: str) -> None:
    if text.strip():
        assert parse("jobs:\n- '{}'".format(text.replace("'", "''"))).manifest.jobs == [text]


def is_read_or_refused(data: bytes) -> None:
    try:
        parse(data)
    except ManifestError as error:
        faults = error.faults
    else:
        return
    last_line = 1 + data.count(b"\n") + data.count(b"\r")
    assert faults
    for fault in faults:
        assert 1 <= fault.line <= last_line, fault
        assert fault.column >= 1
        assert str(fault).isprintable(), fault


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    is_read_or_refused(data)


@given(st.text("jobs:rw -?[]{}&*!|>'\"%@`#,~\n\t\\ax0.<$é\u2028", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    is_read_or_refused(text.encode())


PIECES: Final = """
    - : , [ ] { } &a *a !!str !!int !x ' " # % @ ~ NO 12:30 010 1e3 <<: ? jobs: prompt: count: 0
    --- ... {{ > | é \0 \ufeff name: rows: [] {} null
""".split()  # noqa: SIM905  # as above
SPACES: Final = st.sampled_from(["", " ", "  ", "\n", "\n- ", "\t"])


@given(st.data())
def test_a_damaged_manifest_is_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([SHORT, NIGHTLY]))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(start + 20, len(text))))
        piece = data.draw(SPACES) + data.draw(st.sampled_from(PIECES)) + data.draw(SPACES)
        text = text[:start] + piece + text[end:]
    is_read_or_refused(text.encode())


SCALARS: Final = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
FIELDS: Final = st.sampled_from(
    [
        *json_schema()["properties"],
        "file",
        "sqlite",
        "query",
        "where",
        "base_url",
        "max_cost",
        "dir",
    ]
)
TREES: Final = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(FIELDS | st.text(max_size=5), inner, max_size=5)
    ),
)


@given(st.dictionaries(FIELDS, TREES, min_size=1))
def test_a_manifest_of_wrong_types_is_read_or_refused(tree: dict[str, Any]) -> None:
    is_read_or_refused(yaml.safe_dump(tree, allow_unicode=True).encode())


# Hostile input, each in a process of its own


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        items = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} [{items}]")
    return "\n".join(lines)


def merge_bomb() -> str:
    lines = [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 22)]
    return "a0: &a0 {k: v}\n" + "".join(lines)


HOSTILE: Final = {
    "lists in a line": ("jobs: " + "[" * 100_000, "nested deeper than 32 levels"),
    "2,000 lists in a line": ("jobs: " + "[" * 2_000, "1:38: jobs[0]"),
    "2,000 lists at the top": ("[" * 2_000, "1:1: expected a mapping, got a list"),
    "2,000 lists after a fault": ("jobs: !x y\n? " + "[" * 2_000, "the tag !x"),
    "lists in lines": ("jobs: " + "[\n" * 100_000, "nested deeper than 32 levels"),
    "mappings in a line": ("jobs: " + "{" * 100_000, "must be quoted"),
    "mappings with keys": ("jobs: " + "{a: " * 100_000, "nested deeper than 32 levels"),
    "mappings as keys": ("? " * 100_000, "nested deeper than 32 levels"),
    "dashes": ("- " * 100_000, "expected a mapping, got a list"),
    "dashes below": ("jobs:\n" + "- " * 100_000, "nested deeper than 32 levels"),
    "indents": (
        "".join(" " * level + "a:\n" for level in range(3000)),
        "nested deeper than 32 levels",
    ),
    "aliases, 9^9": (bomb(9, 9), "the aliases refer to more than 200,000 values"),
    "aliases that go down": (bomb(60, 1), "nested deeper than 32 levels"),
    "merge keys": (merge_bomb(), "<< is not part of YAML 1.2"),
    "an alias to itself": ("jobs: &a [*a]", "is inside the value it refers to"),
    "anchors": ("jobs:\n" + "- &a x\n" * 50_000, "the anchor &a is defined twice"),
    "equal keys": ("jobs: [a]\n" + "name: x\n" * 50_000, "first in line 2"),
    "a number of a million digits": ("jobs: [" + "9" * 1_000_000 + "]", "expected text"),
    "a time of a million digits": ("jobs: [1" + ":1" * 500_000 + "x!]", None),
    "a float of a million digits": ("jobs: ['', 1." + "1" * 1_000_000 + "e]", "is empty"),
    "a key of a million letters": ("jobs: [a]\n? " + "ab" * 500_000 + "\n: x", "unknown key"),
    "brackets that close": ("]" * 100_000, "1:1"),
    "a quote that stays open": ("jobs: ['" + "a\n" * 500_000, "is never closed"),
    "tags": ("jobs:\n" + "- !x y\n" * 50_000, "the tag !x"),
    "directives": ("%TAG !a! b\n" * 50_000, "duplicate %TAG"),
    "question marks": ("? \n" * 100_000, "nothing cannot be a key"),
    "colons": (": " * 100_000, "1:1: is not valid YAML"),
    "spaces": (" " * 1_000_000, "holds no manifest"),
    "comments": ("# x\n" * 200_000, "holds no manifest"),
    "a megabyte of sk": ("jobs: ['" + "sk-" * 300_000 + "']", None),
}


@pytest.mark.fault("M02", "M03", "M04")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_refused_and_small(name: str) -> None:
    text, expected = HOSTILE[name]
    (result,) = in_a_child(text.encode())
    if expected is None:
        assert result["faults"] == []
    else:
        assert expected in "\n".join(result["faults"])
    assert result["kib"] < 50 << 10


@pytest.mark.fault("M12")
def test_many_jobs_are_read_in_little_memory() -> None:
    document = "jobs:\n" + "".join(f"- A mug, number {number}\n" for number in range(100_000))
    (result,) = in_a_child(document.encode())
    assert result["faults"] == []
    assert result["kib"] < 100 << 10
