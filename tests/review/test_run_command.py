"""The command that the review page shows, as a shell reads it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from batchgen.review.batch import ReviewBatch, View
from tests.review.big import big_batch


@pytest.mark.parametrize(
    ("ledger", "below", "expected"),
    [
        ("batchgen.db", ".", ["{}"]),
        ("batchgen.db", "..", ["my 'shop' $HOME/{}"]),
        ("other one.db", ".", ["{}", "--db", "other one.db"]),
    ],
)
def test_run_command_is_read_as_it_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: str, below: str, expected: list[str]
) -> None:
    directory, name = tmp_path / "my 'shop' $HOME", "mugs; & 'more'"
    db = big_batch(directory, 1, name=name).rename(directory / ledger)
    monkeypatch.chdir(directory / below)
    batch = ReviewBatch(db, name, View(by="anna"))
    words = shlex.split(batch.run_command)
    batch.close()
    assert words == ["batchgen", "run", *(word.format(f"{name}.yaml") for word in expected)]
