"""The one key of all tests, and the search for it in everything that they leave.

A plugin of pytest: at the end of a session, or of each of its workers, no file may contain the key.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

CANARY: Final = "sk-CANARY-0123456789abcdef"
VARIABLE: Final = "CANARY_KEY"
"""Holds it; the manifests that the rig writes name it."""
LOGS: Final = "LOUD_LOGS"
"""Names the directory into which ``tests/loud`` makes a process log at DEBUG."""
_MAY_HOLD_KEYS: Final = {".env"}


def forms(key: str) -> list[bytes]:
    """Return the forms that a key may have in a file: plain, in base64 at any offset, in hex,
    and with all characters escaped for URLs or JSON.
    """
    plain = key.encode()
    found = [plain, plain.hex().encode(), plain.hex().upper().encode()]
    escapes = ("%{:02x}", "%{:02X}", "\\u{:04x}", "\\u{:04X}")
    found += ["".join(map(escape.format, plain)).encode() for escape in escapes]
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + plain)
        # The letters at both ends also depend on what surrounds the key.
        found.append(text[(8 * offset + 5) // 6 : (len(plain) + offset) * 8 // 6])
    return found


def is_in(content: bytes) -> bool:
    """Return whether the text contains the key in any form."""
    return any(form in content for form in _FORMS)


def found_in(directory: Path) -> list[Path]:
    """The files below the directory that hold the key, or have it in their names."""
    return sorted(
        path for path in directory.rglob("*") if path.name not in _MAY_HOLD_KEYS and _holds(path)
    )


def _holds(path: Path) -> bool:
    if is_in(os.fsencode(path.name)):
        return True
    return path.is_file() and not path.is_symlink() and any(map(is_in, _pieces(path)))


def _pieces(path: Path) -> Iterator[bytes]:
    """What a file holds, in overlapping pieces; nothing of one that is mostly a hole."""
    stat = path.stat()
    if stat.st_blocks * 512 < stat.st_size // 2:
        return
    with path.open("rb") as file:
        before = b""
        while piece := file.read(_PIECE):
            yield before + piece
            before = piece[-_OVERLAP:]


_FORMS: Final = forms(CANARY)
_PIECE: Final = 8 * 1024 * 1024
_OVERLAP: Final = max(map(len, _FORMS))


@pytest.fixture(scope="session", autouse=True)
def _no_artefact_holds_the_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    base = tmp_path_factory.getbasetemp()
    logs = tmp_path_factory.mktemp("loud", numbered=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOGS, str(logs))
        patch.setenv(VARIABLE, CANARY)
        yield
    assert found_in(base) == [], "an API key was written down"
