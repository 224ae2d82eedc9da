"""Rules of providers in a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from batchgen.errors import Objection
from batchgen.job import OptionValue
from batchgen.manifest.loader import load_manifest
from batchgen.planning.planner import Planner
from tests.support import rig
from tests.support.plans import STRICT, NoSquares, Plan, faults_of


def test_rules_are_asked_once_and_blame_the_manifest(plan: Plan) -> None:
    table = "id\n1\n2\n3\n"
    rules = NoSquares()
    assert len(plan("rows: t.csv\nprompt: x\n", rules=rules, t_csv=table)) == 3
    assert rules.asked == [("gpt-image-2", {}, 0)]
    text = "rows: t.csv\nprompt: x\noptions: {size: 1x1, user: '{{ id }}'}\n"
    (fault,) = faults_of(plan, text, rules=rules)
    assert str(fault).endswith("catalog.yaml:3:17: options.size: size is odd")


def test_row_is_blamed_for_options_that_are_templates(plan: Plan) -> None:
    text = "rows: t.csv\nprompt: x\nkey: '{{ size }}'\noptions: {size: '{{ size }}', user: me}\n"
    (job,) = plan(text, rules=NoSquares(), t_csv="size\n2x2\n")
    assert job.kind.options == {"size": "2x2", "user": "me"}
    _, bad = plan(text, rules=NoSquares(), t_csv="size\n2x2\n1x1\n")
    assert (bad.key, bad.refused) == ("1x1", "row: t.csv:3: options.size: size is odd")
    strict = text.replace("rows: t.csv\n", STRICT)
    (fault,) = faults_of(plan, strict, rules=NoSquares())
    assert (fault.file, fault.line, fault.path) == ("t.csv", 3, "options.size")


def test_a_prompt_against_the_rules_is_a_fault_of_its_row(plan: Plan) -> None:
    text = STRICT + "prompt: '{{ title }}'\n"
    (fault,) = faults_of(plan, text, rules=NoSquares(), t_csv="title\nshort\nfar too long\n")
    assert (fault.file, fault.line, fault.path, fault.message) == ("t.csv", 3, "prompt", "too long")


@pytest.mark.parametrize(
    ("job", "line", "path"),
    [
        ("{prompt: x}", 1, "options.size"),
        ("{prompt: x, options: {size: 1x1}}", 4, "jobs[1].options.size"),
        ("{prompt: x, options: {user: me}}", 4, "jobs[1].options.size"),
        ("{prompt: x, model: other}", 4, "jobs[1].options.size"),
    ],
)
def test_refusal_is_placed_where_it_is_fixed(plan: Plan, job: str, line: int, path: str) -> None:
    text = f"options: {{size: 1x1}}\njobs:\n  - {{prompt: x, options: {{size: null}}}}\n  - {job}\n"
    (fault,) = faults_of(plan, text, rules=NoSquares())
    assert (fault.line, fault.path) == (line, path)


def test_too_many_reference_images_are_placed_at_their_list(plan: Plan, tmp_path: Path) -> None:
    rig.image(tmp_path / "a.png")
    text = "prompt: x\nimages: [a.png, a.png]\n"
    (fault,) = faults_of(plan, text, rules=NoSquares())
    assert (fault.line, fault.path, fault.message) == (2, "images", "too many")


def test_warning_is_given_once_with_its_number_of_jobs(tmp_path: Path) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        "rows: t.csv\nprompt: 'A {{ title }}'\noptions: {size: '{{ size }}'}\n", encoding="utf-8"
    )
    table = "title,size\n" + "mug,1x1\n" * 3 + "shop window,2x2\n"
    (tmp_path / "t.csv").write_text(table, encoding="utf-8")
    planner = Planner(
        load_manifest(manifest),
        provider="local",
        default_model="m",
        rules=NoSquares(fatal=False),
    )
    for _ in range(2):
        assert len(list(planner)) == 4
        assert [(fault.line, fault.path, fault.message) for fault in planner.warnings] == [
            (3, "options.size", "size is odd (3 jobs)"),
            (2, "prompt", "too long (1 job)"),
        ]


def test_warnings_without_end_are_cut_off(tmp_path: Path) -> None:
    class Talkative(NoSquares):
        def of_request(
            self, model: str, options: Mapping[str, OptionValue], references: int
        ) -> Sequence[Objection]:
            return [Objection(place=("options",), message=str(options["user"]), fatal=False)]

    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        f"prompt: x\nmatrix: {{id: {list(range(150))}}}\noptions: {{user: '{{{{ id }}}}'}}\n",
        encoding="utf-8",
    )
    planner = Planner(
        load_manifest(manifest), provider="local", default_model="m", rules=Talkative()
    )
    assert len(list(planner)) == 150
    assert len(planner.warnings) == 101
    assert planner.warnings[-1].message == "more than 100 warnings; the rest is not shown (50 jobs)"
