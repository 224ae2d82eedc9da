"""Which jobs a matrix makes, and from which values."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.errors import ManifestError
from batchgen.manifest.loader import load_manifest
from batchgen.planning.matrix_cells import matrix_axes, matrix_cells


class Everything:
    """A collection of all keys."""

    def __contains__(self, key: object) -> bool:
        return True


def cells(directory: Path, text: str) -> dict[str, tuple[str, dict[str, object]]]:
    path = directory / "m.yaml"
    path.write_text(text, encoding="utf-8")
    loaded = load_manifest(path)
    found = matrix_cells(loaded, Everything(), provider="local", default_model="gpt-image-2")
    return {key: (cell.source, dict(cell.values)) for key, cell in found.items()}


def test_cells_have_line_and_values_in_order(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id\na\nb\n", encoding="utf-8")
    text = "rows: t.csv\nmatrix: {Big Size: [1, 2]}\nprompt: '{{ big_size }}'\njobs: [x]\n"
    assert cells(tmp_path, text) == {
        "a/1": ("t.csv:2", {"Big Size": 1}),
        "a/2": ("t.csv:2", {"Big Size": 2}),
        "b/1": ("t.csv:3", {"Big Size": 1}),
        "b/2": ("t.csv:3", {"Big Size": 2}),
    }


def test_cells_need_no_reference_image(tmp_path: Path) -> None:
    text = (
        "matrix: {v: [1, 2]}\nkey: 'k{{ v }}'\nprompt: x\nmask: gone.png\n"
        "images: [gone.png, 'https://a.invalid/b']\n"
        "jobs: [{key: 'j{{ v }}', prompt: z, images: [gone.png], matrix: {v: [3]}}]\n"
    )
    assert list(cells(tmp_path, text)) == ["j3", "k1", "k2"]


def test_rows_at_fault_keep_their_cells(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,p\na,x\nb,\nc,y\n", encoding="utf-8")
    text = "rows: t.csv\nmatrix: {v: [1, 2]}\nprompt: '{{ p }}'\n"
    assert list(cells(tmp_path, text)) == ["a/1", "a/2", "b/1", "b/2", "c/1", "c/2"]


def test_manifest_that_plans_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no column 'p'"):
        cells(tmp_path, "matrix: {v: [1]}\nprompt: '{{ p }}'\n")


def test_only_wanted_keys_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("matrix: {v: [1, 2]}\nkey: 'k{{ v }}'\nprompt: x\n", encoding="utf-8")
    loaded = load_manifest(path)
    found = matrix_cells(loaded, {"k2"}, provider="local", default_model="gpt-image-2")
    assert list(found) == ["k2"]
    assert matrix_cells(loaded, (), provider="local", default_model="gpt-image-2") == {}


def test_axes_are_those_of_all_matrices(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "matrix: {A b: [1]}\njobs: [x, {prompt: z, matrix: {c: [1], A b: [2]}}]\n", encoding="utf-8"
    )
    assert matrix_axes(load_manifest(path)) == ["A b", "c"]
