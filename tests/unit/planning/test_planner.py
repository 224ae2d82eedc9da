"""From manifests on disk to planned jobs."""

from __future__ import annotations

import os
import sqlite3
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import Fault, ManifestError, Objection
from batchgen.job import OptionValue, PlannedJob, Verify, canonical_json
from batchgen.manifest.loader import load_manifest
from batchgen.planning import reference_images
from batchgen.planning.fingerprint import Fingerprints
from batchgen.planning.planner import Planner
from batchgen.planning.provider_rules import Rules
from batchgen.planning.reference_images import FetchedReference, Reference
from tests.support import rig

Plan = Callable[..., list[PlannedJob]]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Plan a manifest's text, beside files that are given by name."""

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


def faults_of(plan: Plan, text: str, **more: object) -> tuple[Fault, ...]:
    with pytest.raises(ManifestError) as caught:
        plan(text, **more)
    return caught.value.faults


STRICT = "rows: {file: t.csv, strict: true}\n"
PRODUCTS = (
    "Handle,Title,Body (HTML),Published\nmug,Blue Mug,<p>A mug</p>,true\n,,,\nbag,Linen Bag,,\n"
)
CATALOG = """\
name: catalog
model: gpt-image-2.5-flare
rows: {file: products.csv, where: title and published == 'true'}
key: "{{ handle }}/{{ view }}"
matrix:
  view: [front, lifestyle]
prompt: >
  Studio photo of {{ title }}, {{ view }} view.
  {{ body_html | striptags | truncate(200) }}
options: {size: 1024x1024, quality: high}
output: {dir: out/shop, path: "{{ handle }}/{{ view }}.{{ ext }}", verify: decode}
refresh: 30d
tags: [winter]
jobs:
  - key: hero
    prompt: The shop window in winter
    options: {size: 1536x1024, quality: null}
    output: {verify: structure}
    tags: [hero, winter]
    count: 3
"""


def test_the_nightly_manifest(plan: Plan) -> None:
    jobs = plan(CATALOG, products_csv=PRODUCTS)
    assert [(job.key, job.path, job.source) for job in jobs] == [
        ("hero", "hero.{ext}", "catalog.yaml: jobs[0]"),
        ("hero-2", "hero-2.{ext}", "catalog.yaml: jobs[0]"),
        ("hero-3", "hero-3.{ext}", "catalog.yaml: jobs[0]"),
        ("mug/front", "mug/front.{ext}", "products.csv:2"),
        ("mug/lifestyle", "mug/lifestyle.{ext}", "products.csv:2"),
    ]
    hero, mug = jobs[0], jobs[3]
    assert mug.prompt == "Studio photo of Blue Mug, front view. A mug"
    assert mug.kind.options == {"size": "1024x1024", "quality": "high"}
    assert hero.kind.options == {"size": "1536x1024"}
    assert (mug.kind.root, hero.kind.root) == ("out/shop", "out/shop")
    assert (mug.kind.verify, hero.kind.verify) == (Verify.DECODE, Verify.STRUCTURE)
    assert (mug.kind.tags, hero.kind.tags) == (("winter",), ("winter", "hero"))
    assert (mug.kind.model, mug.kind.refresh, mug.kind.provider) == (
        "gpt-image-2.5-flare",
        "30d",
        "local",
    )


def test_repeated_line_of_a_list_is_numbered(plan: Plan) -> None:
    jobs = plan("jobs:\n  - A cat\n  - A dog\n  - A cat\n  - A cat\n")
    cat = jobs[0].key
    assert [job.key for job in jobs if job.prompt == "A cat"] == [cat, f"{cat}-2", f"{cat}-3"]
    assert [job.path for job in jobs][2] == f"{cat}-2.{{ext}}"
    assert plan("jobs:\n  - A cat\n  - A dog\n")[0].key == cat


def test_repeated_lines_go_on_after_their_copies(plan: Plan) -> None:
    jobs = plan("count: 2\njobs:\n  - A cat\n  - A cat\n")
    cat = jobs[0].key
    assert [job.key for job in jobs] == [cat, f"{cat}-2", f"{cat}-3", f"{cat}-4"]


