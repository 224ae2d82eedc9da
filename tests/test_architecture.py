"""Holds the floors of the design and the rules that only one place knows a thing."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import batchgen

PACKAGE = Path(batchgen.__file__).parent

FLOORS = {
    "version": 0,
    "errors": 0,
    "money": 0,
    "job": 0,
    "events": 0,
    "failpoints": 0,
    "manifest": 1,
    "naming": 1,
    "plan": 1,
    "job_maker": 1,
    "line": 1,
    "reference_check": 1,
    "empty_cells": 1,
    "job_context": 1,
    "provider_rules": 1,
    "recipe": 1,
    "references": 1,
    "findings": 1,
    "fingerprint": 1,
    "lean": 1,
    "redaction": 1,
    "error_row": 1,
    "error_sources": 1,
    "account_errors": 1,
    "request_errors": 1,
    "error_words": 1,
    "verdict": 1,
    "retry_after": 1,
    "owner": 1,
    "outcome": 1,
    "policy": 1,
    "fetch_policy": 1,
    "picture": 1,
    "mp4": 1,
    "reconcile": 1,
    "charges": 1,
    "request_ids": 1,
    "row_groups": 1,
    "settlement": 1,
    "pace": 1,
    "schedule": 1,
    "why": 1,
    "suspects": 1,
    "metadata": 1,
    "quote": 1,
    "ledger": 2,
    "providers": 2,
    "http": 2,
    "deadlines": 2,
    "lookup": 2,
    "catalogue": 2,
    "download": 2,
    "content_coding": 2,
    "spool": 2,
    "files": 2,
    "claiming": 2,
    "kept_images": 2,
    "handoff": 2,
    "settings": 2,
    "lock": 2,
    "previous": 2,
    "room": 2,
    "process": 2,
    "throttle_limits": 3,
    "throttle_rules": 3,
    "processes": 2,
    "throttle": 3,
    "guard_rules": 3,
    "guard": 3,
    "tasks": 3,
    "worker": 3,
    "recovery": 3,
    "delivery": 3,
    "redelivery": 3,
    "failed_download": 3,
    "spooled_image": 3,
    "placing": 3,
    "obstacles": 3,
    "sidecar": 3,
    "relocate": 3,
    "feeder": 3,
    "reference_cache": 3,
    "pool": 3,
    "shutdown": 3,
    "stdio": 4,
    "outlet": 4,
    "progress": 4,
    "run_log": 4,
    "notify": 4,
    "report": 4,
    "endpoint": 4,
    "commands": 5,
    "api": 5,
    "cli": 5,
    "__main__": 5,
    "__init__": 5,
}

SAME_FLOOR = {
    ("money", "money"),
    ("job", "money"),
    ("events", "job"),
    ("events", "money"),
    ("manifest", "naming"),
    ("plan", "job_maker"),
    ("plan", "job_context"),
    ("plan", "line"),
    ("reference_check", "fingerprint"),
    ("reference_check", "references"),
    ("plan", "empty_cells"),
    ("empty_cells", "line"),
    ("empty_cells", "manifest"),
    ("empty_cells", "recipe"),
    ("plan", "provider_rules"),
    ("job_maker", "line"),
    ("job_maker", "provider_rules"),
    ("job_maker", "job_context"),
    ("job_context", "findings"),
    ("job_context", "fingerprint"),
    ("job_context", "manifest"),
    ("job_context", "provider_rules"),
    ("job_context", "references"),
    ("line", "findings"),
    ("line", "manifest"),
    ("provider_rules", "references"),
    ("plan", "references"),
    ("plan", "manifest"),
    ("plan", "recipe"),
    ("plan", "findings"),
    ("job_maker", "manifest"),
    ("job_maker", "naming"),
    ("job_maker", "recipe"),
    ("job_maker", "references"),
    ("job_maker", "findings"),
    ("job_maker", "fingerprint"),
    ("references", "picture"),
    ("recipe", "findings"),
    ("recipe", "manifest"),
    ("recipe", "naming"),
    ("findings", "manifest"),
    ("outcome", "error_row"),
    ("outcome", "error_words"),
    ("outcome", "verdict"),
    ("verdict", "lean"),
    ("account_errors", "error_row"),
    ("account_errors", "error_sources"),
    ("request_errors", "error_row"),
    ("request_errors", "error_sources"),
    ("error_words", "error_row"),
    ("error_words", "account_errors"),
    ("error_words", "request_errors"),
    ("outcome", "retry_after"),
    ("reconcile", "charges"),
    ("reconcile", "request_ids"),
    ("reconcile", "row_groups"),
    ("reconcile", "settlement"),
    ("row_groups", "charges"),
    ("row_groups", "settlement"),
    ("settlement", "charges"),
    ("policy", "outcome"),
    ("quote", "pace"),
    ("feeder", "throttle"),
    ("throttle_rules", "throttle_limits"),
    ("throttle", "throttle_limits"),
    ("throttle", "throttle_rules"),
    ("guard", "guard_rules"),
    ("guard", "throttle"),
    ("guard", "throttle_limits"),
    ("worker", "guard"),
    ("worker", "guard_rules"),
    ("files", "handoff"),
    ("ledger", "files"),
    ("ledger", "handoff"),
    ("ledger", "processes"),
    ("lock", "ledger"),
    ("lock", "processes"),
    ("spool", "files"),
    ("spool", "handoff"),
    ("previous", "files"),
    ("previous", "claiming"),
    ("claiming", "files"),
    ("spool", "kept_images"),
    ("kept_images", "claiming"),
    ("kept_images", "files"),
    ("worker", "obstacles"),
    ("obstacles", "sidecar"),
    ("relocate", "placing"),
    ("room", "handoff"),
    ("http", "files"),
    ("http", "spool"),
    ("http", "deadlines"),
    ("download", "content_coding"),
    ("download", "deadlines"),
    ("http", "lookup"),
    ("download", "lookup"),
    ("catalogue", "lookup"),
    ("download", "files"),
    ("download", "http"),
    ("catalogue", "http"),
    ("providers", "http"),
    ("settings", "providers"),
    ("mp4", "picture"),
    ("metadata", "picture"),
    ("progress", "outlet"),
    ("progress", "stdio"),
    ("outlet", "stdio"),
    ("run_log", "progress"),
    ("worker", "recovery"),
    ("worker", "tasks"),
    ("worker", "throttle"),
    ("worker", "throttle_limits"),
    ("delivery", "redelivery"),
    ("delivery", "failed_download"),
    ("delivery", "spooled_image"),
    ("delivery", "tasks"),
    ("pool", "redelivery"),
    ("pool", "tasks"),
    ("delivery", "shutdown"),
    ("delivery", "sidecar"),
    ("relocate", "sidecar"),
    ("delivery", "placing"),
    ("placing", "sidecar"),
    ("placing", "worker"),
    ("delivery", "worker"),
    ("feeder", "worker"),
    ("pool", "delivery"),
    ("pool", "feeder"),
    ("pool", "shutdown"),
    ("pool", "worker"),
    ("api", "commands"),
    ("__init__", "api"),
    ("cli", "commands"),
    ("__main__", "cli"),
}
"""Imports within a floor that are meant; each points towards what is more basic."""

ONLY_IN = {
    "sqlite3": {"ledger", "manifest.rows", "commands"},
    "sqlite_utils": {"ledger"},
    # `notify` talks to the operator's own services, which know nothing of providers.
    "aiohttp": {"http", "download"},
    "httpx": {"http", "download", "providers", "catalogue", "notify"},
    "aiofiles": {"providers.bodies"},
    "tqdm": {"progress"},
    "click": {"cli", "endpoint"},
    "starlette": {"endpoint"},
    "uvicorn": {"endpoint"},
    "PIL": {"picture", "endpoint"},
    "yaml": {"manifest"},
    "pydantic": {"manifest", "providers.usage_log"},
    "jinja2": {"manifest.template", "manifest.printed"},
}
"""Which modules may know a library. ``commands`` only hands connections on."""

ENDPOINT_MAY_IMPORT = {
    "click",
    "orjson",
    "PIL",
    "pybase64",
    "python_multipart",
    "starlette",
    "uvicorn",
    "anyio",
}


@dataclass(frozen=True)
class Import:
    """One import statement, wherever in its module it stands."""

    module: str
    target: str
    line: int


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below ``batchgen``."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imports() -> Iterator[Import]:
    """Every import of the package, those inside functions too."""
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(name, alias.name, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}:{node.lineno}: relative import"
                yield Import(name, node.module or "", node.lineno)
                if node.module == "batchgen":
                    for alias in node.names:
                        yield Import(name, f"batchgen.{alias.name}", node.lineno)


def room(module: str) -> str:
    """The file or folder that a module belongs to."""
    return module.partition(".")[0]


def inner_imports() -> list[tuple[Import, str]]:
    """Imports of our own modules, with the room they lead to."""
    found = []
    for one in imports():
        if one.target == "batchgen":
            continue
        if one.target.startswith("batchgen."):
            target = one.target.removeprefix("batchgen.")
            known = room(target) in FLOORS
            found.append((one, room(target) if known else "__init__"))
    return found


def test_every_module_has_a_floor() -> None:
    assert {room(name) for name in modules()} <= set(FLOORS)


def test_imports_lead_downwards() -> None:
    wrong = [
        f"{one.module}:{one.line} imports {one.target}"
        for one, target in inner_imports()
        if room(one.module) != target
        and FLOORS[room(one.module)] <= FLOORS[target]
        and (room(one.module), target) not in SAME_FLOOR
    ]
    assert wrong == []


def test_same_floor_imports_make_no_circle() -> None:
    order = {name: [b for a, b in SAME_FLOOR if a == name and b != a] for name in FLOORS}

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        for target in order[name]:
            visit(target, (*way, name))

    for name in FLOORS:
        visit(name, ())


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_known_in_its_own_place_only(library: str) -> None:
    wrong = [
        f"{one.module}:{one.line}"
        for one in imports()
        if room(one.target) == library
        and not any(
            one.module == place or one.module.startswith(f"{place}.") for place in ONLY_IN[library]
        )
    ]
    assert wrong == []


def test_the_endpoint_knows_nothing_of_the_client() -> None:
    allowed = ENDPOINT_MAY_IMPORT | set(sys.stdlib_module_names)
    wrong = [
        f"{one.module}:{one.line} imports {one.target}"
        for one in imports()
        if room(one.module) == "endpoint"
        and not one.target.startswith("batchgen.endpoint")
        and room(one.target) not in allowed
    ]
    assert wrong == []


def test_the_client_starts_the_endpoint_but_never_imports_it() -> None:
    importers = {one.module for one, target in inner_imports() if target == "endpoint"}
    assert {name for name in importers if room(name) != "endpoint"} <= {"cli"}


def _uses(source: str, owner: str, names: set[str]) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == owner
        and node.attr in names
        for node in ast.walk(ast.parse(source))
    )


def test_the_environment_is_read_in_settings_only() -> None:
    readers = {
        name
        for name, path in modules().items()
        if _uses(path.read_text(encoding="utf-8"), "os", {"environ", "getenv", "environb"})
    }
    assert readers == {"settings"}


def test_sql_is_written_in_the_ledger_only() -> None:
    writers = {
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.lstrip().startswith(("SELECT ", "INSERT ", "UPDATE ", "DELETE FROM"))
    }
    assert {name for name in writers if room(name) != "ledger"} == set()


def test_packages_have_no_front() -> None:
    for name, path in modules().items():
        if name.endswith(".__init__"):
            assert path.read_text(encoding="utf-8") == "", name


def test_no_module_hides_behind_a_name_that_says_nothing() -> None:
    nothing = {"utils", "util", "base", "manager", "helpers", "common", "misc"}
    assert not {name for name in modules() if name.rpartition(".")[2] in nothing}


@pytest.mark.fault("Q14")
def test_a_transaction_of_the_ledger_takes_the_write_lock_at_once() -> None:
    """A deferred BEGIN that writes later fails with BUSY_SNAPSHOT instead of waiting."""
    deferred = {
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value == "BEGIN" and room(name) == "ledger"
    }
    # A private staging table, and reads of one moment.
    assert deferred == {
        "ledger.staging",
        "ledger.queries",
        "ledger.costs",
        "ledger.run_report",
    }
