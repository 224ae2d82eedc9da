"""Read the code blocks of README.md and copy the example manifests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block_after(marker: str) -> str:
    """The code block behind a marker."""
    match = re.search(rf"<!-- {marker} -->\n```\w*\n(.*?)```", README, re.DOTALL)
    assert match is not None, f"README.md has no block behind <!-- {marker} -->"
    return match[1]


def copy_examples(directory: Path) -> None:
    """The example manifests and their tables, without what runs have made beside them."""
    (directory / "jobs").mkdir()
    for file in (ROOT / "jobs").iterdir():
        if file.is_file() and file.suffix in (".yaml", ".csv"):
            shutil.copy(file, directory / "jobs")