def test_a_list_of_prompts_is_enough(plan: Plan) -> None:
    (mug, bag) = plan("jobs:\n  - A ceramic mug\n  - A linen bag, {{ 'soft' }} light\n")
    assert (mug.prompt, bag.prompt) == ("A ceramic mug", "A linen bag, soft light")
    assert mug.key.startswith("a-ceramic-mug-")
    assert mug.path == f"{mug.key}.{{ext}}"
    assert (mug.kind.model, mug.kind.root, mug.kind.refresh) == (
        "gpt-image-2",
        "out/catalog",
        "changed",
    )


def test_a_prompt_alone_is_one_job(plan: Plan) -> None:
    assert [job.prompt for job in plan("prompt: A mug\ncount: 2\n")] == ["A mug", "A mug"]


def test_a_matrix_without_rows_makes_the_product_in_the_order_written(plan: Plan) -> None:
    jobs = plan(
        "prompt: A {{ colour }} {{ row['Thing no 1'] }}\n"
        "matrix: {colour: [red, blue], Thing no 1: [mug, bag]}\n"
    )
    assert [job.prompt for job in jobs] == ["A red mug", "A red bag", "A blue mug", "A blue bag"]
    assert len({job.key for job in jobs}) == 4


def test_jobs_take_the_matrix_only_when_it_is_their_own(plan: Plan) -> None:
    jobs = plan(
        "prompt: A {{ colour }} mug\nmatrix: {colour: [red]}\njobs:\n"
        "  - A bag\n"
        "  - {prompt: 'A {{ n }}', matrix: {n: [1, 2]}, key: 'n/{{ n }}'}\n"
    )
    assert [job.prompt for job in jobs] == ["A bag", "A 1", "A 2", "A red mug"]


def test_values_are_the_row_of_an_explicit_job(plan: Plan) -> None:
    (job,) = plan(
        "jobs:\n  - prompt: '{{ body_html }} {{ row[\"Body (HTML)\"] }}'\n"
        "    values: {Body (HTML): text, SKU: 7}\n"
    )
    assert (job.prompt, job.key) == ("text text", "7")


def test_a_row_names_itself(plan: Plan) -> None:
    table = "sku,handle,prompt\nS1,mug,a mug\n,bag,a bag\n"
    jobs = plan(
        "rows: t.csv\nmatrix: {view: [a, b]}\nprompt: '{{ view }} {{ prompt }}'\n", t_csv=table
    )
    assert [job.key for job in jobs] == ["S1/a", "S1/b", "bag/a", "bag/b"]
    assert [job.path for job in jobs][:2] == ["S1/a.{ext}", "S1/b.{ext}"]


def test_columns_go_before_variables_of_our_own(plan: Plan) -> None:
    (job,) = plan(
        "rows: t.csv\nkey: '{{ key }}-x'\nprompt: '{{ name }} {{ model }} {{ index }} {{ key }}'\n",
        t_csv="key,name,model,index\nk,n,m,i\n",
    )
    assert (job.key, job.prompt) == ("k-x", "n m i k-x")
    (job,) = plan("jobs: ['{{ name }} {{ model }} {{ index }}']\n")
    assert job.prompt == "catalog gpt-image-2 1"


def test_a_raised_count_keeps_the_images_already_made(plan: Plan) -> None:
    text = "jobs:\n  - {prompt: A mug, count: COUNT}\n"
    one = plan(text.replace("COUNT", "1"))
    three = plan(text.replace("COUNT", "3"))
    first, only = three[0], one[0]
    assert (first.key, first.fingerprint, first.path) == (only.key, only.fingerprint, only.path)
    assert [job.key.removeprefix(one[0].key) for job in three] == ["", "-2", "-3"]
    assert len({job.path for job in three}) == 3


