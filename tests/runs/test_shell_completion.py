"""Completion in bash, zsh and fish: the scripts, and what they propose."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import rig

NIGHT = ["A red mug", "A blue bowl"]


def proposed(directory: Path, *words: str) -> list[str]:
    """Return what is proposed for the last word of a command line."""
    line = " ".join(["batchgen", *words])
    env = {
        "_BATCHGEN_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
    }
    done = rig.batchgen(cwd=directory, env=env)
    return [one.partition(",")[2] for one in done.stdout.splitlines() if one]


@pytest.fixture(scope="module")
def batch_directory(served: rig.Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ledger")
    manifest = rig.manifest(directory, served.base_url, NIGHT)
    rig.batchgen("run", manifest, cwd=directory)
    return directory


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("status", ""), ["batch"]),
        (("retry", "batch", "--only", "job-"), ["job-000", "job-001"]),
        (("rollback", "batch", "--only", "job-001"), ["job-001"]),
        (("run", "batch.yaml", "--only", "job-"), ["job-000", "job-001"]),
        (("plan", "batch.yaml", "--why", "x"), []),
        (("prices", "--model", "gpt-image-1-"), ["gpt-image-1-mini"]),
        (("guide", "mon"), ["money"]),
        (("rep",), ["report"]),
    ],
)
def test_completion_proposes_names(
    batch_directory: Path, words: tuple[str, ...], expected: list[str]
) -> None:
    assert proposed(batch_directory, *words) == expected


def test_completion_without_a_ledger_proposes_nothing(tmp_path: Path) -> None:
    assert proposed(tmp_path, "status", "") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_calls_batchgen(shell: str, tmp_path: Path) -> None:
    script = rig.batchgen("completion", shell, cwd=tmp_path).stdout
    assert "_BATCHGEN_COMPLETE" in script
    program = shutil.which(shell)
    if program is not None:
        file = tmp_path / "script"
        file.write_text(script, encoding="utf-8")
        subprocess.run([program, "-n", str(file)], check=True, timeout=rig.TIMEOUT_S)


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_bash_completes_a_batch_name(batch_directory: Path, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    program = tmp_path / "batchgen"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchgen "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    script = (
        'eval "$(batchgen completion bash)"\n'
        "COMP_WORDS=(batchgen status ba) COMP_CWORD=2\n"
        "_batchgen_completion batchgen ba status\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        [bash, "-c", script],
        cwd=batch_directory,
        env=rig.environment({"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}),
        capture_output=True,
        text=True,
        check=True,
        timeout=rig.TIMEOUT_S,
    )
    assert done.stdout.strip() == "batch", done.stderr
