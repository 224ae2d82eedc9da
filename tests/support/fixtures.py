"""Provide the fixtures that many test modules share, each defined once.

A module adjusts them by constants: ``SWITCHES`` for ``served``, ``CLOCK`` for ``clock``.
"""

from __future__ import annotations

import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batchgen.http.session import ssl_context
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.ledger import Ledger
from tests.support import rig, wire

FAST = ("--fast-images",)


@dataclass
class Clock:
    """A clock of a ledger, which tests set; each reading moves it by a step."""

    now: datetime
    step: timedelta = timedelta()

    def __call__(self) -> datetime:
        self.now += self.step
        return self.now


@pytest.fixture(scope="module")
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[rig.Endpoint]:
    """Serve one local endpoint for all tests of a module, with the switches in ``SWITCHES``."""
    switches = getattr(request.module, "SWITCHES", FAST)
    with rig.endpoint(tmp_path_factory.mktemp("endpoint"), *switches) as endpoint:
        yield endpoint


@pytest.fixture
def tuned(served: rig.Endpoint) -> Iterator[rig.Endpoint]:
    """Lend the module's endpoint to a test that changes its faults, and restore them."""
    before = served.judge("faults", {})
    yield served
    served.judge("faults", before)


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> Clock:
    """Return a copy of the module's ``CLOCK``; without one, a clock near the present."""
    given: Clock | None = getattr(request.module, "CLOCK", None)
    return replace(given or Clock(datetime.now(UTC), step=timedelta(milliseconds=1)))


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Open a new ledger in the test's directory."""
    with closing(open_for_writing(tmp_path / "batchgen.db")) as opened:
        yield opened


@pytest.fixture
def ledger(conn: sqlite3.Connection, clock: Clock) -> Ledger:
    """Return a new ledger in the test's directory, with the test's clock."""
    return Ledger(conn, clock)


@pytest.fixture(scope="session")
def verify() -> ssl.SSLContext:
    """Return the TLS settings of a run that trusts no certificate of these tests."""
    return ssl_context()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> wire.Certificate:
    """Return a self-signed certificate for 127.0.0.1 and some host names."""
    names = ("IP:127.0.0.1", "DNS:a.test", "DNS:images.test", "DNS:other.test")
    return wire.certificate(tmp_path_factory.mktemp("tls"), *names)
