"""The ``.env`` file next to a manifest: keys that the manifest names, and nothing else."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from batchgen.errors import SettingsError
from batchgen.text import cause_of

OUR_PREFIX: Final = "BATCHGEN_"
"""Our settings name files that are written, so only the environment may hold them."""
_MAX_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class EnvFile:
    """The variables of a ``.env`` file, and the lines that were skipped."""

    path: Path
    variables: Mapping[str, str] = field(repr=False)
    not_understood: tuple[int, ...] = ()
    """Line numbers."""
    ours: tuple[str, ...] = ()
    """Names that count in the environment only."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What was skipped, a sentence each, without any value; empty where all was read."""
        found = []
        if self.not_understood:
            found.append(
                f"{self.path}: skipped {_numbered(self.not_understood)}: expected NAME=value"
            )
        if self.ours:
            names = ", ".join(self.ours)
            found.append(f"{self.path}: ignored {names}: settings count in the environment only")
        return tuple(found)


def read_env_file(path: Path) -> EnvFile:
    """Read a ``.env`` file; one that does not exist is empty.

    Other programs keep lines in the same file. Those that are not understood are skipped:
    a line that matters names a key, and a run reports a key that is missing.
    Raises SettingsError for a file that can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return EnvFile(path, {})
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path}: can't be read: {cause_of(exc)}") from exc
    # Imported here: few directories have such a file, and the import takes as long as a query.
    from dotenv.parser import parse_stream

    variables: dict[str, str] = {}
    broken: list[int] = []
    ours: list[str] = []
    for binding in parse_stream(io.StringIO(text)):
        if binding.key is not None and binding.key.startswith(OUR_PREFIX):
            ours.append(binding.key)
        elif binding.key is not None and binding.value is not None:
            variables[binding.key] = binding.value
        elif binding.error or binding.key is not None:
            leading = len(binding.original.string) - len(binding.original.string.lstrip())
            blank = binding.original.string[:leading].count("\n")
            broken.append(binding.original.line + blank)
    return EnvFile(path, variables, tuple(broken), tuple(ours))


def exposed_env_file(directory: Path) -> str | None:
    """Return who else can read the keys in the ``.env`` of a directory; None if no one can."""
    path = directory.absolute() / ".env"
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if os.name == "posix" and mode & 0o077:
        return f"{path} can be read by others on this machine; run chmod 600 on it"
    if _is_in_git(path):
        return f"{path} is in git with its keys; run git rm --cached on it, and replace the keys"
    return None


def _is_in_git(path: Path) -> bool:
    """Return whether git lists the file. Git is not run: it obeys the settings of the directory."""
    for directory in path.parents:
        try:
            index = (directory / ".git" / "index").read_bytes()
        except OSError:
            continue
        name = path.relative_to(directory).as_posix().encode()
        return len(name).to_bytes(2, "big") + name + b"\0" in index
    return False


def _numbered(lines: tuple[int, ...]) -> str:
    shown = ", ".join(str(line) for line in lines[:_MAX_SHOWN])
    more = f" and {len(lines) - _MAX_SHOWN} more" if len(lines) > _MAX_SHOWN else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {shown}{more}"
