"""Plans of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.job import PlannedJob
from batchgen.manifest.loader import load_manifest
from batchgen.planning.planner import Planner
from batchgen.planning.provider_rules import Rules
from tests.support.plans import Plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Plan a manifest's text, next to files that are given by name."""

    def plan(
        text: str,
        *,
        rules: Rules | None = None,
        max_faults: int = 100,
        provider: str = "local",
        **files: str,
    ) -> list[PlannedJob]:
        for name, content in files.items():
            (tmp_path / name.replace("_", ".")).write_text(content, encoding="utf-8")
        manifest = tmp_path / "catalog.yaml"
        manifest.write_text(text, encoding="utf-8")
        planner = Planner(
            load_manifest(manifest),
            provider=provider,
            default_model="gpt-image-2",
            rules=rules,
            max_faults=max_faults,
        )
        return list(planner)

    return plan
