"""The command line refuses arguments that cannot be meant as written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from batchgen.cli.main import cli
from tests.support import rig


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


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--db", "ftp://host/ledger.db"),
        ("run", "batch.yaml", "--db", "https://host/ledger.db"),
        ("run", "batch.yaml", "--log-file", "s3://bucket/night.log"),
        ("run", "s3://bucket/batch.yaml"),
        ("init", "s3://bucket/batch.yaml"),
        ("gallery", "batch", "-o", "s3://bucket/page"),
        ("report", "batch", "-o", "gs://bucket/report.html"),
        ("export", "batch", "-o", "az://bucket/jobs.jsonl"),
        ("reconcile", "batch", "--log", "https://host/log.csv"),
        ("review", "batch", "--import", "s3://bucket/picks.csv"),
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[-2]}",
)
def test_url_in_place_of_a_path_is_refused(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("batch.yaml").write_text("provider: local\njobs: [A mug]\n", encoding="utf-8")
    url = next(one for one in arguments if "://" in one)
    assert f"not a path: '{url}'; expected a path" in " ".join(refused(*arguments).split())
    assert [path.name for path in Path().iterdir()] == ["batch.yaml"]


@pytest.mark.parametrize("variable", ["BATCHGEN_DB", "BATCHGEN_LOG"])
def test_url_in_a_variable_for_a_path_is_refused(variable: str, tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_text("provider: local\njobs: [A mug]\n", encoding="utf-8")
    env = {variable: "ftp://host/file"}
    done = rig.batchgen("run", "batch.yaml", cwd=tmp_path, env=env, code=2)
    assert f"{variable}: not a path: 'ftp://host/file'; expected a path" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["batch.yaml"]
