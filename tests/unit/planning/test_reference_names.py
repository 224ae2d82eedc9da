"""Names of reference images, and which of them a table may give."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.planning.reference_names import ImageDirectories, ImageNames
from tests.support import rig
from tests.support.plans import Plan, faults_of

SECRET = "private/idcard.png"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory of a shop, next to one that is private."""
    for name in (SECRET, "shop/photos/a.png", "shared/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        rig.image(tmp_path / name)
    return tmp_path / "shop"


def names(shop: Path, template: str, *, root: str | None = None) -> ImageNames:
    directories = ImageDirectories(base=shop, images_root=None if root is None else shop / root)
    return ImageNames(template, directories, is_trusted=False)


@pytest.mark.parametrize(
    ("template", "name", "root"),
    [
        ("photos/{{ i }}", "photos/a.png", None),
        ("{{ i }}", "photos/a.png", None),
        ("{{ i }}", "photos/../photos/./a.png", None),
        ("../shared/{{ i }}", "../shared/b.png", None),
        ("{{ i }}", "../shared/b.png", "../shared"),
        ("{{ i }}", "{base}/photos/a.png", None),
        ("{base}/../shared/{{ i }}", "{base}/../shared/b.png", None),
    ],
)
def test_names_in_their_place_are_resolved(
    shop: Path, template: str, name: str, root: str | None
) -> None:
    template, name = template.replace("{base}", str(shop)), name.replace("{base}", str(shop))
    assert names(shop, template, root=root).resolve(name).is_file()


@pytest.mark.parametrize(
    ("template", "name", "root"),
    [
        ("photos/{{ i }}", "photos/../../private/idcard.png", None),
        ("photos/{{ i }}", "photos/x/../../../private/idcard.png", None),
        ("{{ i }}", "../private/idcard.png", None),
        ("{{ i }}", "{base}/../private/idcard.png", None),
        ("{{ i }}", "../shared/../private/idcard.png", "../shared"),
        ("../shared/{{ i }}", "../shared/../private/idcard.png", None),
        ("/{{ i }}", "/{base}/../private/idcard.png", None),
        ("{{ i }}", "../shop-2/a.png", None),
    ],
)
def test_names_elsewhere_are_refused(
    shop: Path, template: str, name: str, root: str | None
) -> None:
    with pytest.raises(ValueError, match="a table may only name files below"):
        names(shop, template, root=root).resolve(name.replace("{base}", str(shop)))


@given(st.text("abc./\\~ \0", max_size=20))
def test_no_cell_leaves_the_directory(cell: str) -> None:
    base = Path("/srv/shop")
    found = ImageNames("photos/{{ i }}", ImageDirectories(base=base), is_trusted=False)
    try:
        path = found.resolve(f"photos/{cell}")
    except ValueError:
        return
    assert ".." not in path.parts
    assert path.is_relative_to(base)


def test_link_of_the_user_is_followed_and_never_left(shop: Path, tmp_path: Path) -> None:
    (shop / "linked").symlink_to(tmp_path / "shared", target_is_directory=True)
    found = names(shop, "{{ i }}")
    assert found.resolve("linked/b.png").is_file()
    # For the system, "linked/.." is the parent of the link's target.
    assert (shop / "linked/../private/idcard.png").is_file()
    assert not found.resolve("linked/../private/idcard.png").exists()


def test_home_is_expanded_for_the_manifest_only(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert names(shop, "~/shared/{{ i }}").resolve("~/shared/b.png").is_file()
    trusted = ImageNames("~/shared/b.png", ImageDirectories(base=shop), is_trusted=True)
    assert trusted.resolve("~/shared/b.png").is_file()
    assert names(shop, "{{ i }}").resolve("~/shared/b.png") == shop / "~/shared/b.png"


def test_cell_outside_fails_its_row_alone(plan: Plan, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}.png"
    rig.image(outside)
    rig.image(tmp_path / "a.png")
    text = "rows: t.csv\nprompt: x\nimages: ['{{ i }}']\n"
    table = (
        f"id,i\n1,a.png\n2,{os.path.relpath(outside, tmp_path)}\n3,a.png\n4,{outside}\n5,a.png\n"
    )
    jobs = plan(text, t_csv=table)
    refused = {job.key: job.refused for job in jobs if job.refused}
    assert set(refused) == {"2", "4"}
    assert all("images_root" in str(reason) for reason in refused.values())
    assert not any(job.refused for job in plan("images_root: ..\n" + text, t_csv=table))
    # An explicit job is part of the manifest.
    (job,) = plan(f"jobs:\n  - {{prompt: x, images: ['{outside}']}}\n")
    assert job.images == (str(outside),)


def test_mask_of_a_cell_stays_too(plan: Plan, tmp_path: Path) -> None:
    rig.image(tmp_path / "a.png")
    text = "rows: {file: t.csv, strict: true}\nprompt: x\nimages: [a.png]\nmask: '{{ m }}'\n"
    (fault,) = faults_of(plan, text, t_csv="id,m\n1,../m.png\n")
    assert (fault.path, "a table may only name" in fault.message) == ("mask", True)
