"""Manifests as users write them: each is read as written, or refused with a place."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from textwrap import dedent

import pytest

from batchgen.errors import ManifestError
from batchgen.manifest.loader import (
    MAX_BYTES,
    load_manifest,
    show_path,
)
from batchgen.manifest.model import FileRows, JobEntry, ProviderSpec, SqliteRows
from tests.support.canary import CANARY
from tests.support.manifests import NIGHTLY, SHORT, faults_of, parse

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
def test_kind_of_rows_is_recognized_by_their_keys(rows: str, model: type) -> None:
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
def test_paths_other_than_regular_files_are_refused(tmp_path: Path) -> None:
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


def test_keys_that_begin_with_x_are_a_place_for_anchors() -> None:
    text = "x-common: &common {size: 1024x1024}\nx-list: [1, {a: b}]\njobs: [a]\noptions: *common"
    assert parse(text).manifest.options == {"size": "1024x1024"}


def test_only_keys_at_the_top_may_begin_with_x() -> None:
    for text in ("jobs: [{prompt: a, x-note: b}]", "jobs: [a]\noutput: {x-note: b}"):
        with pytest.raises(ManifestError, match="unknown key 'x-note'"):
            parse(text)
