"""Commands as their users call them: output, exit codes, and what they leave alone."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from batchgen.cli.main import cli, main
from batchgen.commands import init
from batchgen.errors import ExitCode
from batchgen.ledger.database import open_for_writing
from batchgen.manifest.loader import SCHEMA_ID
from tests.support import rig

JOB_COLUMNS = [
    "key",
    "state",
    "reason",
    "fingerprint",
    "model",
    "prompt",
    "options",
    "estimated",
    "charged",
    "maybe",
]
ATTEMPT_COLUMNS = [
    "id",
    "key",
    "run",
    "started_at",
    "ended_at",
    "outcome",
    "billed",
    "http_status",
    "error_code",
    "request_id",
    "cost",
]
IMAGE_COLUMNS = ["key", "path", "sha256", "bytes", "width", "height", "format"]
IMAGE_COLUMNS += ["root", "run", "saved_at", "state", "url"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a batch of three: two done, one blocked."""
    directory = tmp_path_factory.mktemp("batch")
    with rig.endpoint(directory / "state", "--fast-images") as endpoint:
        path = rig.manifest(directory, endpoint.base_url, ["one", "two", "forbidden-word"])
        rig.batchgen("run", path, cwd=directory, code=1)
    return directory


def listing(directory: Path) -> dict[str, bytes]:
    """Every file with its bytes, but for those that SQLite makes while it reads."""
    return {
        str(file): file.read_bytes()
        for file in sorted(directory.rglob("*"))
        if file.is_file() and not file.name.endswith("-journal")
    }


def test_plan_reports_jobs_and_cost_and_writes_nothing(done: Path) -> None:
    before = listing(done)
    planned = rig.batchgen("plan", "batch.yaml", cwd=done)
    assert "2  done and unchanged" in planned.stdout
    assert "1  blocked before, left alone" in planned.stdout
    assert "nothing to send, nothing to pay" in planned.stdout
    found = json.loads(rig.batchgen("plan", "batch.yaml", "--json", cwd=done).stdout)
    assert found["batch"] == "batch"
    assert found["groups"]["unchanged"]["jobs"] == 2
    assert listing(done) == before


def test_a_plan_needs_neither_ledger_nor_key(tmp_path: Path) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_text("jobs: [a mug, a bag]\n", encoding="utf-8")
    planned = rig.batchgen("plan", path, cwd=tmp_path)
    assert "2  new" in planned.stdout
    assert "$0.08" in planned.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["prompts.yaml"]