@pytest.mark.parametrize(
    ("path", "paths"),
    [
        ("mug.{{ ext }}", ["mug.{ext}", "mug-2.{ext}"]),
        ("mug", ["mug.{ext}", "mug-2.{ext}"]),
        ("mug/{{ index }}.png", ["mug/1.{ext}", "mug/2.{ext}"]),
        ("{{ key }}/x.{{ ext }}", ["k/x.{ext}", "k-2/x.{ext}"]),
    ],
)
def test_copies_get_paths_of_their_own(plan: Plan, path: str, paths: list[str]) -> None:
    jobs = plan(f"prompt: A mug\nkey: k\ncount: 2\noutput: {{path: '{path}'}}\n")
    assert [job.path for job in jobs] == paths


def test_a_key_with_the_index_gets_no_number(plan: Plan) -> None:
    jobs = plan("prompt: A mug\nkey: 'mug-v{{ index }}'\ncount: 2\n")
    assert [job.key for job in jobs] == ["mug-v1", "mug-v2"]


@pytest.mark.fault("D11")
def test_hostile_values_stay_below_the_root(plan: Plan) -> None:
    (job,) = plan(
        "rows: t.csv\nprompt: x\nkey: '{{ k }}'\noutput: {path: '{{ k }}/{{ k }}.{{ ext }}'}\n",
        t_csv="k\n../../{ext}\n",
    )
    assert job.path == "_ext_/_ext_.{ext}"


# fingerprints


def test_the_fingerprint_is_the_hash_of_what_determines_the_image(
    plan: Plan, tmp_path: Path
) -> None:
    image = rig.image(tmp_path / "a.png")
    another = rig.image(tmp_path / "b.png", "blue")
    mask = rig.mask(tmp_path / "m.png")
    (job,) = plan(
        'jobs:\n  - {prompt: "Ein \\"Grüß Gott\\" 🎉", mask: m.png,'
        " options: {size: auto, output_compression: 50}, images: [a.png, b.png]}\n"
    )
    expected = canonical_json(
        {
            "version": 1,
            "provider": "local",
            "model": "gpt-image-2",
            "prompt": 'Ein "Grüß Gott" 🎉',
            "options": {"size": "auto", "output_compression": 50},
            "images": [
                f"sha256:{sha256(image).hexdigest()}",
                f"sha256:{sha256(another).hexdigest()}",
            ],
            "mask": f"sha256:{sha256(mask).hexdigest()}",
        }
    )
    assert job.fingerprint == sha256(expected.encode()).hexdigest()[:32]
    assert job.images == (str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    assert job.mask == str(tmp_path / "m.png")


@given(st.text())
def test_a_fingerprint_is_that_of_canonical_json_whatever_the_prompt(prompt: str) -> None:
    made_of = {
        "version": 1,
        "provider": "local",
        "model": "m",
        "prompt": prompt,
        "options": {"size": "auto"},
        "images": [],
        "mask": None,
    }
    expected = sha256(canonical_json(made_of).encode()).hexdigest()[:32]
    assert Fingerprints("local", "m", '{"size":"auto"}').of(prompt) == expected


BASE = "key: k\nprompt: A mug\nmodel: m1\noptions: {size: auto}\nimages: [a.png]\n"


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("A mug", "A cup", False),
        ("model: m1", "model: m2", False),
        ("size: auto", "size: 1024x1024", False),
        ("size: auto", "size: auto, quality: high", False),
        ("images: [a.png]", "images: [a.png, a.png]", False),
        ("images: [a.png]", "images: [a.png]\nmask: a.png", False),
        ("key: k", "key: l", True),
        ("A mug", "' A mug\n'", True),
        ("images: [a.png]", "images: [copy.png]", True),
        ("size: auto", "size: auto}\noutput: {dir: elsewhere", True),
        ("key: k", "key: k\ntags: [x]\nrefresh: always", True),
    ],
)
def test_what_changes_a_fingerprint(
    plan: Plan, tmp_path: Path, old: str, new: str, same: bool
) -> None:
    for name in ("a.png", "copy.png"):
        rig.image(tmp_path / name)
    (before,), (after,) = plan(BASE), plan(BASE.replace(old, new))
    assert (before.fingerprint == after.fingerprint) is same


