"""From manifests on disk to planned jobs."""

from __future__ import annotations

import os
import sqlite3
import tracemalloc
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import Verify, canonical_json
from batchgen.manifest.loader import load_manifest
from batchgen.planning.fingerprint import Fingerprints
from batchgen.planning.planner import Planner
from tests.support import rig
from tests.support.plans import Plan, faults_of

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


def test_repeated_lines_continue_after_their_copies(plan: Plan) -> None:
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


def test_matrix_without_rows_makes_its_product_in_order(plan: Plan) -> None:
    jobs = plan(
        "prompt: A {{ color }} {{ row['Thing no 1'] }}\n"
        "matrix: {color: [red, blue], Thing no 1: [mug, bag]}\n"
    )
    assert [job.prompt for job in jobs] == ["A red mug", "A red bag", "A blue mug", "A blue bag"]
    assert len({job.key for job in jobs}) == 4


def test_jobs_take_only_a_matrix_of_their_own(plan: Plan) -> None:
    jobs = plan(
        "prompt: A {{ color }} mug\nmatrix: {color: [red]}\njobs:\n"
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


def test_fingerprint_hashes_what_determines_the_image(plan: Plan, tmp_path: Path) -> None:
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
def test_fingerprint_is_that_of_canonical_json(prompt: str) -> None:
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


# explicit jobs next to rows


def test_explicit_job_skips_templates_of_rows(plan: Plan, tmp_path: Path) -> None:
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
    # A table of 8,000 rows is larger than the part of it that is read to find its layout.
    assert peak(50_000) < peak(8_000) + 100_000
