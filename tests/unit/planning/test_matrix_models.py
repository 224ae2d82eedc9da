"""Models that differ from job to job: by the matrix, by a column, by a template."""

from __future__ import annotations

import pytest

from batchgen.job import PlannedJob
from tests.support.plans import NoSquares, Plan, faults_of

AXES = "matrix: {model: [a, b], quality: [low, high]}\noptions: {quality: '{{ quality }}'}\n"


def made(jobs: list[PlannedJob]) -> list[tuple[str, object]]:
    return [(job.kind.model, job.kind.options.get("quality")) for job in jobs]


FOUR = [("a", "low"), ("a", "high"), ("b", "low"), ("b", "high")]


def test_model_axis_chooses_the_model(plan: Plan) -> None:
    jobs = plan(f"{AXES}prompt: 'x by {{{{ model }}}}'\n")
    assert made(jobs) == FOUR
    assert [job.prompt for job in jobs] == ["x by a", "x by a", "x by b", "x by b"]
    assert len({job.fingerprint for job in jobs}) == 4
    assert len({job.key for job in jobs}) == 4


def test_model_may_be_a_template(plan: Plan) -> None:
    jobs = plan("matrix: {family: [a, b]}\nmodel: '{{ family }}-pro'\nprompt: '{{ model }}'\n")
    assert [(job.kind.model, job.prompt) for job in jobs] == [
        ("a-pro", "a-pro"),
        ("b-pro", "b-pro"),
    ]


def test_column_of_a_table_chooses_the_model(plan: Plan) -> None:
    text = "rows: t.csv\nmodel: '{{ model }}'\nprompt: '{{ id }} by {{ model }}'\n"
    jobs = plan(text, t_csv="id,model\n1,a\n2,b\n")
    assert [(job.kind.model, job.prompt) for job in jobs] == [("a", "1 by a"), ("b", "2 by b")]


def test_empty_model_fails_its_row_only(plan: Plan) -> None:
    text = "rows: t.csv\nmodel: '{{ m }}'\nprompt: '{{ id }}'\n"
    jobs = plan(text, t_csv="id,m\n1,a\n2,\n3,c\n")
    refused = {job.key: job.refused for job in jobs}
    assert refused["1"] is None
    assert "model: the model is empty" in (refused["2"] or "")


def test_unknown_name_in_a_model_is_refused(plan: Plan) -> None:
    rows = "rows: t.csv\nmodel: '{{ modle }}'\nprompt: '{{ id }}'\n"
    (fault,) = faults_of(plan, rows, t_csv="id,model\n1,a\n")
    assert fault.path == "model"
    assert "no column 'modle'; did you mean 'model'?" in fault.message
    (fault,) = faults_of(plan, "model: '{{ model }}'\nprompt: x\n")
    assert "no column 'model'" in fault.message


def test_model_and_axis_together_are_refused(plan: Plan) -> None:
    (fault,) = faults_of(plan, f"model: c\n{AXES}prompt: x\n")
    assert fault.path == "matrix"
    assert "has the axis 'model', and model: is 'c'; expected one of the two" in fault.message


def test_matrix_without_prompt_is_for_each_job(plan: Plan) -> None:
    jobs = plan(f"{AXES}jobs: [A mug, 'A bag of {{{{ quality }}}} price', A mug]\n")
    assert made(jobs) == FOUR * 3
    assert [job.prompt for job in jobs[4:6]] == ["A bag of low price", "A bag of high price"]
    assert len({job.key for job in jobs}) == 12


def test_matrix_with_prompt_leaves_jobs_alone(plan: Plan) -> None:
    jobs = plan(f"{AXES}prompt: x\njobs: [{{key: one, prompt: why, options: {{quality: low}}}}]\n")
    assert made(jobs) == [("gpt-image-2", "low"), *FOUR]


def test_job_may_have_a_matrix_of_its_own(plan: Plan) -> None:
    jobs = plan(
        "matrix: {model: [a, b]}\njobs:\n  - x\n  - {prompt: why, matrix: {size: [1, 2]}}\n"
        "  - {prompt: z, model: c, matrix: {size: [1]}}\n"
    )
    assert [job.kind.model for job in jobs] == ["a", "b", "gpt-image-2", "gpt-image-2", "c"]


def test_rules_see_each_model(plan: Plan) -> None:
    rules = NoSquares()
    plan("matrix: {model: [a, b]}\nprompt: ninechars\noptions: {size: 2x2}\n", rules=rules)
    assert {model for model, _, _ in rules.asked} == {"a", "b"}
    (fault,) = faults_of(plan, "matrix: {model: [a, b]}\nprompt: tencharsss\n", rules=NoSquares())
    assert "too long" in fault.message


def test_objection_to_a_model_of_a_row_fails_the_row(plan: Plan) -> None:
    text = "rows: t.csv\nmodel: '{{ m }}'\nprompt: '{{ id }}'\noptions: {size: '{{ s }}'}\n"
    jobs = plan(text, rules=NoSquares(), t_csv="id,m,s\n1,a,2x2\n2,b,1x1\n3,c,2x2\n")
    assert [bool(job.refused) for job in jobs] == [False, True, False]


@pytest.mark.parametrize(
    "manifest", ["matrix: {model: [a, b]}\n", "rows: t.csv\nmatrix: {x: [1]}\n"]
)
def test_matrix_needs_a_prompt_or_jobs(plan: Plan, manifest: str) -> None:
    faults = faults_of(plan, manifest, t_csv="id\n1\n")
    assert any("needs prompt: next to it" in fault.message for fault in faults)


def test_option_is_left_out_for_some_models(plan: Plan) -> None:
    jobs = plan(
        "matrix: {model: [a, b]}\nprompt: x\n"
        "options: {size: 2x2, quality: \"{{ 'high' if model == 'a' else omit }}\"}\n"
    )
    assert [job.kind.options for job in jobs] == [
        {"size": "2x2", "quality": "high"},
        {"size": "2x2"},
    ]


def test_omit_is_all_of_an_option_or_a_column(plan: Plan) -> None:
    (fault,) = faults_of(plan, "prompt: x\noptions: {quality: 'very {{ omit }}'}\n")
    assert "omit is only a part of the text; expected it alone" in fault.message
    (fault,) = faults_of(plan, "prompt: 'x {{ omit }}'\n")
    assert "no column 'omit'" in fault.message
    text = "rows: t.csv\nprompt: x\nkey: '{{ id }}'\noptions: {quality: '{{ omit }}'}\n"
    (job,) = plan(text, t_csv="id,omit\n1,low\n")
    assert job.kind.options == {"quality": "low"}


def test_constant_key_of_a_matrix_is_refused(plan: Plan) -> None:
    (fault,) = faults_of(
        plan, "matrix: {model: [a, b]}\njobs:\n  - {key: tote, prompt: A bag}\n  - A mug\n"
    )
    assert fault.path == "jobs[0].key"
    assert "the same for all 2 combinations of the matrix" in fault.message
    assert "such as 'tote/{{ model }}'" in fault.message
