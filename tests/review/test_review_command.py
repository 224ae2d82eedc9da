"""`batchgen review` as a command: its options, and the command that its page shows."""

from __future__ import annotations

import getpass
import os
import shlex
from pathlib import Path

import pytest

from batchgen.cli.main import main
from batchgen.review.batch import ReviewBatch, View
from tests.review.big import big_batch
from tests.support import rig


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


@pytest.mark.parametrize("command", ["review", "gallery", "rollback"])
def test_unknown_run_is_refused(fifty: Path, command: str) -> None:
    done = rig.batchgen(command, "batch", "--run", "9", cwd=fifty, code=2)
    assert done.stderr == "batch: the ledger has no run 9 of this batch\n"
    assert not done.stdout


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="user numbers of POSIX")
def test_user_without_a_name_reviews_by_number(
    fifty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_name() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", no_name)
    picks = fifty / "picks.csv"
    picks.write_text("key,heart\nk-00001,1\n", encoding="utf-8")
    arguments = ["review", "batch", "--db", str(fifty / "batchgen.db"), "--import", str(picks)]
    assert main(arguments) == 0
    assert f"1 decision of {os.getuid()} recorded" in capsys.readouterr().out
