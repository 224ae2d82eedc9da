"""The metrics of a ledger, read by the parser of the official client."""

from __future__ import annotations

import time
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support import rig


def test_monitor_reads_the_metrics_of_status(tmp_path: Path) -> None:
    began = time.time()
    with rig.endpoint(tmp_path / "state", "--fast-images") as served:
        for name, prompts in (("one", ["a", "b"]), ('the "other"', ["a forbidden-word"])):
            path = rig.manifest(tmp_path, served.base_url, prompts, name="x")
            text = path.read_text(encoding="utf-8").replace("name: x\n", f"name: {name!r}\n")
            path.write_text(text, encoding="utf-8")
            rig.batchgen("run", path, cwd=tmp_path, code=None)
    text = rig.batchgen("status", "--metrics", cwd=tmp_path).stdout
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # as it comes
    samples: dict[tuple[str, str, str | None, str | None], float] = {}
    for sample in (sample for family in families for sample in family.samples):
        labels = sample.labels
        key = (sample.name, labels["batch"], labels.get("state"), labels.get("kind"))
        samples[key] = sample.value
    assert samples["batchgen_jobs", "one", "done", None] == 2
    assert samples["batchgen_jobs", 'the "other"', "blocked", None] == 1
    assert samples["batchgen_images", "one", None, None] == 2
    assert samples["batchgen_dollars", "one", None, "charged"] == 0.0754
    assert samples["batchgen_last_run_exit_code", 'the "other"', None, None] == 1
    assert began - 1 < samples["batchgen_last_run_started_seconds", "one", None, None]
    assert samples["batchgen_last_run_ended_seconds", "one", None, None] < time.time() + 1
    alone = rig.batchgen("status", "one", "--metrics", cwd=tmp_path).stdout
    assert "other" not in alone
    assert alone.endswith("# EOF\n")
