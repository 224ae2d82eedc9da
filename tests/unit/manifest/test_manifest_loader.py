"""Manifests as users write them: each is read as written, or refused with a place."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from batchgen.errors import Fault, ManifestError
from batchgen.manifest.loader import (
    MAX_BYTES,
    MAX_FAULTS,
    LoadedManifest,
    json_schema,
    load_manifest,
    parse_manifest,
    show_path,
)
from batchgen.manifest.model import FileRows, JobEntry, ProviderSpec, SqliteRows
from tests.support.canary import CANARY
from tests.support.manifests import NIGHTLY, SHORT


def parse(text: str | bytes, file: str = "m.yaml") -> LoadedManifest:
    data = text.encode() if isinstance(text, str) else text
    return parse_manifest(data, file=file, path=Path(file))


def faults_of(text: str | bytes, file: str = "m.yaml") -> tuple[Fault, ...]:
    with pytest.raises(ManifestError) as caught:
        parse(text, file)
    return caught.value.faults


# What is right


def test_a_list_of_prompts_is_a_manifest() -> None:
    loaded = parse(SHORT, "tonight.yaml")
    assert loaded.name == "tonight"
    assert loaded.manifest.jobs == [
        "A clean product photo of a ceramic coffee mug on a white background",
        "A linen tote bag on a wooden hook, morning light",
    ]
    assert loaded.path == Path.cwd() / "tonight.yaml"
    assert loaded.base == Path.cwd()


def test_the_nightly_manifest_is_read_whole() -> None:
    manifest = parse(NIGHTLY).manifest
    assert manifest.name == "catalog"
    assert manifest.matrix == {"view": ["front", "lifestyle"]}
    assert manifest.prompt == (
        "Studio photo of {{ title }}, {{ view }} view, soft light."
        " {{ description | striptags | truncate(200) }}\n"
    )
    assert manifest.options == {"size": "1024x1024", "quality": "high", "output_format": "webp"}
    assert manifest.limits.requests_per_minute == 120
    assert isinstance(manifest.jobs, list)
    hero = manifest.jobs[0]
    assert isinstance(hero, JobEntry)
    assert (hero.key, hero.count, hero.options) == ("hero", 3, {"size": "1536x1024"})


def test_the_stored_text_gives_the_same_manifest_again() -> None:
    first = parse(b"\xef\xbb\xbf" + NIGHTLY.encode())
    assert first.text == NIGHTLY
    assert parse(first.text).manifest == first.manifest
    assert len(first.sha256) == 64


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("25", "25"),
        ("25.00", "25.00"),
        ("0.0377", "0.0377"),
        ("'25.00'", "25.00"),
        ("$25", "$25"),
        ("0.000000000000000001", "0.000000000000000001"),
    ],
)
def test_money_stays_the_text_it_was_written_as(written: str, kept: str) -> None:
    text = f"limits: {{max_cost: {written}, max_waste: {written}}}\nprovider: {{price: {written}}}"
    manifest = parse(f"{text}\njobs: [a]").manifest
    assert manifest.limits.max_cost == manifest.limits.max_waste == kept
    assert isinstance(manifest.provider, ProviderSpec)
    assert manifest.provider.price == kept


@pytest.mark.parametrize("share", ["0", "5%", "0%", "100%", "2.5 %"])
def test_waste_may_be_a_share(share: str) -> None:
    assert parse(f"limits: {{max_waste: {share}}}\njobs: [a]").manifest.limits.max_waste == share


def test_typed_values_stay_typed_in_options_matrix_and_values() -> None:
    manifest = parse("""
        options: {a: true, b: 7, c: 0.5, d: word, e: ~, f: 'NO', g: "1.50", h: False, i: -3}
        matrix: {n: [1, 2.5, true, '010'], y: [left, right]}
        prompt: x
        jobs: [{values: {a: [1, {b: ~}], c: 'yes', d: -0.25}}]
        """).manifest
    assert manifest.options == {
        "a": True, "b": 7, "c": 0.5, "d": "word", "e": None, "f": "NO", "g": "1.50",
        "h": False, "i": -3,
    }  # fmt: skip
    assert manifest.matrix == {"n": [1, 2.5, True, "010"], "y": ["left", "right"]}
    assert isinstance(manifest.jobs, list)
    assert isinstance(manifest.jobs[0], JobEntry)
    assert manifest.jobs[0].values == {"a": [1, {"b": None}], "c": "yes", "d": -0.25}


@pytest.mark.parametrize(
    ("rows", "model"),
    [
        ("{file: shop.csv, where: \"title and published == 'true'\"}", FileRows),
        ('{sqlite: shop.db, query: "select 1"}', SqliteRows),
        ("shop.csv", str),
    ],
)
def test_rows_are_told_apart_by_their_keys(rows: str, model: type) -> None:
    assert isinstance(parse(f"rows: {rows}\nprompt: x").manifest.rows, model)


def test_anchors_and_aliases_work_in_small() -> None:
    manifest = parse("""
        options: &square {size: 1024x1024}
        jobs:
          - {prompt: a, options: *square}
          - {prompt: b, options: *square}
        """).manifest
    assert manifest.jobs is not None
    assert all(
        isinstance(job, JobEntry) and job.options == manifest.options for job in manifest.jobs
    )


@pytest.mark.parametrize(
    "text",
    [
        "prompt: one image",
        "prompt: x\nmatrix: {a: [1]}",
        "%YAML 1.2\n---\njobs: [a]\n...\n",
        "---\njobs: [a]\n",
        "jobs:\r\n- a\r\n- b\r\n",
        '{"jobs": ["as JSON", {"prompt": "b"}]}',
        "jobs: [!!str 42, '${HOME}', \"a\\0b\"]",
        "jobs: [a, tRUNE, 1.2.3, 30d, 12x12, none, .]",
        "jobs: [sk-learn-style-illustration-of-a-cat]",
        "jobs:\n- A mug # a comment\n- B #\n",
        "provider: {base_url: 'http://127.0.0.1:8000/v1', api_key_env: MY_KEY}\njobs: [a]",
        "provider: {base_url: 'http://[::1]:8000/v1', idempotency: none}\njobs: [a]",
        "provider: {base_url: 'http://${HOST}/v1', price: '${PRICE}'}\njobs: [a]",
        "limits: {}\noptions: {}\nimages: []\njobs: [a]",
    ],
)
def test_these_are_right(text: str) -> None:
    parse(text)


# What is wrong

WRONG: Final[list[tuple[str | bytes, str]]] = [
    # The document as a whole
    ("", "1:1: holds no manifest; write jobs:"),
    ("# nothing\n\n# yet\n", "1:1: holds no manifest"),
    ("---\n", "1:1: holds no manifest"),
    ("just words", "1:1: a manifest is a mapping; write jobs:"),
    ("\n- a\n- b\n", "2:1: expected a mapping, got a list; put prompts below jobs:"),
    ("jobs: [a]\n---\njobs: [b]\n", "2:1: a second document begins here"),
    ("{}", "1:1: nothing to make: write jobs:"),
    ("model: x", "1:1: nothing to make"),
    ("jobs: []", "1:7: jobs: is empty"),
    ("jobs:", "1:6: jobs: is empty"),
    ("jobs: a cat", "1:7: jobs: expected a list, got the text 'a cat'; put each entry on a line"),
    # What belongs together
    ("rows: a.csv", "1:7: rows: needs prompt: next to it"),
    ("rows: a.csv\njobs: [a]", "1:7: rows: needs prompt:"),
    ("matrix: {a: [b]}", "1:9: matrix: needs prompt:"),
    ("jobs: [a, {key: b}]", "1:11: jobs[1]: has no prompt:, nor is there one for all"),
    # Keys
    ("promt: x", "1:1: promt: unknown key 'promt'; did you mean 'prompt'?"),
    ("jobs: [{Prompt: x}]", "1:9: jobs[0].Prompt: unknown key 'Prompt'; did you mean 'prompt'?"),
    ("jobs: [a]\nqqq: x", "2:1: qqq: unknown key 'qqq'; known here: model, key, prompt"),
    ("jobs: [a]\nsize: x", "2:1: size: unknown key 'size'; it belongs below options:"),
    ("jobs: [a]\nmax_cost: 1", "2:1: max_cost: unknown key 'max_cost'; it belongs below limits:"),
    ("jobs: [a]\ndir: x", "2:1: dir: unknown key 'dir'; it belongs below output:"),
    ("jobs: [{prompt: a, rows: b}]", "1:20: jobs[0].rows: unknown key 'rows'; it is a key"),
    ("jobs: [a]\nlimits: {rpm: 2}", "2:10: limits.rpm: unknown key 'rpm'; known here: concurr"),
    ("jobs: [a]\noutput: {dri: x}", "2:10: output.dri: unknown key 'dri'; did you mean 'dir'?"),
    ("jobs: [{prompt: a, output: {dri: x}}]", "1:29: jobs[0].output.dri: unknown key 'dri'; did"),
    ("jobs: [a]\nn: 2", "2:1: n: unknown key 'n'; count: says how many"),
    ("jobs: [a]\noptions: {n: 2}", "2:11: options.n: count: says how many"),
    ("jobs: [a]\noptions: {image: x}", "2:11: options.image: images: is a separate key"),
    ("jobs:\n- A sign that says: hello", "2:3: jobs[0]['A sign that says']: unknown key"),
    ("jobs:\n- {prompt: a red, blue mug}", "2:19: jobs[0]['blue mug']: unknown key 'blue mug'; if"),
    ("jobs: [a]\nname: x\nname: y", "3:1: name: repeated key, first in line 2"),
    ("jobs: [a]\n'name': x\nname: y", "3:1: name: repeated key, first in line 2"),
    ("jobs: [a]\nyes: 1", "2:1: yes cannot be a key; quote it: 'yes'"),
    ("jobs: [a]\noptions: {on: 1}", "2:11: options: on cannot be a key"),
    ("jobs: [a]\n12:30: 1", "2:1: 12:30 cannot be a key"),
    ("jobs: [a]\n7: 1", "2:1: 7 cannot be a key"),
    ("{jobs: [a], ~: 1}", "1:13: ~ cannot be a key"),
    ("jobs: [a]\n? [a, b]\n: 1", "2:3: a key must be text, not a list"),
    ("jobs: [a]\nx: &k y\n*k : 1", "3:1: a key must be text, not a list, a mapping or an alias"),
    ("jobs: [a]\n&k name: z", "2:1: name: a key cannot have an anchor"),
    ("jobs: [{<<: {prompt: a}}]", "1:9: jobs[0]: << is not part of YAML 1.2; write the keys out"),
    # Types
    ("jobs: [a]\nprompt: [b]", "2:9: prompt: expected text, got a list"),
    ("jobs: [a]\nprompt: {b: c}", "2:9: prompt: expected text, got a mapping"),
    ("jobs: [[a]]", "1:8: jobs[0]: expected text or a mapping, got a list"),
    ("jobs: [a]\nprovider: [x]", "2:11: provider: expected text or a mapping, got a list"),
    ("jobs: [a]\nlimits: x", "2:9: limits: expected a mapping, got the text 'x'"),
    ("jobs: [a]\ncount: '2'", "2:8: count: expected a whole number, got the text '2'; leave out"),
    ("jobs: [a]\ncount: two", "2:8: count: expected a whole number, got the text 'two'; write it"),
    ("jobs: [a]\ncount: true", "2:8: count: expected a whole number, got true"),
    ("jobs: [a]\ncount: 1.5", "2:8: count: expected a whole number, got the number 1.5"),
    ("jobs: [a]\nimages: x.png", "2:9: images: expected a list, got the text 'x.png'"),
    ("prompt: x\nmatrix: [x]", "2:9: matrix: expected a mapping, got a list"),
    ("prompt: x\nmatrix: {a: b}", "2:13: matrix.a: expected a list, got the text 'b'"),
    ("prompt: x\nmatrix: {a: []}", "2:13: matrix.a: is empty"),
    ("prompt: x\nmatrix: {a: [[b]]}", "2:14: matrix.a[0]: expected a text, a number, true or"),
    ("jobs: [a]\noptions: {a: {b: c}}", "2:14: options.a: expected a text, a number, true or"),
    ("jobs: [a]\noutput: {keep_previous: x}", "2:25: output.keep_previous: expected"),
    ("jobs: [a]\noutput: {verify: no}", "2:18: output.verify: expected structure or decode, got"),
    ("jobs: [a]\noutput: {verify: all}", "2:18: output.verify: expected structure or decode, got"),
    ("prompt: x\nrows: {file: a, table: b}", "2:17: rows.table: unknown key 'table'; known here"),
    ("prompt: x\nrows: {query: a}", "2:7: rows.sqlite: is missing"),
    ("prompt: x\nrows: {where: a}", "2:7: rows.file: is missing"),
    # Empty
    ("jobs: ['']", "1:8: jobs[0]: is empty"),
    ("jobs: [' ']", "1:8: jobs[0]: is empty"),
    ("jobs:\n-\n", "2:2: jobs[0]: is empty; write a value, or remove the key"),
    ("jobs: [a]\nname: ~", "2:7: name: is empty; write a value"),
    ("jobs: [a]\nlimits:\n", "2:8: limits: is empty"),
    ("prompt: x\nmatrix: {a: [~]}", "2:14: matrix.a[0]: is empty; write a value, '' for an empty"),
    # Ranges
    ("jobs: [a]\ncount: 0", "2:8: count: must be at least 1, got the number 0"),
    ("jobs: [a]\ncount: -1", "2:8: count: must be at least 1, got the number -1"),
    ("jobs: [a]\ncount: 1000000000", "2:8: count: must be at most 1,000, got the number"),
    (f"jobs: [a]\ncount: {'9' * 5000}", "2:8: count: expected a whole number, got 999"),
    ("jobs: [a]\nlimits: {deadline: 0}", "2:20: limits.deadline: must be more than 0, got"),
    ("jobs: [a]\nlimits: {deadline: 86401}", "2:20: limits.deadline: must be at most 86,400, got"),
    ("jobs: [a]\nlimits: {deadline: 1e400}", "2:20: limits.deadline: expected a number, got 1e4"),
    ("jobs: [a]\nlimits: {deadline: .nan}", "2:20: limits.deadline: expected a number, got .nan"),
    ("jobs: [a]\nlimits: {deadline: -0}", "2:20: limits.deadline: expected a number, got -0"),
    ("jobs: [a]\nlimits: {deadline: 5m}", "2:20: limits.deadline: expected a number, got the text"),
    ("jobs: [a]\nlimits: {max_cost: -1}", "2:20: limits.max_cost: '-1' is not an amount in dol"),
    ("jobs: [a]\nlimits: {max_cost: lots}", "2:20: limits.max_cost: 'lots' is not an amount"),
    ("jobs: [a]\nlimits: {max_cost: 1e3}", "2:20: limits.max_cost: expected an amount in dollars"),
    ("jobs: [a]\nlimits: {max_cost: true}", "2:20: limits.max_cost: expected an amount in dollars"),
    ("jobs: [a]\nlimits: {max_cost: 5%}", "2:20: limits.max_cost: '5%' is not an amount"),
    (f"jobs: [a]\nlimits: {{max_cost: '{'9' * 5000}'}}", "2:20: limits.max_cost: not an amount"),
    ("jobs: [a]\nlimits: {max_waste: 101%}", "2:21: limits.max_waste: share out of range: '101%'"),
    ("jobs: [a]\nlimits: {max_waste: '-1%'}", "2:21: limits.max_waste: share out of range: '-1%'"),
    ("jobs: [a]\nlimits: {max_waste: '%'}", "2:21: limits.max_waste: not a share: '%'"),
    ("jobs: [a]\nrefresh: 30", "2:10: refresh: expected text, got the number 30"),
    ("jobs: [a]\nrefresh: 30h", "2:10: refresh: expected changed, always or an age like 30d, got"),
    # Traps where text is expected
    ("jobs: [NO]", "1:8: jobs[0]: expected text, got NO, which YAML readers take for different"),
    ("name: NO\njobs: [a]", "1:7: name: expected text, got NO"),
    ("name: on\njobs: [a]", "1:7: name: expected text, got on"),
    ("key: 010\njobs: [a]", "1:6: key: expected text, got 010"),
    ("key: true\njobs: [a]", "1:6: key: expected text, got true; quote it: key: 'true'"),
    ("jobs:\n- 42", "2:3: jobs[0]: expected text, got the number 42; quote it: - '42'"),
    ("jobs:\n- 1.50", "2:3: jobs[0]: expected text, got the number 1.50; quote it: - '1.50'"),
    ("jobs: [a]\noptions: {size: 16:9}", "2:17: options.size: YAML readers take this for differ"),
    ("jobs: [a]\noptions: {a: 1_000}", "2:14: options.a: YAML readers take this for different"),
    ("prompt: x\nmatrix: {a: [b, yes]}", "2:17: matrix.a[1]: YAML readers take this for different"),
    ("prompt: x\nmatrix: {a: [1.50]}", "2:14: matrix.a[0]: would be printed as 1.5; quote it: '1"),
    ("jobs: [{prompt: x, values: {a: [2026-01-01]}}]", "1:32: jobs[0].values.a: YAML readers take"),
    ("jobs:\n- A poster with #3 on it", "2:3: jobs[0]: the text ends before its '#'"),
    # Names and URLs
    ("name: a/b\njobs: [a]", "1:7: name: a name must not be a path"),
    ("name: ..\njobs: [a]", "1:7: name: a name must not be a path"),
    ('name: "a\\nb"\njobs: [a]', "1:7: name: a name holds printable characters only"),
    (f"name: {'x' * 101}\njobs: [a]", "1:7: name: a name has 1 to 100 characters, not 101"),
    ("name: -rf\njobs: [a]", "1:7: name: a name begins with no dash"),
    (
        "provider: {base_url: 'http://example.com/v1'}\njobs: [a]",
        "1:22: provider.base_url: http:// would send the key to example.com unencrypted",
    ),
    (
        "provider: {base_url: 'http://127.0.0.1.example.com/v1'}\njobs: [a]",
        "1:22: provider.base_url: http:// would send the key",
    ),
    (
        "provider: {base_url: 'https://u:p@example.com/v1'}\njobs: [a]",
        "1:22: provider.base_url: user, password, query and fragment are not allowed",
    ),
    ("provider: {base_url: 'https://:x'}\njobs: [a]", "1:22: provider.base_url: not a valid URL"),
    ("provider: {base_url: 'ftp://a/v1'}\njobs: [a]", "1:22: provider.base_url: not a valid URL"),
    ("provider: {price: -1}\njobs: [a]", "1:19: provider.price: '-1' is not an amount"),
    ("provider: {idempotency: yes}\njobs: [a]", "1:25: provider.idempotency: expected none or"),
    # Tags
    ("jobs: [!!python/object/apply:os.system [x]]", "1:8: jobs[0]: the tag !!python/object/apply:"),
    ("jobs: [!!binary aGk=]", "1:8: jobs[0]: the tag !!binary means nothing here; leave it out"),
    ("jobs: [!thing x]", "1:8: jobs[0]: the tag !thing means nothing here"),
    ("jobs: [! x]", "1:8: jobs[0]: the tag ! means nothing here"),
    ("!!map {jobs: [a]}", "1:1: the tag !!map means nothing here"),
    ("{!!int jobs: [a]}", "1:2: the tag !!int means nothing here"),
    # Anchors
    ("jobs: [*a]", "1:8: jobs[0]: unknown alias: *a"),
    ("jobs: [&a x, &a z]", "1:14: jobs[1]: the anchor &a is defined twice"),
    ("jobs: &a [b, *a]", "1:14: jobs[1]: the alias *a is inside the value it refers to"),
    ("jobs: [a]\noptions: &o {x: y, z: *o}", "2:23: options.z: the alias *o is inside"),
    # Syntax
    ("key: {{ handle }}/x\njobs: [a]", "1:6: key: a text that begins with {{ must be quoted"),
    ("jobs: [{% if x %}]", "1:9: a text that begins with % must be quoted"),
    ("jobs:\n- @home", "2:3: a text that begins with @ must be quoted"),
    ("jobs:\n\t- a", "2:1: YAML is indented with spaces; there is a tab here"),
    ("jobs:\n- prompt: a: b", "2:12: is not valid YAML: a text with ': ' in it"),
    ("jobs: [a, b\nname: c", "2:5: is not valid YAML: "),
    ("jobs: [a, b\nname", "2:5: is not valid YAML: a ',' or a closing bracket is missing"),
    ('jobs:\n- "a\n- b', "2:3: the quotation mark that opens this text is never closed"),
    ("jobs:\n- a\nb", "3:2: is not valid YAML: expected a ':'; if a text continues here"),
    ('jobs: ["\\q"]', "1:9: is not valid YAML: in double quotes a backslash"),
    ('jobs: ["\\ud83d\\ude00"]', "1:11: is not valid YAML: invalid escape"),
    # Bytes
    (b"jobs:\n- caf\xe9", "2:6: byte 0xe9 is not UTF-8; save the file as UTF-8 (byte 11)"),
    ("jobs: [a]".encode("utf-16"), "1:1: is UTF-16; save the file as UTF-8 (byte 0)"),
    ("jobs: [a]".encode("utf-16-le"), "1:2: the character U+0000 is not allowed in a manifest"),
    (b"jobs: [\xed\xa0\x80]", "1:8: byte 0xed is not UTF-8"),
    (b"\xef\xbb\xbf# \xff", "1:4: byte 0xff is not UTF-8; save the file as UTF-8 (byte 5)"),
    ("jobs:\n- é\x00", "2:4: the character U+0000 is not allowed in a manifest"),
    ("jobs: [a\x1bb]", "1:9: the character U+001B"),
    ("jobs: ['a\u2028b']", "1:10: the character U+2028"),
    ("jobs: ['a\x85b']", "1:10: the character U+0085"),
    ("jobs: [a]\n\ufeffname: b", "2:1: the character U+FEFF"),
]  # fmt: skip


def without_file(fault: Fault) -> str:
    return str(fault).removeprefix(f"{fault.file}:")


@pytest.mark.fault("M01", "M05", "M06", "M07", "M08", "M10", "M11", "M13", "M14", "M16", "S10")
@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_a_fault_has_its_place_and_says_what_would_be_right(
    text: str | bytes, expected: str
) -> None:
    found = [without_file(fault) for fault in faults_of(text)]
    assert any(fault.startswith(expected) for fault in found), found


def test_one_mistake_is_one_fault() -> None:
    several = {"jobs: [a]\nx: &k y\n*k : 1", "jobs: [!!python/object/apply:os.system [x]]"}
    for text, _ in WRONG:
        if text not in several:
            assert len(faults_of(text)) == 1, text


def test_all_faults_are_told_at_once_in_the_order_of_the_file() -> None:
    found = faults_of(
        dedent("""\
        jobs:
          - 42
          - {prompt: x, promt: y}
        name: NO
        name: b
        count: 0
        limits: {max_cost: abc, speed: 9}
        """)
    )
    assert [(fault.line, fault.column, fault.path) for fault in found] == [
        (2, 5, "jobs[0]"),
        (3, 17, "jobs[1].promt"),
        (4, 7, "name"),
        (5, 1, "name"),
        (6, 8, "count"),
        (7, 20, "limits.max_cost"),
        (7, 25, "limits.speed"),
    ]


def test_endless_faults_are_cut_off_with_their_number() -> None:
    found = faults_of("jobs:\n" + "- 42\n" * 1000)
    assert len(found) == MAX_FAULTS + 1
    assert without_file(found[-1]) == "102:3: 900 more faults after this line"
    found = faults_of("jobs:\n" + "- !x y\n" * 1000)
    assert len(found) == MAX_FAULTS
    assert without_file(found[-1]).endswith("too many errors, the rest was not checked")


TRAPS: Final = """
    y Y n N yes Yes YES no No NO nO on On ON off Off OFF true True TRUE false False FALSE
    null Null NULL ~ 0 7 -7 +7 010 -010 08 007 0o10 0x1F 0b11 1_000 12:30 1:2:3 16:9 -1:30 12:75
    1.5 -1.5 +1.5 1. .5 1e3 1E3 1.5e3 1.5E-3 -0 -0.0 1e400 .inf -.inf .Inf .nan .NaN
    190:20:30.15 2026-01-01 2001-12-14t21:59:43.10-05:00 = <<
