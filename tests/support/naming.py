"""Assert that a path is safe on every file system."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

from batchgen.planning.naming import (
    MAX_COMPONENT_BYTES,
)


def assert_safe(path: str) -> None:
    root = Path("/root/out")
    assert (root / path).resolve().is_relative_to(root)
    assert path == str(PurePosixPath(path))
    assert not PureWindowsPath(path).drive
    assert not PureWindowsPath(path).is_absolute()
    for part in path.split("/"):
        assert part not in ("", ".", "..")
        assert part[0] not in " .-"
        assert part[-1] not in " ."
        assert not set(part) & set('<>:"|?*\\')
        assert unicodedata.is_normalized("NFC", part)
        assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in part)
        assert not set(part) & set("\u202e\u200d\u200b\u2066\ufeff")
        assert len(part.encode()) <= MAX_COMPONENT_BYTES + 10
        assert part.split(".")[0].rstrip(" ").upper() not in ("CON", "NUL", "AUX", "PRN", "COM1")
