"""What this machine must grant a run before any money is spent: open files, and room to write."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from batchgen.errors import SettingsError

_OPEN_FILES_ASIDE: Final = 48
"""Libraries, terminal, ledger, event loop and the embedded endpoint's pipes."""


def check_writable(folder: Path) -> None:
    """Write to the folder, or to the nearest one above it that exists. Raises SettingsError."""
    place = folder
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as exc:
        raise SettingsError(f"{place}: can't be written: {exc.strerror}; nothing was sent") from exc


if sys.platform == "win32":

    def allow_open_files(concurrency: int, downloads: int) -> None:
        """Windows has no such limit that a run would meet."""

else:
    import resource

    def allow_open_files(concurrency: int, downloads: int) -> None:
        """Raise this process's limit to what so many requests and downloads need.

        A paid answer for which no file can be opened would be lost. Raises SettingsError.
        """
        needed = 2 * (concurrency + downloads) + _OPEN_FILES_ASIDE  # a socket and a file for each
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= needed:
            return
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # macOS has a limit of the kernel's own below "unlimited"
            wanted = soft
        if wanted < needed:
            raise SettingsError(
                f"{concurrency} requests and {downloads} downloads at a time need {needed} open"
                f" files, and this process may have {wanted}: raise `ulimit -n`, or lower"
                " limits.concurrency and limits.downloads"
            )
