"""What the tests of faults share."""

from __future__ import annotations

import ssl

import pytest

from batchgen.http.session import ssl_context


@pytest.fixture(scope="session")
def verify() -> ssl.SSLContext:
    """TLS settings of a run that trusts no certificate of these tests."""
    return ssl_context()