def test_another_provider_has_other_fingerprints(plan: Plan) -> None:
    (local,), (real,) = (plan("jobs: [A mug]\n", provider=name) for name in ("local", "openai"))
    assert local.fingerprint != real.fingerprint
    assert local.key == real.key


def test_a_changed_reference_image_changes_the_fingerprint(plan: Plan, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    rig.image(image)
    (before,) = plan(BASE)
    rig.image(image, "green")
    os.utime(image, ns=(1, 1))
    (after,) = plan(BASE)
    assert before.fingerprint != after.fingerprint


# faults


def test_a_column_that_no_row_has_is_one_fault(plan: Plan) -> None:
    table = "id,title\n" + "".join(f"{n},mug\n" for n in range(1234))
    (fault,) = faults_of(plan, "rows: t.csv\nprompt: 'A {{ titel }}'\n", t_csv=table)
    assert str(fault).endswith("catalog.yaml:2:9: prompt: no column 'titel'; did you mean 'title'?")


def test_a_row_counts_once_however_many_jobs_it_has(plan: Plan) -> None:
    text = STRICT + "matrix: {view: [a, b, c]}\nprompt: 'A {{ 1 // (id | int) }}'\n"
    (fault,) = faults_of(plan, text, t_csv="id\n0\n0\n0\n")
    assert fault.message.endswith("(and 2 more rows)")


def test_no_key_of_an_api_gets_into_a_message(plan: Plan) -> None:
    text = STRICT + "prompt: x\nimages: ['{{ id }}']\n"
    secret = "sk-CANARY0123456789abcdef"
    (fault,) = faults_of(plan, text, t_csv=f"id\n{secret}\n")
    assert secret not in str(fault)


def test_good_jobs_come_first_and_all_faults_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,n\n1,1\n2,0\n3\n4,x\n5,0\n", encoding="utf-8")
    manifest = tmp_path / "m.yaml"
    manifest.write_text(f"{STRICT}prompt: 'A {{{{ 6 // (n | int(6)) }}}}'\n", encoding="utf-8")
    jobs = iter(Planner(load_manifest(manifest), provider="local", default_model="m"))
    assert [next(jobs).key, next(jobs).key] == ["1", "4"]
    with pytest.raises(ManifestError) as caught:
        next(jobs)
    assert [(fault.line, fault.message) for fault in caught.value.faults] == [
        (3, "the template fails: integer division or modulo by zero (and 1 more row)"),
        (4, "1 cell, but the header has 2 columns"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "path", "words"),
    [
        ("jobs:\n  - A mug\n  - A {{ x\n", 3, "jobs[1]", "line 1 of the template"),
        ("jobs:\n  - A mug\n  - A {{ x }}\n", 3, "jobs[1]", "no column 'x'"),
        ("jobs:\n  - prompt: \"{{ ' ' }}\"\n", 2, "jobs[0].prompt", "the prompt is empty"),
        (
            "jobs:\n  - A\n  - {prompt: B, key: \"{{ ' ' }}\"}\n",
            3,
            "jobs[1].key",
            "the key is empty",
        ),
        ("prompt: A\nimages: [gone.png]\n", 2, "images[0]", "reference image not found"),
        ("prompt: A\nimages: [.]\n", 2, "images[0]", "is not a regular file"),
        ("prompt: A\nmask: ' '\n", 2, "mask", "is empty"),
        ("prompt: A\noutput: {dir: 'x/{{ y }}'}\n", 2, "output.dir", "must not be a template"),
        ("prompt: A\noutput: {path: ' .png'}\n", 2, "output.path", "the path has no file name"),
        ("prompt: A\nmatrix: {key: [1]}\n", 2, "matrix", "cannot be the name of a variable"),
        ("prompt: A\nmatrix: {a b: [1], A-b: [1]}\n", 2, "matrix", "are both 'a_b'"),
        ("jobs:\n- {prompt: A, values: {x: 1}, matrix: {x: [1]}}\n", 2, "jobs[0].matrix", "'x' is"),
        ("jobs:\n- {prompt: A, values: {x y: 1, X-Y: 2}}\n", 2, "jobs[0].values", "'x_y'"),
        ("prompt: A\noptions: {size: '{{ x'}\n", 2, "options.size", "template"),
        ("rows: t.csv\nprompt: x\noptions: {size: '{{ i }}'}\n", 3, "options.size", "column 'i'"),
        (
            "rows: t.csv\nprompt: x\nmatrix: {id: [1]}\n",
            3,
            "matrix",
            "'id' is also the name of a column",
        ),
        ("prompt: A\nrows: gone.csv\n", 2, "rows", "no such file"),
        ("prompt: A\nrows: {file: gone.csv}\n", 2, "rows.file", "no such file"),
        ("prompt: A\nrows: {file: t.csv, where: 'a b'}\n", 2, "rows.where", "unexpected"),
        (
            "prompt: A\nrows: {sqlite: t.csv, query: select 1 from p}\n",
            2,
            "rows.sqlite",
            "not a database",
        ),
    ],
)
def test_faults_of_the_manifest_stand_at_their_place(
    plan: Plan, text: str, line: int, path: str, words: str
) -> None:
    (fault,) = faults_of(plan, text, t_csv="id\n1\n" * 99)
    assert (Path(fault.file).name, fault.line, fault.path) == ("catalog.yaml", line, path)
    assert words in fault.message


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("prompt: '{{ empty or empty }}'", "prompt", "the prompt is empty"),
        ("prompt: x\nkey: '{{ long }}'", "key", "at most 200"),
        ("prompt: x\nimages: ['photos/{{ id }}.jpg']", "images[0]", "photos/7.jpg"),
        (
            "prompt: x\nkey: x\noutput: {path: '{{ empty }}'}",
            "output.path",
            "the path has no file name",
        ),
        ("prompt: \"{{ '\\\\ud800' }}\"", "prompt", "surrogate"),
    ],
)
def test_faults_of_a_row_stand_at_its_line(plan: Plan, text: str, path: str, words: str) -> None:
    table = f"id,empty,long\n7,,{'x' * 1000}\n"
    (fault,) = faults_of(plan, f"{STRICT}{text}\n", t_csv=table)
    assert (fault.file, fault.line, fault.path) == ("t.csv", 2, path)
    assert words in fault.message


