"""Tables of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tables import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> str:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return name

    return write
