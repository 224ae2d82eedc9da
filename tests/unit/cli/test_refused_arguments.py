"""The command line refuses arguments that cannot be meant as written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from batchgen.cli.main import cli, main
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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "--limit", "abc"), "abc; expected a whole number, 1 or more"),
        (("run", "--limit", "0"), "0; expected a whole number, 1 or more"),
        (("run", "--concurrency", "1.5"), "1.5; expected a whole number from 1 to 4096"),
        (("status", "--watch", "0"), "0; expected a number, 0.1 or more"),
        (("status", "--watch", "nan"), "nan; expected a number, 0.1 or more"),
        (("run", "--grace", "inf"), "inf; expected a number, 0 or more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refused_number_says_what_is_expected(arguments: tuple[str, ...], expected: str) -> None:
    assert refused(*arguments).endswith(f"{expected}\n")


@pytest.mark.parametrize("name", ["-x.yaml", "-y.yaml", "--night.yaml"])
def test_file_that_looks_like_an_option_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", name]) == 2
    assert "a file" not in capsys.readouterr().err
    (tmp_path / name).write_text("name: a\nprovider: local\njobs: [A mug]\n", encoding="utf-8")
    assert main(["plan", name]) == 2
    assert f"{name}: a file; expected ./{name}\n" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["BATCHGEN_DB", "BATCHGEN_LOG"])
def test_url_in_a_variable_for_a_path_is_refused(variable: str, tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_text("provider: local\njobs: [A mug]\n", encoding="utf-8")
    env = {variable: "ftp://host/file"}
    done = rig.batchgen("run", "batch.yaml", cwd=tmp_path, env=env, code=2)
    assert f"{variable}: not a path: 'ftp://host/file'; expected a path" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["batch.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run batch.yaml --actors 3", "--actors needs --on"),
        ("resume batch --actors 3", "--actors needs --on"),
        ("plan batch.yaml --why mug --show mug", "--show cannot be combined with --why"),
        ("plan batch.yaml --why mug --again 5%", "--again cannot be combined with --why"),
        ("plan batch.yaml --sample 2 --accepted 5%", "--accepted cannot be combined with --show"),
        ("status --metrics --json", "--json cannot be combined with --metrics"),
        ("status --metrics --watch", "--watch cannot be combined with --metrics"),
        ("status batch --uncertain --watch", "--watch cannot be combined with --uncertain"),
        ("export batch --layout index", "--layout needs --dataset"),
        ("export batch --part-images 5", "--part-images needs --dataset"),
        ("export batch --decision accepted", "--decision needs --dataset"),
        ("export batch --dataset d --what images", "--what cannot be combined with --dataset"),
        ("export batch --dataset d --format csv", "--format cannot be combined with --dataset"),
        ("export batch --dataset d -o file", "-o cannot be combined with --dataset"),
        ("export batch --failed --what images", "--what cannot be combined with --failed"),
        ("export batch --failed --format csv", "--format cannot be combined with --failed"),
        ("export batch --what decisions --run 1", "--run cannot be combined with --what decisions"),
        ("export batch --format csv --json", "--json cannot be combined with --format csv"),
        ("gallery batch --keep-metadata", "--keep-metadata needs --size full"),
        ("review batch --import picks.csv --run 1", "--run cannot be combined with --import"),
        ("review batch --import picks.csv --only mug", "--only cannot be combined with --import"),
    ],
)
def test_option_that_would_do_nothing_is_refused(arguments: str, message: str) -> None:
    assert message in " ".join(refused(*arguments.split()).split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --max-waste few", "--max-waste: 'few' is not an amount in dollars, like 12.50;"),
        ("run --max-waste few", "expected a share like 5% or dollars like 2.50"),
        ("plan --again few", "--again: not a percentage: 'few'; expected a number like 8%"),
        ("plan --accepted 200%", "--accepted: percentage out of range: '200%'"),
        ("plan --only @none.txt", "--only @none.txt: cannot be read: No such file or directory\n"),
        ("init none/batch.yaml", "none/batch.yaml: can't be written: No such file or directory\n"),
    ],
)
def test_message_names_option_cause_and_expected_value(
    arguments: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "batch.yaml").write_text("provider: local\njobs: [A mug]\n", encoding="utf-8")
    done = rig.batchgen(*arguments.split(), cwd=tmp_path, code=2)
    assert message in done.stderr


def test_unreadable_env_file_names_its_byte(tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_text("provider: local\njobs: [A mug]\n", encoding="utf-8")
    (tmp_path / ".env").write_bytes(b"A=1\n\xff")
    done = rig.batchgen("plan", "batch.yaml", cwd=tmp_path, code=2)
    assert done.stderr.endswith(".env: can't be read: not UTF-8: byte 0xff at offset 4\n")


def test_help_cuts_no_line_of_a_command() -> None:
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=60).output
    assert "..." not in shown.partition("Make:")[2]
    assert "images as a dataset." in " ".join(shown.split())