""".split()  # noqa: SIM905  # 70 quoted words would not read as a table


@pytest.mark.fault("M09", "M14")
@pytest.mark.parametrize("trap", [*TRAPS, "2026-01-01 10:00:00", "", "9" * 5000, "1" + "0" * 18])
@pytest.mark.parametrize("where", ["jobs:\n- {}\n", "prompt: x\nkey: {}\n", "name: {}\njobs: [a]"])
def test_no_trap_is_read_as_text(where: str, trap: str) -> None:
    faults_of(where.format(trap))


@given(st.text("0123456789+-.:_eExobnyftsTNYO ~", min_size=1, max_size=12).map(str.strip))
def test_whatever_pyyaml_takes_for_no_text_is_no_prompt(text: str) -> None:
    try:
        read = yaml.safe_load(f"jobs:\n- {text}\n")
    except (yaml.YAMLError, ValueError):
        return
    if not (isinstance(read, dict) and isinstance(read["jobs"], list)):
        return
    if isinstance(read["jobs"][0], str):
        return
    faults_of(f"jobs:\n- {text}\n")


# Secrets


@pytest.mark.fault("M18")
@pytest.mark.parametrize(
    "text",
    [
        "jobs: [a]\napi_key: {}",
        "jobs: [a]\nprovider: {{api_key: {}}}",
        "jobs: [a]\nprovider: {{apiKey: {}}}",
        "jobs: [a]\nprovider: {{API-KEY: {}}}",
        "jobs: [a]\noptions: {{user: {}}}",
        "jobs: [a]\nmodel: x # {}",
        "jobs: [a]\n{}: x",
        "jobs: [a]\nlimits: {{max_cost: {}}}",
        "jobs: [a]\nlimits: {{deadline: {}}}",
        "jobs: [a]\nrefresh: {}",
        "jobs: [a]\noutput: {{verify: Bearer {}}}",
        "jobs: [a]\nprovider: {{base_url: 'http://{}/v1'}}",
        "jobs: [a]\nprovider: {{api_key_env: {}}}",
        "jobs:\n- a {} key\n- 42\n",
        "jobs: [a]\n? {} {}\n: x",
    ],
)
def test_a_key_in_the_file_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ManifestError, match="API keys do not belong in a manifest") as caught:
        parse(text.format(CANARY, CANARY))
    assert "CANARY" not in str(caught.value)


@pytest.mark.fault("M18")
@pytest.mark.parametrize("key", ["api_key", "apikey", "Authorization", "access_token"])
def test_the_value_of_a_key_by_its_name_is_not_shown(key: str) -> None:
    (fault,) = faults_of(f"jobs: [a]\nprovider: {{{key}: hunter2}}")
    assert without_file(fault).startswith(f"2:12: provider.{key}: API keys do not belong")
    assert "hunter2" not in str(fault)


def test_value_of_a_variable_name_is_not_shown() -> None:
    (fault,) = faults_of("jobs: [a]\nprovider: {api_key_env: my-secret}")
    assert without_file(fault).startswith("2:25: provider.api_key_env: not a name of an env")
    assert "my-secret" not in str(fault)


# Files


def test_a_file_is_loaded_with_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "summer.yaml").write_text(SHORT)
    monkeypatch.chdir(tmp_path)
    loaded = load_manifest(Path("summer.yaml"))
    assert (loaded.name, loaded.base) == ("summer", tmp_path)
    assert loaded.places.file == "summer.yaml"


@pytest.mark.fault("M21")
def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    place = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        for path, message in [
            (tmp_path, "is a directory"),
            (fifo, "not a regular file"),
            (Path("/dev/zero"), "not a regular file"),
            (place, "cannot be read: No such device"),
            (tmp_path / "missing.yaml", "file not found"),
            (tmp_path / "x\0y", "cannot be read: "),  # each Python has words of its own
            (tmp_path / ("x" * 300), "cannot be read: File name too long"),
            (fifo / "x.yaml", "cannot be read: Not a directory"),
        ]:
            with pytest.raises(ManifestError) as caught:
                load_manifest(path)
            assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.fault("M21")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(SHORT)
    path.chmod(0)
    with pytest.raises(ManifestError, match=r"m\.yaml: cannot be read: Permission denied"):
        load_manifest(path)


@pytest.mark.fault("M12")
def test_a_file_beyond_the_cap_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    with path.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(ManifestError, match="larger than 64 MiB; put the jobs into a table"):
        load_manifest(path)


@pytest.mark.parametrize("stem", ["x" * 101, "a\nb", "-x", "\udcff"])
def test_file_with_an_unusable_stem_needs_a_name(stem: str) -> None:
    (fault,) = faults_of("jobs: [a]", f"{stem}.yaml")
    assert fault.path == "name"
    assert fault.message.startswith("set name:, because the name of the file")
    assert parse("jobs: [a]\nname: b", f"{stem}.yaml").name == "b"


# Places


def test_places_lead_to_the_nearest_thing_that_is_there() -> None:
    loaded = parse(
        dedent("""\
        jobs:
          - a
          - prompt: b
            options: &o
              size: 1x1
          - {prompt: c, options: *o}
        """)
    )
    where = loaded.places.fault
    for path, line, column in [
        ((), 1, 1),
        (("jobs",), 2, 3),
        (("jobs", 0), 2, 5),
        (("jobs", 1, "options", "size"), 5, 13),
        (("jobs", 1, "options", "quality"), 4, 14),
        (("jobs", 2, "options", "size"), 6, 26),
        (("jobs", 9), 2, 3),
        (("output", "path"), 1, 1),
        (("jobs", "x"), 2, 3),
    ]:
        fault = where(path, "m")
        assert (fault.line, fault.column, fault.path) == (line, column, show_path(path))
    assert (where(("jobs", 1, "options"), "m", at_key=True).column) == 5


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ((), ""),
        (("jobs", 3, "options", "size"), "jobs[3].options.size"),
        (("options", "a b", 0), "options['a b'][0]"),
        (("a\nb",), "['a\\nb']"),
        ((CANARY,), "['***']"),
    ],
)
def test_a_path_is_shown_on_one_line(path: tuple[str | int, ...], shown: str) -> None:
    assert show_path(path) == shown


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

CHILD: Final = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
if sys.argv[1] == "pure":
    sys.modules["yaml._yaml"] = None
from pathlib import Path
from batchgen.errors import ManifestError
from batchgen.manifest.loader import parse_manifest

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for line in sys.stdin:
    data = json.loads(line).encode("latin-1")
    before = peak()
    try:
        parse_manifest(data, file="m.yaml", path=Path("m.yaml"))
        faults = []
    except ManifestError as error:
        faults = [str(fault) for fault in error.faults]
    print(json.dumps({"faults": faults, "kib": peak() - before}))
"""