def test_rows_without_lines_are_named_by_number(plan: Plan) -> None:
    (fault,) = faults_of(
        plan,
        "rows: {file: t.json, strict: true}\nprompt: '{{ a }}'\n",
        t_json='[{"a": "x"}, {"a": null}]',
    )
    assert (fault.file, fault.line, fault.path) == ("t.json", 0, "row 2: prompt")


def test_a_where_that_names_no_column_is_one_fault(plan: Plan) -> None:
    (fault,) = faults_of(
        plan, "rows: {file: t.csv, where: titel}\nprompt: x\n", t_csv="title\na\nb\n"
    )
    assert str(fault).endswith(
        "catalog.yaml:1:28: rows.where: no column 'titel'; did you mean 'title'?"
    )


def test_it_stops_early_and_says_so(plan: Plan) -> None:
    table = "id\n" + "".join(f"{n}\n" for n in range(1000))
    text = STRICT + "prompt: x\nimages: ['{{ id }}.png']\n"
    faults = faults_of(plan, text, max_faults=5, t_csv=table)
    assert len(faults) == 6
    assert any("more than 5 errors" in fault.message for fault in faults)


def test_a_matrix_beyond_all_measure_is_refused(plan: Plan) -> None:
    numbers = list(range(100))
    text = f"prompt: x\nmatrix: {{a: {numbers}, b: {numbers}, c: {numbers}, d: {numbers}}}\n"
    (fault,) = faults_of(plan, text)
    assert "100,000,000 jobs" in fault.message


# rules


