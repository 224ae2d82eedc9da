"""Skip a test module whose optional packages are not installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

INSTALL = "pip install -e '.[test,cloud,dataset,ray,test-extras]'"


def require(*modules: str) -> None:
    """Skip the calling module unless all modules are installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        reason = f"needs {', '.join(missing)}: {INSTALL}, or .ci/run extras"
        pytest.skip(reason, allow_module_level=True)
