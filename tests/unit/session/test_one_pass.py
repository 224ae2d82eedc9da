"""All errors of a manifest are reported at once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import ManifestError
from batchgen.manifest.loader import parse_manifest
from batchgen.session.prepare import prepare
from batchgen.storage.local import LocalStore
from batchgen.storage.store import Store
from batchgen.storage.stores import Stores

EVERYTHING = """\
provider: local
rows: p.csv
limits: {concurency: 3, max_cost: lots}
options: {size: 12x}
promt: "a {{ titel }} {{ color }}"
key: "{{ skuu }}"
images: ["photos/{{ sku"]
outptu: {path: "{{ nme }}.{{ ext }}"}
jobs:
  - {key: a, promt: "b {{ c }}"}
  - {key: "{{ b", prompt: 3}
  - "{{ unknown }}"
"""


def errors_of(directory: Path, text: str) -> list[str]:
    (directory / "p.csv").write_text("sku,title\n1,Mug\n", encoding="utf-8")
    manifest = directory / "m.yaml"
    manifest.write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        prepare(manifest, directory / "ledger.db")
    prefix = f"{manifest}:"
    return [str(fault).removeprefix(prefix).split(";")[0] for fault in caught.value.faults]


def test_structure_rules_and_templates_are_checked_together(tmp_path: Path) -> None:
    found = [error.split(" (")[0] for error in errors_of(tmp_path, EVERYTHING)]
    assert [error[:70] for error in found] == [
        "3:10: limits.concurency: unknown key 'concurency'",
        "3:35: limits.max_cost: 'lots' is not an amount in dollars, like 12.50",
        "4:17: options.size: invalid value '12x': expected auto or WIDTHxHEIGHT"[:70],
        "5:1: promt: unknown key 'promt'",
        "5:8: prompt: no column 'color'",
        "5:8: prompt: no column 'titel'",
        "6:6: key: no column 'skuu'",
        "7:10: images[0]: line 1 of the template: unexpected end of template, e"[:70],
        "8:1: outptu: unknown key 'outptu'",
        "8:16: output.path: no column 'nme'",
        "10:14: jobs[0].promt: unknown key 'promt'",
        "10:21: jobs[0].prompt: no column 'c'",
        "11:11: jobs[1].key: line 1 of the template: unexpected end of template",
        "11:27: jobs[1].prompt: expected text, got the number 3",
        "12:5: jobs[2]: no column 'unknown'",
    ]


def test_ca_file_is_relative_to_a_broken_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "ca.pem").touch()
    monkeypatch.chdir(tmp_path)
    text = "provider: {name: local, ca_file: ca.pem}\nrows: p.csv\npromt: '{{ titel }}'\n"
    found = errors_of(shop, text)
    assert [error.split(":")[2].strip() for error in found] == ["promt", "prompt"]


def test_table_that_cannot_be_fetched_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty(stores: Stores, root: str) -> Store:
        return LocalStore(tmp_path / "bucket")

    monkeypatch.setattr(Stores, "of", empty)
    found = errors_of(tmp_path, "provider: local\nrows: s3://shop/p.csv\npromt: '{{ title }}'\n")
    assert found == [
        "2:7: rows: s3://shop/p.csv: cannot be read: no such object",
        "3:1: promt: unknown key 'promt'",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Without the table or the values, every name would be unknown.
        ("rows: 3\nprompt: '{{ title }}'\n", ["1:7: rows: expected text, got the number 3"]),
        ("prompt: '{{ a }}'\nmatrix: {a: 1}\n", ["2:13: matrix.a: expected a list"]),
        ("prompt: a\nlimits: {x: 1}\nprovider: 3\n", ["2:10: limits.x: unknown key 'x'", "3:11"]),
        ("rows: p.csv\n", ["1:7: rows: needs prompt"]),
        ("rows: p.csv\nkey: '{{ no }}'\n", ["1:7: rows: needs prompt", "2:6: key: no column"]),
    ],
)
def test_no_error_follows_from_another(tmp_path: Path, text: str, expected: list[str]) -> None:
    found = errors_of(tmp_path, text)
    assert len(found) == len(expected), found
    assert all(error.startswith(start) for error, start in zip(found, expected, strict=True)), found


_values = st.sampled_from(["a", "'{{ x }}'", "3", "[a]", "{a: b}", "{{", "null", "[{a: 1}]"])
_keys = st.sampled_from(
    ["prompt", "promt", "rows", "matrix", "options", "images", "output", "jobs", "jbos", "limits"]
)


@given(st.dictionaries(_keys, _values, min_size=1, max_size=6))
def test_sound_part_never_replaces_the_manifest(document: dict[str, str]) -> None:
    text = "".join(f"{key}: {value}\n" for key, value in document.items())
    with suppress(ManifestError):
        loaded = parse_manifest(text.encode(), file="m.yaml", path=Path("m.yaml"))
        # A manifest that is accepted was read as it is written.
        assert loaded.manifest.model_fields_set == document.keys()
