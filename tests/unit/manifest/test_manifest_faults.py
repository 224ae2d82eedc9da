"""Mistakes in manifests: each has a place and a message, and shows no secret."""

from __future__ import annotations

from textwrap import dedent
from typing import Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import Fault, ManifestError
from batchgen.manifest.loader import (
    MAX_FAULTS,
)
from tests.support.canary import CANARY
from tests.support.manifests import NIGHTLY, SHORT, faults_of, in_a_child, parse

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


def test_all_faults_are_reported_at_once_in_file_order() -> None:
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
def test_yaml_values_other_than_text_are_not_prompts(text: str) -> None:
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
