"""The process that forks commands for tests outlives what happens to one of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import fork_server, rig

pytestmark = pytest.mark.skipif(not fork_server.is_wanted(), reason="commands are not forked")


def test_given_up_command_ends_no_other(tmp_path: Path) -> None:
    """A command that took too long was given up, and its end broke all tests after it."""
    forked = rig.environment({"PYTHONPATH": fork_server.LOUD})
    rig.batchgen("--version", cwd=tmp_path)  # starts the process
    with pytest.raises(subprocess.TimeoutExpired):
        fork_server.run(["serve"], cwd=tmp_path, env=forked, timeout_s=1)
    for _ in range(2):  # the end of the first one is noticed before the second
        assert rig.batchgen("--version", cwd=tmp_path).stdout.startswith("batchgen")
