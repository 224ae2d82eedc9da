"""Commands that the program prints work where they are typed."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path

import pytest

from tests.support import rig

_COMMAND = re.compile(
    r"batchgen [a-z]+ batch[^`;,<\n]*?(?= rebuys| closes| continues|[`;,<\n]|   #|$)"
)


def commands(text: str) -> set[str]:
    return {found.strip() for found in _COMMAND.findall(text) if not found.endswith(" --yes")}


@pytest.mark.parametrize("named", ["by the option", "next to the manifest"])
def test_printed_commands_find_the_ledger(tmp_path: Path, named: str) -> None:
    shop, here = tmp_path / "shop", tmp_path / "here"
    here.mkdir()
    ledger = tmp_path / "the ledgers" / "night.db"
    ledger.parent.mkdir()
    db = ["--db", str(ledger)] if named == "by the option" else []
    with rig.endpoint(tmp_path / "endpoint", "--fast-images", "--bill-drop", "0.3") as endpoint:
        prompts = [f"image {number}" for number in range(12)]
        path = rig.manifest(shop, endpoint.base_url, prompts, limits="{max_waste: 0}")
        if not db:
            ledger = shop / "batchgen.db"

        def output(*arguments: str, code: int | None = None) -> str:
            done = rig.batchgen(*arguments, cwd=here, code=code)
            return f"{done.stdout}\n{done.stderr}"

        texts = [output("run", str(path), *db)]
        found = ["--db", str(ledger)]
        image = next((shop / "out" / "batch").glob("*.png"))
        image.unlink()
        texts.append(output("run", str(path), *db))
        texts += [
            output(*command, *found)
            for command in (
                ("status", "batch"),
                ("report", "batch"),
                ("report", "batch", "--format", "html", "-o", "report.html"),
                ("reconcile", "batch"),
                ("retry", "batch", "--uncertain"),
                ("verify", "batch"),
            )
        ]
        texts.append(html.unescape((here / "report.html").read_text(encoding="utf-8")))
        printed = set[str]().union(*map(commands, texts))
        assert {shlex.split(one)[1] for one in printed} >= {"retry", "acknowledge", "verify"}
        for one in printed:
            assert "--db" in one, one
            if shlex.split(one)[1] == "review":
                continue  # serves a page until it is stopped
            shown = rig.batchgen(*shlex.split(one)[1:], cwd=here, code=None)
            assert "no such ledger" not in shown.stderr, one
            assert shown.returncode != 2, (one, shown.stderr)
