"""Hold the start of a plain run: it imports nothing that only other commands or inputs need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import rig

NOT_NEEDED = {
    "PIL",
    "apprise",
    "dotenv",
    "starlette",
    "truststore",
    "uvicorn",
    "batchgen.api",
    "batchgen.cluster",
    "batchgen.commands.plan",
    "batchgen.console.log_file",
    "batchgen.dataset",
    "batchgen.engine.bucket_placing",
    "batchgen.ledger.costs",
    "batchgen.ledger.decisions",
    "batchgen.ledger.explain",
    "batchgen.ledger.late_responses",
    "batchgen.ledger.run_report",
    "batchgen.ledger.saved_images",
    "batchgen.manifest.json_rows",
    "batchgen.manifest.legacy_encodings",
    "batchgen.manifest.parquet_rows",
    "batchgen.manifest.sqlite_rows",
    "batchgen.manifest.valid_part",
    "batchgen.outcomes.blocked_words",
    "batchgen.output.bucket_names",
    "batchgen.output.bucket_obstacles",
    "batchgen.output.bucket_publishing",
    "batchgen.output.bucket_relocate",
    "batchgen.output.bucket_versions",
    "batchgen.reconciliation",
    "batchgen.report.gather",
    "batchgen.report.reconcile",
    "batchgen.report.run",
    "batchgen.review",
    "batchgen.session.channels",
    "batchgen.session.live_status",
    "batchgen.session.notify",
    "batchgen.simulator",
    "batchgen.storage.object_store",
}
ONLY_FOR_A_NEW_LEDGER = {"sqlite_utils"}


@pytest.fixture
def modules(served: rig.Endpoint, tmp_path: Path) -> list[set[str]]:
    """The modules of two runs: one with a new ledger, and one that finds it."""
    path = rig.manifest(tmp_path, served.base_url, [], extra="rows: rows.csv\n")
    text = path.read_text(encoding="utf-8").replace("jobs:\n", "prompt: '{{ prompt }}'\n")
    path.write_text(text, encoding="utf-8")
    found = []
    for rows in ("a,A mug\n", "a,A mug\nb,A bag\n"):
        (tmp_path / "rows.csv").write_text(f"id,prompt\n{rows}", encoding="utf-8")
        script = (
            "import json, sys\nfrom batchgen.cli.main import main\n"
            f"assert main(['run', {path.name!r}, '--quiet']) == 0\n"
            "print(json.dumps(list(sys.modules)))"
        )
        found.append(set(json.loads(rig.python(script, cwd=tmp_path))))
    assert len(served.bill()) == 2
    return found


def test_a_plain_run_imports_only_what_it_needs(modules: list[set[str]]) -> None:
    first, second = modules
    assert first & NOT_NEEDED == set()
    assert second & (NOT_NEEDED | ONLY_FOR_A_NEW_LEDGER) == set()
    assert first >= ONLY_FOR_A_NEW_LEDGER