def in_a_child(*documents: bytes, scanner: str = "fastest") -> list[dict[str, Any]]:
    lines = "".join(json.dumps(document.decode("latin-1")) + "\n" for document in documents)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, scanner],
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


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


def test_the_scanner_without_libyaml_finds_the_same_faults() -> None:
    documents = [text.encode() if isinstance(text, str) else text for text, _ in WRONG]
    documents += [
        SHORT.encode(),
        NIGHTLY.encode(),
        b'jobs: ["\\UFFFFFFFF"]',
        b'jobs: [a]\n"\\ud83d": x',
    ]
    fast = in_a_child(*documents)
    pure = in_a_child(*documents, scanner="pure")
    for document, one, other in zip(documents, fast, pure, strict=True):
        if b'"\\' in document:
            assert other["faults"]  # of escapes it has words and places of its own
        else:
            assert other["faults"] == one["faults"], document


@pytest.mark.fault("M12")
def test_many_jobs_are_read_in_little_memory() -> None:
    document = "jobs:\n" + "".join(f"- A mug, number {number}\n" for number in range(100_000))
    (result,) = in_a_child(document.encode())
    assert result["faults"] == []
    assert result["kib"] < 100 << 10


# The schema


def fields_of(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    objects = {"Manifest": schema, **schema["$defs"]}
    return {
        f"{name}.{field}": value
        for name, described in objects.items()
        for field, value in described.get("properties", {}).items()
    }


def test_every_key_is_described_in_the_schema() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    fields = fields_of(schema)
    assert {"Manifest.jobs", "JobEntry.values", "Limits.max_cost", "SqliteRows.query"} <= set(
        fields
    )
    assert [name for name, field in fields.items() if not field.get("description")] == []


def test_the_schema_holds_keywords_of_json_schema_only() -> None:
    known = {"$ref", "additionalProperties", "default", "description", "enum", "items", "maximum"}
    known |= {"exclusiveMinimum", "minimum", "minItems", "minLength", "oneOf", "pattern", "type"}
    known |= {"propertyNames"}
    for name, field in fields_of(json_schema()).items():
        assert field.keys() <= known, name


def conforms(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value is right by the keywords that the schema of a manifest uses most."""
    if "$ref" in schema:
        return conforms(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "oneOf" in schema:
        return sum(conforms(value, branch, root) for branch in schema["oneOf"]) == 1
    types: dict[str, type | tuple[type, ...]] = {
        "object": dict, "array": list, "string": str, "number": (int, float), "integer": int,
        "boolean": bool, "null": type(None),
    }  # fmt: skip
    allowed = schema.get("type", list(types))
    names = [allowed] if isinstance(allowed, str) else allowed
    if not any(isinstance(value, types[name]) for name in names):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, list):
        return all(conforms(item, schema.get("items", {}), root) for item in value)
    if isinstance(value, dict):
        fields, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        if not set(schema.get("required", ())) <= set(value):
            return False
        return all(
            conforms(item, fields[key], root)
            if key in fields
            else other is True or (other is not False and conforms(item, other, root))
            for key, item in value.items()
        )
    return True


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (SHORT, True),
        (NIGHTLY, True),
        ("{rows: {sqlite: a, query: b}, prompt: x}", True),
        ("{provider: {base_url: https://x/v1}, jobs: [a]}", True),
        ("{jobs: [{prompt: x, options: {a: ~, b: 1}}]}", True),
        ("{jobs: [{promt: x}]}", False),
        ("{rows: {file: a, query: b}, prompt: x}", False),
        ("{jobs: [a], limits: {concurrency: x}}", False),
        ("{jobs: [a], output: {verify: x}}", False),
    ],
)
def test_the_schema_agrees_with_the_loader(text: str, right: bool) -> None:
    schema = json_schema()
    assert conforms(yaml.safe_load(text), schema, schema) is right
    if right:
        parse(text)
    else:
        faults_of(text)


def test_keys_that_begin_with_x_are_a_place_for_anchors() -> None:
    text = "x-common: &common {size: 1024x1024}\nx-list: [1, {a: b}]\njobs: [a]\noptions: *common"
    assert parse(text).manifest.options == {"size": "1024x1024"}


def test_only_keys_at_the_top_may_begin_with_x() -> None:
    for text in ("jobs: [{prompt: a, x-note: b}]", "jobs: [a]\noutput: {x-note: b}"):
        with pytest.raises(ManifestError, match="unknown key 'x-note'"):
            parse(text)