class NoSquares:
    """Rules of a provider that takes no squares of one pixel and no prompt over nine characters."""

    def __init__(self, *, fatal: bool = True) -> None:
        self.fatal = fatal
        self.asked: list[tuple[str, Mapping[str, OptionValue], int]] = []

    def of_request(
        self, model: str, options: Mapping[str, OptionValue], references: int
    ) -> Sequence[Objection]:
        self.asked.append((model, options, references))
        found = []
        if options.get("size") == "1x1":
            found.append(self._objection("options", "size", message="size is odd"))
        if references > 1:
            found.append(self._objection("images", message="too many"))
        return found

    def of_prompt(self, model: str, characters: int) -> Objection | None:
        return self._objection("prompt", message="too long") if characters > 9 else None

    def of_references(
        self, model: str, images: Sequence[Reference], mask: Reference | None
    ) -> Sequence[Objection]:
        found = [
            Objection(place=("images", number), message="nine is odd", fatal=self.fatal)
            for number, image in enumerate(images)
            if image.image is not None and image.image.width == 9
        ]
        return found if mask is None else [*found, self._objection("mask", message="masked")]

    def _objection(self, *place: str, message: str) -> Objection:
        return Objection(place=place, message=message, options=place[1:], fatal=self.fatal)


def test_rules_are_asked_once_for_equal_options_and_blame_the_manifest(plan: Plan) -> None:
    table = "id\n1\n2\n3\n"
    rules = NoSquares()
    assert len(plan("rows: t.csv\nprompt: x\n", rules=rules, t_csv=table)) == 3
    assert rules.asked == [("gpt-image-2", {}, 0)]
    text = "rows: t.csv\nprompt: x\noptions: {size: 1x1, user: '{{ id }}'}\n"
    (fault,) = faults_of(plan, text, rules=rules)
    assert str(fault).endswith("catalog.yaml:3:17: options.size: size is odd")


def test_options_may_be_templates_and_then_the_row_is_to_blame(plan: Plan) -> None:
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
def test_what_is_refused_stands_where_it_is_mended(
    plan: Plan, job: str, line: int, path: str
) -> None:
    text = f"options: {{size: 1x1}}\njobs:\n  - {{prompt: x, options: {{size: null}}}}\n  - {job}\n"
    (fault,) = faults_of(plan, text, rules=NoSquares())
    assert (fault.line, fault.path) == (line, path)


def test_too_many_reference_images_stand_at_their_list(plan: Plan, tmp_path: Path) -> None:
    rig.image(tmp_path / "a.png")
    text = "prompt: x\nimages: [a.png, a.png]\n"
    (fault,) = faults_of(plan, text, rules=NoSquares())
    assert (fault.line, fault.path, fault.message) == (2, "images", "too many")


def test_a_warning_is_told_once_with_the_number_of_jobs_that_are_planned(tmp_path: Path) -> None:
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


# reference images


class Known:
    """Addresses of which something is known."""

    def __init__(self, **copies: FetchedReference) -> None:
        self.asked: list[str] = []
        self._copies = copies

    def find(self, url: str) -> FetchedReference:
        self.asked.append(url)
        return self._copies.get(url.rpartition("/")[2].partition(".")[0], FetchedReference())


EDIT = "prompt: x\nimages: ['{{ photo }}']\nmask: mask.png\n"


def test_what_rules_have_against_images_stands_at_each_of_them(plan: Plan, tmp_path: Path) -> None:
    rig.image(tmp_path / "b.png", size=(9, 9))
    rig.mask(tmp_path / "mask.png")
    text = "prompt: x\nmask: mask.png\nimages:\n  - b.png\n"
    faults = faults_of(plan, text, rules=NoSquares())
    assert [(fault.line, fault.path, fault.message) for fault in faults] == [
        (2, "mask", "masked"),
        (4, "images[0]", "nine is odd"),
    ]


def test_a_image_against_the_rules_is_a_fault_of_its_row(plan: Plan, tmp_path: Path) -> None:
    rig.image(tmp_path / "a.png")
    rig.image(tmp_path / "b.png", size=(9, 9))
    text = STRICT + "prompt: x\nimages: ['{{ photo }}']\n"
    rows = "id,photo\n1,a.png\n2,b.png\n3,b.png\n"
    assert len(plan(text, rules=NoSquares(fatal=False), t_csv=rows)) == 3
    (fault,) = faults_of(plan, text, rules=NoSquares(), t_csv=rows)
    assert (fault.file, fault.line, fault.path) == ("t.csv", 3, "images[0]")
    assert fault.message == "nine is odd (and 1 more row)"


