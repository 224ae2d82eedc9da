"""Datasets: names, repeated and interrupted exports, and what is left out."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.dataset.layout import Layout, sample_name
from batchgen.errors import SettingsError
from batchgen.ledger.dataset_samples import Sample
from batchgen.storage.local import LocalStore
from tests.support import rig
from tests.support.datasets import FIVE, export, sample

REPOSITORY = Path(__file__).parents[3]


class Stopped(Exception):
    """The process was killed before an operation of its store."""


class StoppingStore(LocalStore):
    """A directory whose writer is stopped before one of its operations that change something."""

    def __init__(self, root: Path, operations: int) -> None:
        super().__init__(root)
        self._left = operations

    def _count(self) -> None:
        if not self._left:
            raise Stopped
        self._left -= 1

    def put(self, *arguments: Any, **options: Any) -> Any:
        self._count()
        return super().put(*arguments, **options)

    def put_file(self, *arguments: Any, **options: Any) -> Any:
        self._count()
        return super().put_file(*arguments, **options)

    def delete(self, name: str) -> None:
        self._count()
        super().delete(name)


def checksums_hold(directory: Path) -> bool:
    """Return whether the checksums are absent or right."""
    sums = directory / "SHA256SUMS"
    lines = sums.read_text().splitlines() if sums.exists() else []
    return all(
        hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest
        for digest, name in (line.split("  ") for line in lines)
    )


def members(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as file:
        found = {}
        for member in file:
            reader = file.extractfile(member)
            assert reader is not None
            found[member.name] = reader.read()
        return found


def test_tar_has_an_image_a_prompt_and_a_record(tmp_path: Path) -> None:
    summary = export(LocalStore(tmp_path), FIVE)
    assert (summary.images, summary.parts, summary.unverified) == (5, 3, 0)
    found = members((tmp_path / "00002.tar").read_bytes())
    assert list(found) == ["e.png", "e.txt", "e.json"]
    assert (found["e.png"], found["e.txt"]) == (b"e", b"A photo of e")
    assert json.loads(found["e.json"])["cost"] == "0.037700"


def test_checksums_are_those_of_the_files(tmp_path: Path) -> None:
    export(LocalStore(tmp_path), FIVE)
    assert len((tmp_path / "SHA256SUMS").read_text().splitlines()) == 3
    assert checksums_hold(tmp_path)


def test_a_repeated_export_is_equal_byte_for_byte(tmp_path: Path) -> None:
    export(LocalStore(tmp_path / "one"), FIVE)
    export(LocalStore(tmp_path / "two"), FIVE)
    first = rig.content(tmp_path / "one")
    assert first == rig.content(tmp_path / "two")
    assert export(LocalStore(tmp_path / "one"), FIVE).unchanged_parts == 3
    assert rig.content(tmp_path / "one") == first


NINE = [*FIVE, *(sample(key) for key in ("f", "g", "h", "i"))]


@pytest.mark.parametrize("before", [[], FIVE[:3], NINE[:7], NINE])
def test_an_export_stopped_anywhere_is_resumed(before: list[Sample], tmp_path: Path) -> None:
    export(LocalStore(tmp_path / "whole"), FIVE)
    operations = 0
    while True:
        directory = tmp_path / str(operations)
        if before:
            export(LocalStore(directory), before)
        try:
            export(StoppingStore(directory, operations), FIVE)
        except Stopped:
            assert checksums_hold(directory)
        else:
            break
        export(LocalStore(directory), FIVE)
        assert rig.content(directory) == rig.content(tmp_path / "whole")
        operations += 1
    assert operations >= 8


def test_an_image_that_is_not_verified_is_left_out(tmp_path: Path) -> None:
    summary = export(LocalStore(tmp_path), FIVE, missing=["b"])
    assert (summary.images, summary.unverified) == (4, 1)
    assert "b.png" not in members((tmp_path / "00000.tar").read_bytes())
    again = export(LocalStore(tmp_path), FIVE)
    assert (again.images, again.unverified, again.unchanged_parts) == (5, 0, 2)


def test_an_image_of_an_earlier_prompt_is_left_out(tmp_path: Path) -> None:
    outdated = replace(FIVE[0], is_current=False)
    summary = export(LocalStore(tmp_path), [outdated, *FIVE[1:]])
    assert (summary.images, summary.outdated) == (4, 1)


def test_a_changed_caption_rewrites_its_part_only(tmp_path: Path) -> None:
    export(LocalStore(tmp_path), FIVE)
    changed = [*FIVE[:4], replace(FIVE[4], prompt="Another prompt")]
    assert export(LocalStore(tmp_path), changed).unchanged_parts == 2
    assert members((tmp_path / "00002.tar").read_bytes())["e.txt"] == b"Another prompt"


KILLED = """
import os, sys
from importlib import import_module
from pathlib import Path
from batchgen.storage.local import LocalStore
from batchgen.dataset.layout import Layout
from tests.support.datasets import FIVE, export

def kill(*_):
    os._exit(9)

setattr(import_module(sys.argv[2]), sys.argv[3], kill)
export(LocalStore(Path(sys.argv[1])), FIVE, Layout.WEBDATASET)
"""


@pytest.mark.parametrize(
    "killed_in",
    [("batchgen.storage.local", "sync_file"), ("batchgen.dataset.part_writers", "sha256_of")],
)
def test_temporary_files_of_a_killed_export_are_removed(
    killed_in: tuple[str, str], tmp_path: Path
) -> None:
    export(LocalStore(tmp_path), FIVE[:2])
    ours = tmp_path / ".notes.part"
    ours.write_bytes(b"mine")
    command = [sys.executable, "-c", KILLED, str(tmp_path), *killed_in]
    assert subprocess.run(command, cwd=REPOSITORY, timeout=60).returncode == 9
    assert [name for name in rig.content(tmp_path) if name.endswith(".part")] != [".notes.part"]
    export(LocalStore(tmp_path), FIVE)
    assert [name for name in rig.content(tmp_path) if name.endswith(".part")] == [".notes.part"]
    assert checksums_hold(tmp_path)


@pytest.mark.parametrize("other", ["notes.txt", "00000.tar"])
def test_a_directory_of_other_files_is_refused(other: str, tmp_path: Path) -> None:
    (tmp_path / other).write_bytes(b"mine")
    with pytest.raises(SettingsError, match=f"not a dataset of batchgen: {other}"):
        export(LocalStore(tmp_path), FIVE)
    assert rig.content(tmp_path) == {other: b"mine"}


def test_a_dataset_of_another_layout_is_refused(tmp_path: Path) -> None:
    export(LocalStore(tmp_path), FIVE)
    before = rig.content(tmp_path)
    with pytest.raises(
        SettingsError, match='another dataset: layout "webdataset" instead of "index"'
    ):
        export(LocalStore(tmp_path), FIVE, Layout.INDEX)
    assert rig.content(tmp_path) == before


KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=200)


@given(st.lists(st.tuples(KEYS, st.integers(0, 3)), min_size=2, max_size=2, unique=True))
def test_names_are_plain_and_distinct(pair: list[tuple[str, int]]) -> None:
    names = [sample_name(sample(key, rank=rank)) for key, rank in pair]
    assert names[0] != names[1]
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_%~-]{1,125}", name)
