"""What every test needs: one event loop's kind, and an environment without the developer's own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from batchgen.system.shell_command import name_ledger

# Two hundred milliseconds an example say more of a busy machine than of what is tested.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Failed assertions of helpers show their values, as those of tests do.
pytest.register_assert_rewrite("tests.support")
pytest_plugins = ["tests.support.canary", "tests.support.fixtures"]
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _default_signals() -> None:
    """A shell starts what it puts into the background deaf to SIGINT, and children inherit that.

    What a process catches is back at its default in the programs it starts.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _bare_environment() -> Iterator[None]:
    """No key may be sent, no proxy asked and no ledger touched that the tests did not make."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            own = name == "BATCHGEN_DB" or name.endswith(("_API_KEY", "_ACCESS_TOKEN", "_USER_ID"))
            if own or name.lower() in _PROXIES:
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _unnamed_ledger() -> None:
    """A test whose commands name a ledger leaves no trace in those of the next test."""
    name_ledger(None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault", action="append", help="only the tests of this row, such as N24")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the requested rows."""
    wanted = set(config.getoption("--fault") or ())
    if wanted:
        kept = [item for item in items if wanted & _faults(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def _faults(item: pytest.Item) -> set[str]:
    return {fault for marker in item.iter_markers("fault") for fault in marker.args}
