"""Shop exports and prompt lists as they are, run to the end with faults; the bills agree.

Uses the team's own data if BATCHGEN_TEST_DATA names its directory, and a small export with
everything that makes real ones hard, so that this runs everywhere.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import rig

SHOP = '''\
Handle,Title,Body (HTML),Vendor,Tags,Published,Option1 Name,Option1 Value
oak-stool,Oak stool,"<p>Three legs, oiled oak.
Stacks up to <b>six</b> high.</p>",Björk & Söhne,"wood, seat",true,Size,Small
oak-stool,,,,,,,Large
throw,"Wool throw ""Skåne""",<p>130 x 170 cm</p>,毛织,,true,Title,Default Title
clay-pot,Clay pot,<p>Hand-thrown&nbsp;terracotta 🪴</p>,,"Pot, Plants",false,Title,Default Title
'''
PROMPTS = "Prompt\tCategory\tNote\n" + "".join(
    f'a sign that says "No. {number}", 5\' tall\tSigns\t\n' for number in range(30)
)
HANDLE = "{{ handle }}"
CHAOS = (
    ("--refuse", "0.01"),
    ("--error", "0.02"),
    ("--break", "0.01"),
    ("--bill-error", "0.02"),
    ("--bill-drop", "0.02"),
    ("--bill-empty", "0.01"),
    ("--download-error", "0.03"),
)
"""Nine per cent of the requests go wrong, and some downloads.

No image stays truncated: its job would wait as `paid` for a day.
"""


def _sources(directory: Path, *, real: bool) -> dict[str, tuple[str, str]]:
    """Rows and the templates that fit them, by batch; those of the team too where ``real``."""
    (directory / "shop.csv").write_text(SHOP, encoding="utf-8")
    (directory / "prompts.tsv").write_text(PROMPTS, encoding="utf-8")
    shop = "{{ title }}. {{ body_html | striptags | truncate(200) }}"
    found = {
        "shop": ("{file: shop.csv, where: title}", shop),
        "prompts": ("prompts.tsv", "{{ prompt }}"),
    }
    if real and (data := os.environ.get("BATCHGEN_TEST_DATA")):
        for table in sorted(Path(data).glob("shopify/*.csv")):
            found[table.stem] = (f"{{file: {str(table)!r}, where: title}}", shop)
        found["parti"] = (str(Path(data) / "parti-prompts.tsv"), "{{ prompt }}")
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("response", ["url", "b64_json"])
def test_catalogs_finish_despite_faults_and_the_bills_agree(response: str, tmp_path: Path) -> None:
    switches = [word for fault in CHAOS for word in fault]
    switches += ["--response", response, "--seed", "11", "--fast-images"]
    with rig.endpoint(tmp_path / "state", *switches) as endpoint:
        manifests = []
        # How an image comes makes no difference to a table: the large ones run once.
        for name, (rows, prompt) in _sources(tmp_path, real=response == "url").items():
            path = tmp_path / f"{name}.yaml"
            line = "" if "title" not in prompt else f"key: {HANDLE!r}\n"
            path.write_text(
                f"provider: {{name: local, base_url: {endpoint.base_url!r}}}\n"
                f"rows: {rows}\n{line}prompt: {prompt!r}\n"
                "options: {size: 1024x640}\n"
                'limits: {concurrency: 16, max_waste: "20%"}\n',
                encoding="utf-8",
            )
            manifests.append(path)

        rig.batchgen("run", *manifests, cwd=tmp_path, code=None)

        rig.judge(tmp_path, endpoint.bill(), finished=True)
        jobs = done = 0
        for path in manifests:
            found = rig.status(tmp_path, path.stem)
            assert found["jobs"]["pending"] == found["jobs"]["paid"] == 0
            jobs += sum(found["jobs"].values())
            done += found["jobs"]["done"]
        assert jobs >= 32
        assert done >= jobs * 0.9
        prompts = {row["prompt"] for row in endpoint.bill()}
        assert any('No. 7"' in prompt for prompt in prompts)
        assert any("Skåne" in prompt for prompt in prompts)
        assert any("Stacks up to six high" in prompt for prompt in prompts)
        assert not any("<p>" in prompt for prompt in prompts)
