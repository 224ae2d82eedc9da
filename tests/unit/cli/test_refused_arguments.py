"""The command line refuses arguments that cannot be meant as written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from batchgen.cli.main import cli


def refused(*arguments: str) -> str:
    """Return what a refused command prints."""
    done = CliRunner().invoke(cli, arguments, terminal_width=100)
    assert done.exit_code == 2, done.output
    return done.output


@pytest.mark.parametrize("command", ["run", "plan", "check"])
@pytest.mark.parametrize("again", ["batch.yaml", "./batch.yaml", "link.yaml"])
def test_manifest_named_twice_is_refused(
    command: str, again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("batch.yaml").write_text("provider: local\njobs: [A mug]\n", encoding="utf-8")
    Path("link.yaml").symlink_to("batch.yaml")
    assert "expected each manifest once" in refused(command, "batch.yaml", again)
    assert not Path("batchgen.db").exists()