def test_a_mask_without_an_image_is_a_fault(plan: Plan, tmp_path: Path) -> None:
    rig.mask(tmp_path / "mask.png")
    (fault,) = faults_of(plan, "prompt: x\nmask: mask.png\n")
    assert (fault.line, fault.path) == (2, "mask")
    assert "a mask needs a reference image" in fault.message


def test_a_mask_for_rows_is_left_out_where_their_image_is(plan: Plan, tmp_path: Path) -> None:
    rig.image(tmp_path / "a.png")
    rig.mask(tmp_path / "mask.png")
    text = f"rows: t.csv\n{EDIT}jobs:\n  - A shop window\n"
    hero, mug = plan(text, t_csv="id,photo\n1,a.png\n")
    assert (hero.images, hero.mask) == ((), None)
    assert mug.mask == str(tmp_path / "mask.png")


def test_a_file_that_many_jobs_share_is_read_once(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def reading(path: Path) -> reference_images.Content:
        read.append(path)
        return content(path)

    content = reference_images.read_content
    monkeypatch.setattr(reference_images, "read_content", reading)
    rig.image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    rows = "id\n" + "".join(f"{n}\n" for n in range(500))
    jobs = plan("rows: t.csv\nprompt: x\nimages: [a.png]\n", t_csv=rows)
    assert len({job.fingerprint for job in jobs}) == 1
    (fault,) = faults_of(plan, "rows: t.csv\nprompt: x\nimages: [b.png]\n")
    assert (fault.line, fault.path) == (3, "images[0]")
    assert read == [tmp_path / "a.png", tmp_path / "b.png"]


URL = "https://shop.example"


def plan_urls(tmp_path: Path, text: str, known: Known, rules: Rules | None = None) -> Planner:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(f"prompt: x\n{text}", encoding="utf-8")
    return Planner(
        load_manifest(manifest),
        provider="local",
        default_model="m",
        rules=rules,
        reference_urls=known,
    )


def test_a_fetched_address_counts_by_its_content_alone(tmp_path: Path) -> None:
    rig.image(tmp_path / "a.png")
    known = Known(
        one=FetchedReference(path=tmp_path / "a.png"), two=FetchedReference(path=tmp_path / "a.png")
    )
    jobs = [
        next(iter(plan_urls(tmp_path, f"images: [{image}]\n", known)))
        for image in (f"{URL}/one.png", f"{URL}/two.png", "a.png")
    ]
    assert len({job.fingerprint for job in jobs}) == 1
    assert {job.images for job in jobs} == {(str(tmp_path / "a.png"),)}
    assert known.asked == [f"{URL}/one.png", f"{URL}/two.png"]


def test_an_address_that_is_not_fetched_yet_is_planned_and_no_fault(tmp_path: Path) -> None:
    planner = plan_urls(tmp_path, f"images: [{URL}/new.png]\n", Known())
    (job,) = planner
    assert (job.images, job.refused) == ((f"{URL}/new.png",), None)
    assert planner.warnings == []


def test_a_lost_copy_keeps_the_fingerprint_of_its_content(tmp_path: Path) -> None:
    content = rig.image(tmp_path / "a.png")
    text = f"images: [{URL}/a.png]\n"
    (here,) = plan_urls(tmp_path, text, Known(a=FetchedReference(path=tmp_path / "a.png")))
    (lost,) = plan_urls(
        tmp_path, text, Known(a=FetchedReference(sha256=sha256(content).hexdigest()))
    )
    assert here.fingerprint == lost.fingerprint


def test_an_address_that_gives_nothing_refuses_its_own_job_only(tmp_path: Path) -> None:
    rig.image(tmp_path / "a.png")
    known = Known(
        a=FetchedReference(path=tmp_path / "a.png"), dead=FetchedReference(problem="HTTP 404")
    )
    text = f"matrix: {{photo: [a, dead]}}\nimages: ['{URL}/{{{{ photo }}}}.png']\n"
    planner = plan_urls(tmp_path, text, known)
    good, bad = planner
    assert good.refused is None
    assert bad.refused == f"reference: {URL}/dead.png: HTTP 404"
    (warning,) = planner.warnings
    assert (warning.line, warning.path) == (3, "images[0]")
    assert "dead.png: HTTP 404; no request is sent for this job (1 job)" in warning.message


def test_an_earlier_copy_is_used_with_a_warning(tmp_path: Path) -> None:
    rig.image(tmp_path / "a.png")
    known = Known(a=FetchedReference(path=tmp_path / "a.png", problem="HTTP 503"))
    planner = plan_urls(tmp_path, f"images: [{URL}/a.png]\n", known)
    (job,) = planner
    assert (job.refused, job.images) == (None, (str(tmp_path / "a.png"),))
    assert "HTTP 503; the copy fetched earlier is used (1 job)" in planner.warnings[0].message


def test_rules_against_a_image_behind_an_address_refuse_the_job(tmp_path: Path) -> None:
    rig.image(tmp_path / "a.png", size=(9, 9))
    known = Known(a=FetchedReference(path=tmp_path / "a.png"))
    text = f"images: [{URL}/a.png]\n"
    (job,) = plan_urls(tmp_path, text, known, NoSquares())
    assert job.refused == "reference: nine is odd"
    planner = plan_urls(tmp_path, text, known, NoSquares(fatal=False))
    assert [job.refused for job in planner] == [None]
    assert planner.warnings[0].message == "nine is odd (1 job)"


# explicit jobs beside rows


def test_an_explicit_job_does_without_what_was_written_for_rows(plan: Plan, tmp_path: Path) -> None:
    for name in ("mug.png", "style.png"):
        rig.image(tmp_path / name)
    text = (
        "rows: t.csv\nkey: 'p/{{ handle }}'\nprompt: '{{ handle }}'\n"
        "images: ['{{ handle }}.png', style.png]\n"
        "output: {path: '{{ handle }}/a.{{ ext }}'}\njobs:\n  - A shop window\n"
    )
    hero, mug = plan(text, t_csv="handle\nmug\n")
    assert (mug.key, mug.path, len(mug.images)) == ("p/mug", "mug/a.{ext}", 2)
    assert (hero.path, hero.images) == (f"{hero.key}.{{ext}}", (str(tmp_path / "style.png"),))
    assert hero.key.startswith("a-shop-window-")


def test_without_rows_an_unknown_name_in_a_path_is_a_fault(plan: Plan) -> None:
    (fault,) = faults_of(plan, "output: {path: '{{ handle }}'}\njobs:\n  - A shop window\n")
    assert fault.path == "jobs[0].output.path"


# streaming


def test_sqlite_rows_are_planned(plan: Plan, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.execute("create table p (id integer, title text)")
        connection.executemany("insert into p values (?, ?)", [(1, "Mug"), (2, None)])
        connection.commit()
    (job,) = plan(
        "rows: {sqlite: shop.db, query: select * from p, where: title}\nprompt: '{{ title }}'\n"
    )
    assert (job.key, job.prompt, job.source) == ("1", "Mug", "shop.db row 1")


@pytest.mark.fault("M12")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        with (tmp_path / "t.csv").open("w", encoding="utf-8") as table:
            table.write("id,title\n")
            table.writelines(f"{n},mug number {n}\n" for n in range(rows))
        (tmp_path / "m.yaml").write_text("rows: t.csv\nprompt: 'A {{ title }}'\n", encoding="utf-8")
        planner = Planner(
            load_manifest(tmp_path / "m.yaml"), provider="local", default_model="gpt-image-2"
        )
        tracemalloc.start()
        try:
            assert sum(1 for _ in planner) == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1_000)
    assert peak(20_000) < peak(8_000) + 100_000
