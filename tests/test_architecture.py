"""Holds the floors of the design and the rules that only one place knows a thing."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.source import modules

LAYERS = {
    "domain": ["version", "errors", "money", "text", "urls", "job"],
    "rules": ["manifest", "images", "planning", "outcomes", "reconciliation"],
    "I/O": ["system", "storage", "spool", "http", "providers", "ledger"],
    "engine": ["output", "engine", "cluster", "session"],
    "interfaces": ["report", "dataset", "console", "review", "simulator", "guide"],
    "entry": ["commands", "cli", "api", "notebook", "__init__", "__main__"],
}
"""Packages and modules, from the bottom up; each imports only from those before it."""

RANK = {name: rank for rank, name in enumerate(name for row in LAYERS.values() for name in row)}

ONLY_IN = {
    "sqlite3": {
        "ledger",
        "manifest.sqlite_rows",
        "system.os_errors",
        "session",
        "commands",
        "review",
    },
    "sqlite_utils": {"ledger"},
    # Notifications go to the operator's own services, which know nothing of providers.
    "truststore": {"http.session"},
    "httptools": {"http.response_parser"},
    "httpx": {"http", "providers", "session.notify"},
    "aiofiles": {"providers.adapters.multipart"},
    "tqdm": {"console"},
    "click": {"cli", "simulator"},
    "starlette": {"simulator", "review"},
    "uvicorn": {"simulator", "review"},
    "PIL": {"images", "simulator"},
    "yaml": {"manifest"},
    "pydantic": {"manifest", "providers.usage_log"},
    "jinja2": {"manifest", "review"},
    "obstore": {"storage"},
    "ray": {"cluster.ray_nodes"},
    "pyarrow": {"dataset", "manifest.parquet_rows"},
}
"""Which modules may know a library. ``session``, ``commands`` and ``review`` only hand
connections on."""

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
    """One import statement, at any depth of its module."""

    module: str
    target: str
    line: int


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
    """The package or top-level module that a module belongs to."""
    return module.partition(".")[0]


def inner_imports() -> list[tuple[Import, str]]:
    """Imports of our own modules, with the room they lead to."""
    found = []
    for one in imports():
        if one.target == "batchgen":
            continue
        if one.target.startswith("batchgen."):
            target = one.target.removeprefix("batchgen.")
            known = room(target) in RANK
            found.append((one, room(target) if known else "__init__"))
    return found


def test_every_module_belongs_to_a_layer() -> None:
    assert {room(name) for name in modules()} == set(RANK)


def test_imports_lead_downwards() -> None:
    wrong = [
        f"{one.module}:{one.line} imports {one.target}"
        for one, target in inner_imports()
        if RANK[room(one.module)] < RANK[target]
    ]
    assert wrong == []


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_known_in_its_own_place_only(library: str) -> None:
    wrong = [
        f"{one.module}:{one.line}"
        for one in imports()
        if one.target.partition(".")[0] == library
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
        if room(one.module) == "simulator"
        and not one.target.startswith("batchgen.simulator")
        and one.target.partition(".")[0] not in allowed
    ]
    assert wrong == []


def test_the_client_starts_the_endpoint_but_never_imports_it() -> None:
    importers = {one.module for one, target in inner_imports() if target == "simulator"}
    assert {name for name in importers if room(name) != "simulator"} <= {"cli.tools"}


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
    assert readers == {"session.settings"}


def test_only_entry_points_and_the_console_print() -> None:
    printers = {
        name
        for name, path in modules().items()
        if _uses(path.read_text(encoding="utf-8"), "sys", {"stdout", "stderr"})
    }
    assert {room(name) for name in printers} <= {"console", "commands", "cli", "simulator"}


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


def test_the_user_is_named_in_one_place() -> None:
    """`getpass.getuser` fails where the system has no name for a user; `user_name` does not."""
    askers = {
        name for name, path in modules().items() if "getuser(" in path.read_text(encoding="utf-8")
    }
    assert askers == {"system.process_table"}


def test_packages_have_no_front() -> None:
    for name, path in modules().items():
        if name.endswith(".__init__"):
            assert path.read_text(encoding="utf-8") == "", name


def test_no_module_has_a_vague_name() -> None:
    nothing = {"utils", "util", "base", "manager", "helpers", "common", "misc"}
    assert not {name for name in modules() if name.rpartition(".")[2] in nothing}


@pytest.mark.fault("Q14")
def test_ledger_transactions_take_the_write_lock_at_once() -> None:
    """A deferred BEGIN that writes later fails with BUSY_SNAPSHOT instead of waiting."""
    deferred = {
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value == "BEGIN" and room(name) == "ledger"
    }
    # A private staging table, and reads of one moment.
    assert deferred == {
        "ledger.staging_rows",
        "ledger.batch_status",
        "ledger.costs",
        "ledger.run_report",
    }
