"""The package: its dependencies, the files in its wheel, and the documents about installing it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import batchgen
from batchgen.cli.main import main
from batchgen.errors import ExitCode
from tests.support import pages, rig

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
REQUIRED = [Requirement(text) for text in PROJECT["dependencies"]]
OPTIONAL = [
    Requirement(text)
    for extra, texts in PROJECT["optional-dependencies"].items()
    if not extra.startswith("test")
    for text in texts
]


def third_party_imports() -> set[str]:
    """Return the distributions that modules of the package import, those inside functions too."""
    owners = packages_distributions()
    names: set[str] = set()
    for path in Path(batchgen.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    names -= set(sys.stdlib_module_names) | {"batchgen"}
    # A package of an extra may not be installed; its distribution has the name of its module.
    return {canonicalize_name(owners.get(name, [name])[0]) for name in names}


def constraints(name: str) -> dict[str, str]:
    """Return the pinned versions of a constraint file by canonical name."""
    pins: dict[str, str] = {}
    for line in (ROOT / "tests" / name).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            package, _, pin = line.partition(" ;")[0].partition("==")
            pins[canonicalize_name(package)] = pin.strip()
    return pins


def test_every_imported_distribution_is_declared() -> None:
    declared = {canonicalize_name(one.name) for one in (*REQUIRED, *OPTIONAL)}
    # Imported by Starlette's forms, and by name.
    by_others = {"python-multipart", "apprise", "brotli"}
    assert third_party_imports() | by_others == declared


def test_every_dependency_has_a_lowest_version() -> None:
    lowest = constraints("constraints-lowest.txt")
    floors = {}
    for one in (*REQUIRED, *OPTIONAL):
        (floor,) = [bound.version for bound in one.specifier if bound.operator == ">="]
        floors[canonicalize_name(one.name)] = floor
    assert lowest.keys() == floors.keys()
    for name, floor in floors.items():
        assert Version(lowest[name]) == Version(floor), name


def test_the_tested_versions_are_allowed() -> None:
    tested = constraints("constraints-tested.txt")
    for one in (*REQUIRED, *OPTIONAL):
        assert one.specifier.contains(tested[canonicalize_name(one.name)]), one


def test_private_parts_have_an_upper_bound() -> None:
    bounded = {one.name for one in REQUIRED if any(b.operator == "<" for b in one.specifier)}
    assert "uvicorn" in bounded


def test_the_classifiers_name_what_ci_runs() -> None:
    script = (ROOT / ".ci/run").read_text("utf-8")
    tested = re.search(r"for version in (.*); do", script)
    assert tested is not None
    stated = {
        line.rpartition(" :: ")[2]
        for line in PROJECT["classifiers"]
        if re.search(r"Python :: 3\.\d+$", line)
    }
    assert stated == set(tested[1].split()) - {"3.14"}
    assert version("batchgen") == batchgen.__version__


DOCUMENTS = sorted(
    one.relative_to(ROOT).as_posix()
    for directory in (ROOT, ROOT / ".github", pages.GUIDE)
    for one in directory.glob("*.md")
)
INSTALLS_BY_NAME = re.compile(
    r"(?:pip3?|pipx|uv|tool) (?:install|run) [^`\n|&;]*?(?<![\w./-])batchgen(?![\w.-])"
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_installs_a_foreign_package(name: str) -> None:
    """The name on the public index is not ours: pip would fetch a program of another author."""
    text = (ROOT / name).read_text("utf-8")
    assert not INSTALLS_BY_NAME.findall(text)


def test_an_installation_by_name_is_found() -> None:
    for bad in ("pip install batchgen", "uv tool install 'batchgen[notify]'", "pipx run batchgen"):
        assert INSTALLS_BY_NAME.search(bad)
    for good in ("pip install ./batchgen-0.1.0-py3-none-any.whl", "pip install . && batchgen run"):
        assert not INSTALLS_BY_NAME.search(good)


def test_init_writes_what_run_takes(tmp_path: Path) -> None:
    missing = rig.batchgen("run", cwd=tmp_path, code=2)
    assert "`batchgen init` writes one" in missing.stderr
    assert list(tmp_path.iterdir()) == []
    rig.batchgen("init", cwd=tmp_path)
    rig.batchgen("check", cwd=tmp_path)
    rig.batchgen("run", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 3


def test_guide_lists_its_topics(tmp_path: Path) -> None:
    lines = rig.batchgen("guide", cwd=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [
        "evening",
        *sorted(set(pages.PAGES) - {"README", "evening"}),
    ]
    assert all(len(line) <= 120 for line in lines)


@pytest.mark.parametrize("topic", sorted(set(pages.PAGES) - {"README"}))
def test_guide_prints_a_page(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guide", topic]) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert shown.startswith(pages.read(topic).split("\n\n")[0])
    assert "<!--" not in shown


def test_unknown_guide_topic_names_the_nearest(tmp_path: Path) -> None:
    done = rig.batchgen("guide", "mony", cwd=tmp_path, code=2)
    assert done.stderr == "guide: unknown topic: mony; did you mean money?\n"
    done = rig.batchgen("guide", "xyz", cwd=tmp_path, code=2)
    assert "expected one of evening, architecture," in done.stderr


def test_wheel_contains_the_guide(tmp_path: Path) -> None:
    """The build backend decides which files that are not Python come into the wheel."""
    builder = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    pytest.importorskip("hatchling")
    done = subprocess.run(
        [sys.executable, "-c", builder, str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=rig.TIMEOUT_S,
    )
    with zipfile.ZipFile(tmp_path / done.stdout.strip()) as wheel:
        names = set(wheel.namelist())
    assert {f"batchgen/guide/{topic}.md" for topic in set(pages.PAGES) - {"README"}} <= names
    review = Path(batchgen.__file__).parent / "review"
    served = {one for name in ("static", "templates") for one in (review / name).rglob("*.*")}
    assert {f"batchgen/review/{one.relative_to(review).as_posix()}" for one in served} <= names
    assert len(served) > 15


def test_a_run_imports_no_review_server() -> None:
    script = (
        "import sys, batchgen.commands.run, batchgen.cli.main;"
        "print(sorted({'starlette', 'uvicorn', 'PIL', 'batchgen.review.app'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_the_package_imports_without_warnings() -> None:
    script = "import batchgen, batchgen.cli.main, batchgen.api, batchgen.commands.run"
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(("page", "first"), [("review", "main"), ("run", "run")])
def test_pages_preload_every_module_they_import(page: str, first: str) -> None:
    """Otherwise the browser finds each module only after the one that imports it."""
    directory = Path(batchgen.__file__).parent / "review"
    html = (directory / "templates" / f"{page}.html").read_text(encoding="utf-8")
    preloaded = set(re.findall(r'rel="modulepreload" href="/static/js/(\w+)\.js"', html))
    found, left = set[str](), [first]
    while left:
        text = (directory / "static" / "js" / f"{left.pop()}.js").read_text(encoding="utf-8")
        new = set(re.findall(r'from "\./(\w+)\.js"', text)) - found
        found |= new
        left += new
    assert preloaded == found