def test_check_reports_all_faults_at_once_with_their_places(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sku,title\n1,Mug\n2,\n", encoding="utf-8")
    path = tmp_path / "m.yaml"
    path.write_text(
        "rows: t.csv\nprmpt: x\nprompt: A {{ titel }}\nlimits: {max_cost: much}\n",
        encoding="utf-8",
    )
    refused = rig.batchgen("check", "m.yaml", cwd=tmp_path, code=2)
    assert "m.yaml:2:1: prmpt: unknown key 'prmpt'; did you mean 'prompt'?" in refused.stderr
    assert "m.yaml:4:20: limits.max_cost" in refused.stderr
    path.write_text("rows: t.csv\nprompt: A {{ titel }}\n", encoding="utf-8")
    refused = rig.batchgen("check", "m.yaml", cwd=tmp_path, code=2)
    assert "m.yaml:2:9: prompt: no column 'titel'; did you mean 'title'?" in refused.stderr
    path.write_text("rows: t.csv\nprompt: A {{ title }}\n", encoding="utf-8")
    assert "no faults, 2 jobs" in rig.batchgen("check", "m.yaml", cwd=tmp_path).stdout


def test_a_table_without_rows_does_not_retire_a_catalogue(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sku,title\n", encoding="utf-8")
    path = tmp_path / "m.yaml"
    path.write_text("provider: local\nrows: t.csv\nprompt: A {{ title }}\n", encoding="utf-8")
    refused = rig.batchgen("run", path, cwd=tmp_path, code=2)
    assert "makes no job at all" in refused.stderr


def test_status_is_for_people_and_for_programs(done: Path) -> None:
    text = rig.batchgen("status", "batch", cwd=done).stdout
    assert "batch: 2 of 3 jobs done" in text
    assert "1  blocked, moderation_blocked" in text
    assert rig.batchgen("status", cwd=done).stdout == text
    assert rig.status(done) == {
        "batch": "batch",
        "jobs": {
            "pending": 0,
            "sending": 0,
            "paid": 0,
            "done": 2,
            "failed": 0,
            "blocked": 1,
            "uncertain": 0,
            "acknowledged": 0,
        },
        "retired": 0,
        "images": {
            "saved": 2,
            "unpublished": {"undecided": 0, "accepted": 0, "rejected": 0},
        },
        "attempts": {"total": 3, "billed": 2, "maybe": 0, "not_billed": 1},
        "cost": {
            "currency": "USD",
            "estimated": "0.113100",
            "charged": "0.075400",
            "maybe": "0.000000",
            "unpriced": 0,
        },
        "uncertain_sums": {"charged": "0.000000", "maybe": "0.000000", "again": "0.000000"},
        "waiting": None,
        "stopped": None,
        "last_run": 1,
        "running": None,
        "killed": False,
    }


@pytest.mark.fault("Q16")
def test_status_is_shown_again_and_again_while_watched(done: Path) -> None:
    with rig.start("status", "batch", "--watch", "0.1", cwd=done) as watching:
        assert watching.stdout is not None
        shown = [watching.stdout.readline() for _ in range(30)]
        watching.terminate()
        watching.communicate()
    assert sum("2 of 3 jobs done" in line for line in shown) >= 3


def test_a_name_that_is_unknown_lists_those_there_are(done: Path) -> None:
    refused = rig.batchgen("status", "bacth", cwd=done, code=2)
    assert refused.stderr == "no batch 'bacth' in this ledger; it holds: batch\n"


NEED_A_LEDGER = [
    "acknowledge b",
    "acknowledge b --dry-run",
    "budget",
    "cost",
    "cost b",
    "export b",
    "export b --what decisions",
    "export b --failed",
    "export b -o jobs.jsonl",
    "gallery b",
    "prune b",
    "prune b --yes",
    "reconcile b",
    "reconcile b --log log.csv",
    "report b",
    "resume b",
    "retry b",
    "retry b --dry-run",
    "review b",
    "review b --import picks.csv",
    "rollback b",
    "status",
    "status --metrics",
    "status b",
    "status b --uncertain",
    "verify b",
    "verify b --repair",
]


@pytest.mark.parametrize("arguments", NEED_A_LEDGER)
def test_commands_without_a_ledger_create_none(
    arguments: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("BATCHGEN_DB", "BATCHGEN_FAILPOINT"):
        monkeypatch.delenv(name, raising=False)
    for db in ([], ["--db", "missing/other.db"]):
        assert main([*arguments.split(), *db]) == ExitCode.USAGE
        assert "no such ledger" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_the_ledger_table_covers_all_commands() -> None:
    tested = {arguments.split()[0] for arguments in NEED_A_LEDGER}
    needs_none = {"check", "completion", "guide", "init", "models", "plan", "prices", "run"}
    needs_none |= {"schema", "serve", "try"}
    assert tested | needs_none == set(cli.commands)


def test_a_csv_export_holds_no_formula(served: rig.Endpoint, tmp_path: Path) -> None:
    rig.batchgen("run", rig.manifest(tmp_path, served.base_url, ["=1+1 mugs"]), cwd=tmp_path)
    prompts = {}
    for kind in ("csv", "csv-raw"):
        text = rig.batchgen("export", "batch", "--format", kind, cwd=tmp_path).stdout
        (row,) = csv.DictReader(io.StringIO(text))
        prompts[kind] = row["prompt"]
    assert prompts == {"csv": "'=1+1 mugs", "csv-raw": "=1+1 mugs"}


@pytest.mark.parametrize(
    ("what", "columns", "rows"),
    [("jobs", JOB_COLUMNS, 3), ("attempts", ATTEMPT_COLUMNS, 3), ("images", IMAGE_COLUMNS, 2)],
)
def test_exports_have_the_columns_that_other_programs_rely_on(
    what: str, columns: list[str], rows: int, done: Path
) -> None:
    lines = rig.batchgen("export", "batch", "--what", what, cwd=done).stdout.splitlines()
    exported = [json.loads(line) for line in lines]
    assert [list(row) for row in exported] == [columns] * rows
    text = rig.batchgen("export", "batch", "--what", what, "--format", "csv", cwd=done).stdout
    table = list(csv.DictReader(io.StringIO(text)))
    assert [list(row) for row in table] == [columns] * rows
    if what == "jobs":
        assert {row["charged"] for row in exported} == {"0.037700", "0.000000"}


def test_an_export_does_not_overwrite_a_file(done: Path, tmp_path: Path) -> None:
    target = tmp_path / "jobs.csv"
    arguments = ("export", "batch", "--format", "csv", "-o", target)
    rig.batchgen(*arguments, cwd=done)
    assert target.read_text(encoding="utf-8").count("\n") == 4
    assert "exists already" in rig.batchgen(*arguments, cwd=done, code=2).stderr


def test_a_first_manifest_runs_as_it_is(tmp_path: Path) -> None:
    assert "next: batchgen plan batch.yaml" in rig.batchgen("init", cwd=tmp_path).stdout
    assert "exists already" in rig.batchgen("init", cwd=tmp_path, code=2).stderr
    rig.batchgen("run", "batch.yaml", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 3


def test_the_schema_knows_every_key_and_refuses_others() -> None:
    schema = json.loads(rig.batchgen("schema", cwd=Path.cwd()).stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["$id"] == SCHEMA_ID
    assert schema["additionalProperties"] is False
    assert {"jobs", "rows", "matrix", "prompt", "provider", "limits"} <= set(schema["properties"])


@pytest.mark.parametrize(
    "arguments",
    [("fly",), ("run",), ("run", "missing.yaml"), ("run", "."), ("status", "--bogus")],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_no_traceback(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    refused = rig.batchgen(*arguments, cwd=tmp_path, code=2)
    assert refused.stderr.strip()
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("status",)], ids=" ".join)
def test_commands_that_only_show_import_no_heavy_libraries(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """They would cost half a second before the first word is on the screen."""
    open_for_writing(tmp_path / "batchgen.db").close()
    script = (
        f"import sys; from batchgen.cli.main import cli, main; main({list(arguments)!r});"
        "heavy = {'httptools', 'httpx', 'pydantic', 'jinja2', 'sqlite_utils', 'PIL', 'starlette',"
        " 'anyio', 'dotenv'};"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_help_imports_only_the_command_line() -> None:
    """Our own dataclasses cost more than the text: half a millisecond each."""
    script = (
        "import sys; from batchgen.cli.main import cli, main; main(['--help']);"
        "names = {name for name in sys.modules if name.startswith('batchgen.')};"
        "print('OTHERS', sorted(name for name in names if not name.startswith('batchgen.cli')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    others = ["batchgen.console", "batchgen.console.standard_streams"]
    expected = [*others, "batchgen.errors", "batchgen.version"]
    assert done.stdout.splitlines()[-1] == f"OTHERS {expected}"


def test_a_bug_has_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("not meant")

    monkeypatch.setattr(init, "schema", broken)
    assert main(["schema"]) == ExitCode.BUG
    assert "this is a bug in batchgen" in capsys.readouterr().err
