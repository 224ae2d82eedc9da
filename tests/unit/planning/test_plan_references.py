"""Reference images in a plan."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from batchgen.manifest.loader import load_manifest
from batchgen.planning import reference_images
from batchgen.planning.planner import Planner
from batchgen.planning.provider_rules import Rules
from batchgen.planning.reference_images import FetchedReference
from tests.support import rig
from tests.support.plans import STRICT, NoSquares, Plan, faults_of


class Known:
    """URLs of which something is known."""

    def __init__(self, **copies: FetchedReference) -> None:
        self.asked: list[str] = []
        self._copies = copies

    def find(self, url: str) -> FetchedReference:
        self.asked.append(url)
        return self._copies.get(url.rpartition("/")[2].partition(".")[0], FetchedReference())


EDIT = "prompt: x\nimages: ['{{ photo }}']\nmask: mask.png\n"


def test_objections_to_images_are_placed_at_each(plan: Plan, tmp_path: Path) -> None:
    rig.image(tmp_path / "b.png", size=(9, 9))
    rig.mask(tmp_path / "mask.png")
    text = "prompt: x\nmask: mask.png\nimages:\n  - b.png\n"
    faults = faults_of(plan, text, rules=NoSquares())
    assert [(fault.line, fault.path, fault.message) for fault in faults] == [
        (2, "mask", "masked"),
        (4, "images[0]", "nine is odd"),
    ]


def test_image_against_the_rules_fails_its_row(plan: Plan, tmp_path: Path) -> None:
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


def test_mask_for_rows_is_left_out_with_their_image(plan: Plan, tmp_path: Path) -> None:
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


def test_fetched_url_counts_by_its_content_alone(tmp_path: Path) -> None:
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


def test_url_that_is_not_fetched_yet_is_planned(tmp_path: Path) -> None:
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


def test_url_that_gives_nothing_refuses_its_own_job_only(tmp_path: Path) -> None:
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


def test_rules_against_the_image_of_a_url_refuse_the_job(tmp_path: Path) -> None:
    rig.image(tmp_path / "a.png", size=(9, 9))
    known = Known(a=FetchedReference(path=tmp_path / "a.png"))
    text = f"images: [{URL}/a.png]\n"
    (job,) = plan_urls(tmp_path, text, known, NoSquares())
    assert job.refused == "reference: nine is odd"
    planner = plan_urls(tmp_path, text, known, NoSquares(fatal=False))
    assert [job.refused for job in planner] == [None]
    assert planner.warnings[0].message == "nine is odd (1 job)"
