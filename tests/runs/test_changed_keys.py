"""A night in which most known jobs vanish while as many new ones appear."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.errors import StoppedError
from batchgen.ledger.groups import Group, GroupSum
from batchgen.money import ZERO
from batchgen.session.approval import check_keys
from tests.support import canary, rig

MANIFEST = """\
name: cat
provider: {{name: local, base_url: {base_url!r}, api_key_env: {variable}}}
rows: p.csv
prompt: "photo of {{{{ title }}}}"
options: {{size: 1024x640}}
"""


def test_changed_keys_stop_before_buying(tmp_path: Path, served: rig.Endpoint) -> None:
    manifest, table = tmp_path / "cat.yaml", tmp_path / "p.csv"
    text = MANIFEST.format(base_url=served.base_url, variable=canary.VARIABLE)
    manifest.write_text(text, encoding="utf-8")
    table.write_text("sku,title\nA1,Mug\nA2,Cup\n", encoding="utf-8")
    before = len(served.bill())
    rig.batchgen("run", manifest, cwd=tmp_path)
    # A spreadsheet dropped the letters.
    table.write_text("sku,title\n1,Mug\n2,Cup\n", encoding="utf-8")
    states = rig.query(tmp_path / "batchgen.db", "SELECT key, state, retired FROM jobs")
    stopped = rig.batchgen("run", manifest, cwd=tmp_path, code=3)
    assert "2 of 2 known jobs would be retired while 2 new ones appear" in stopped.stderr
    assert "--yes to buy the new ones" in stopped.stderr
    assert len(served.bill()) - before == 2
    after = rig.query(tmp_path / "batchgen.db", "SELECT key, state, retired FROM jobs")
    assert [tuple(row) for row in after] == [tuple(row) for row in states]
    rig.batchgen("run", "--yes", manifest, cwd=tmp_path)
    assert len(served.bill()) - before == 4


@pytest.mark.parametrize(
    ("groups", "stops"),
    [
        ({Group.RETIRED: 60, Group.UNCHANGED: 40, Group.NEW: 60}, True),
        ({Group.RETIRED: 60, Group.UNCHANGED: 40, Group.NEW: 30}, True),
        ({Group.RETIRED: 60, Group.UNCHANGED: 40, Group.NEW: 29}, False),
        ({Group.RETIRED: 50, Group.UNCHANGED: 50, Group.NEW: 50}, False),
        ({Group.RETIRED: 100, Group.AT_FAULT: 500, Group.NEW: 100}, True),
        ({Group.RETIRED: 1, Group.NEW: 1}, False),
        ({Group.NEW: 1000}, False),
        ({Group.RETIRED: 1000}, False),
    ],
)
def test_keys_count_as_changed_if_most_jobs_do(groups: dict[Group, int], stops: bool) -> None:
    sums = {group: GroupSum(jobs=jobs, cost=ZERO) for group, jobs in groups.items()}
    if not stops:
        check_keys("cat", sums)
        return
    with pytest.raises(StoppedError, match="as if their keys had changed"):
        check_keys("cat", sums)
