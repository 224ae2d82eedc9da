"""The file ``batchgen.db.bucket`` next to a ledger: the bucket that the ledger belongs to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from batchgen.errors import SettingsError
from batchgen.system.atomic_files import PRIVATE_FILE, write_atomically

MARKER_SUFFIX: Final = ".bucket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """Which bucket a ledger on this machine belongs to, and which of its copies it includes."""

    url: str
    copies: tuple[str, ...] = ()
    """SHA-256 of the newest copy that was put or taken, and of one that is being put."""

    @classmethod
    def read(cls, ledger: Path) -> Self | None:
        """Read the marker of a ledger; None without one. Raises SettingsError."""
        place = marker_path(ledger)
        try:
            found = json.loads(place.read_bytes())
            return cls(url=str(found["url"]), copies=tuple(map(str, found["copies"])))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as exc:
            raise SettingsError(f"{place}: cannot be read: {exc!r}; nothing was sent") from exc

    def write(self, ledger: Path) -> None:
        """Write the marker of a ledger durably. Raises OSError."""
        content = json.dumps({"url": self.url, "copies": list(self.copies)}, indent=2)
        write_atomically(marker_path(ledger), f"{content}\n".encode(), mode=PRIVATE_FILE)


def marker_path(ledger: Path) -> Path:
    """Return the path of a ledger's marker."""
    return ledger.with_name(ledger.name + MARKER_SUFFIX)


def check_working_copy(ledger: Path, url: str) -> None:
    """Raise SettingsError unless a ledger is the working copy of a bucket on this machine."""
    marker = Marker.read(ledger)
    if marker is None or marker.url != url:
        other = "" if marker is None else f", but of {marker.url}"
        raise SettingsError(
            f"{ledger}: is not the ledger of {url} on this machine{other}; expected the one that"
            f" `batchgen run MANIFEST --db {url}` makes or restores"
        )


def refuse_working_copy(ledger: Path) -> None:
    """Refuse a run without its bucket: another machine may run it. Raises SettingsError."""
    marker = Marker.read(ledger)
    if marker is not None:
        raise SettingsError(
            f"{ledger}: this ledger is backed up in {marker.url}, where another machine may"
            f" continue from it; expected --db {marker.url}. To use it on this machine only,"
            f" delete {marker_path(ledger).name}; nothing was sent"
        )
