"""Commands in messages can be copied into a shell: names are quoted, the ledger is named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from batchgen.ledger.unpublished import UnpublishedCounts
from batchgen.report.status import replaced_text, unpublished_lines
from batchgen.session.missing_images import Missing
from batchgen.session.settings import Environment
from batchgen.system.process_owner import BatchOwner, Life, Owner
from batchgen.system.shell_command import batch_command, name_ledger
from tests.support.source import modules

NOW = datetime(2026, 11, 30, tzinfo=UTC)
OWNER = Owner(host="h", boot="", namespace="", pid=1, started="", user="", command="")


def hint() -> str:
    return batch_command("status", "b")


def texts(name: str) -> Iterator[str]:
    yield from unpublished_lines(name, UnpublishedCounts(undecided=1))
    yield Missing(count=1).text(name)
    yield replaced_text(name, 1, 1)
    for heartbeat in (None, NOW):
        owner = BatchOwner(
            batch=name, owner=OWNER, life=Life.UNKNOWN, since=None, heartbeat=heartbeat
        )
        yield owner.refusal(NOW)


def test_names_with_a_space_are_quoted() -> None:
    for text in texts("two words"):
        assert re.search(r"batchgen \w+ 'two words'", text), text


def test_commands_name_a_ledger_that_is_not_found_without() -> None:
    name_ledger("other one.db")
    for text in texts("b"):
        assert re.search(r"batchgen \w+ b [^`;,]*--db 'other one.db'", text), text


def test_ledger_that_is_found_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHGEN_DB", raising=False)
    shop = tmp_path / "shop"
    shop.mkdir()
    Environment.load().ledger_path(None, shop)
    assert hint() == "batchgen status b --db shop/batchgen.db"
    for flag in (None, Path("batchgen.db")):
        Environment.load().ledger_path(flag, None)
        assert hint() == "batchgen status b"
    monkeypatch.setenv("BATCHGEN_DB", str(shop / "batchgen.db"))
    Environment.load().ledger_path(Path("shop/batchgen.db"), None)
    assert hint() == "batchgen status b"
    Environment.load().ledger_path(Path("batchgen.db"), None)
    assert hint() == "batchgen status b --db batchgen.db"


def test_commands_of_a_removed_directory_name_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.delenv("BATCHGEN_DB", raising=False)
    gone.rmdir()
    Environment.load().ledger_path(tmp_path / "a.db", None)
    assert hint() == f"batchgen status b --db {tmp_path / 'a.db'}"


def test_commands_about_batches_are_made_in_one_place() -> None:
    """A text of its own would leave out --db, or the quotes."""
    found = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                for before, after in zip(node.values, node.values[1:], strict=False):
                    text = before.value if isinstance(before, ast.Constant) else ""
                    is_command = re.search(r"batchgen (?!writes|knows)[a-z]+ $", str(text))
                    if is_command and isinstance(after, ast.FormattedValue):
                        found.append(f"{name}:{node.lineno}")
    assert found == []
