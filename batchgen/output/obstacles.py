"""Find what would prevent saving an image, before its request is sent and paid for."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from batchgen.images.formats import ImageFormat
from batchgen.job import PATH_REASON, Job
from batchgen.ledger.path_owners import batch_name_of_job, path_history
from batchgen.ledger.writer import LedgerWriter
from batchgen.output.previous_versions import LONGEST_SUFFIX, PREVIOUS_DIRECTORY
from batchgen.output.sidecar import is_sidecar, sidecar_of
from batchgen.planning.naming import final_path, image_path
from batchgen.providers.adapters.registry import Route
from batchgen.system.mounts import is_local
from batchgen.system.threads import in_disk_thread

_DIRECTORIES_KNOWN: Final = 4096
_TEMPORARY_BYTES: Final = 48
"""Length of a temporary name: attempt id, position and suffix."""
_USUAL_NAME_BYTES: Final = 255
_USUAL_PATH_BYTES: Final = 1024 if sys.platform == "darwin" else 4096
_PLAIN_PATH_CHARS: Final = 512
_PLAIN_NAME_CHARS: Final = 100
"""No system or file system refuses a name of that length in ASCII, below a path of that length."""
_AS_EFFECTIVE_USER: Final = os.access in os.supports_effective_ids


@dataclass(frozen=True, slots=True)
class _Seen:
    """State of an output path on disk."""

    obstacle: str | None
    is_taken: bool
    """A file exists at the path; only the ledger knows whether it is an image of the job."""
    has_sidecar: bool
    """A file exists at the path of the sidecar."""


class _QuickDirectories:
    """Usable directories of local file systems, where a look at a path takes a few microseconds.

    That is less than handing it to another thread. What kind a file system is takes longer to find
    out, so only a directory that is looked at twice gets in.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()
        self._paths: dict[tuple[str, str], str] = {}

    def note(self, root: str, path: str, directory: Path) -> None:
        """Note that the directory of a path is usable. Call it on a disk thread."""
        key = root, path.rpartition("/")[0]
        if key in self._paths:
            return
        if key not in self._seen:
            if len(self._seen) >= _DIRECTORIES_KNOWN:
                self._seen.clear()
                self._paths.clear()
            self._seen.add(key)
            return
        is_quick = len(str(directory)) <= _PLAIN_PATH_CHARS and is_local(directory)
        self._paths[key] = str(directory) if is_quick else ""

    def is_free(self, job: Job, path: str) -> bool:
        """Return whether nothing is at a path; False also where a disk thread must check."""
        parent, _, name = path.rpartition("/")
        directory = self._paths.get((job.root, parent))
        if not directory or job.sidecar or not (name.isascii() and len(name) <= _PLAIN_NAME_CHARS):
            return False
        try:
            os.lstat(f"{directory}/{name}")
        except FileNotFoundError:
            return True
        except OSError:
            pass
        return False


class Obstacles:
    """Check of output paths; each directory is checked once per run."""

    def __init__(self, base: Path, *, overwrite: bool = False) -> None:
        self._base = base
        self._overwrite = overwrite
        self._directories: dict[Path, str | None] = {}
        self._quick = _QuickDirectories()

    async def find(self, ledger: LedgerWriter, job: Job, path: str) -> str | None:
        """Return why a job must fail before its request is sent; None if its path is usable.

        ``path`` is the expected path of its image below the job's output directory.
        """
        if self._quick.is_free(job, path):
            return None
        seen = await in_disk_thread(self._look, job, path)
        if seen.obstacle is not None:
            return f"{PATH_REASON}: {seen.obstacle}"
        if seen.is_taken and not self._overwrite:
            there = await ledger.run(path_history, job.id, job.root, path)
            if not there.is_own:
                return taken_text(f"{job.root}/{path}", "an image")
        if seen.has_sidecar and not self._overwrite:
            batch = await ledger.run(batch_name_of_job, job.id)
            sidecar = sidecar_of(self._base / job.root / path)
            if not await in_disk_thread(is_sidecar, sidecar, batch, job.key):
                return taken_text(sidecar, "the sidecar")
        return None

    def _look(self, job: Job, path: str) -> _Seen:
        root = self._base / job.root
        final = root / path
        obstacle = _path_obstacle(root, path) or self.directory(root, final.parent)
        if obstacle is not None:
            return _Seen(obstacle, is_taken=False, has_sidecar=False)
        self._quick.note(job.root, path, final.parent)
        try:
            mode = os.lstat(final).st_mode
        except FileNotFoundError:
            is_taken = False
        except OSError as exc:
            return _Seen(f"{final}: {exc.strerror}", is_taken=False, has_sidecar=False)
        else:
            is_taken = True
            if not stat.S_ISREG(mode):
                what = "a symbolic link" if stat.S_ISLNK(mode) else "not a file"
                obstacle = f"{final} is {what}; move it"
        if not job.sidecar:
            return _Seen(obstacle, is_taken=is_taken, has_sidecar=False)
        sidecar = sidecar_of(final)
        has_sidecar = os.path.lexists(sidecar)
        if has_sidecar and (sidecar.is_symlink() or not sidecar.is_file()):
            obstacle = f"{sidecar} is not a file; move it"
        return _Seen(obstacle, is_taken=is_taken, has_sidecar=has_sidecar)

    def directory(self, root: Path, directory: Path) -> str | None:
        """Return why no file can be created in a directory at or below an output directory.

        A missing directory is judged by its nearest existing parent.
        """
        if directory in self._directories:
            return self._directories[directory]
        if directory == root:
            found = _root_obstacle(root)
        else:
            found = self.directory(root, directory.parent) or _directory_obstacle(directory)
        if len(self._directories) >= _DIRECTORIES_KNOWN:
            self._directories.clear()
        self._directories[directory] = found
        return found


def expected_paths(job: Job, route: Route) -> tuple[str, ...]:
    """Return the paths that the image needs if it arrives in the requested format.

    An image that waits for its publication needs its final path later.
    """
    named = ImageFormat.named(job.options.get("output_format"))
    kind = ImageFormat.MP4 if route is Route.VIDEO else named or ImageFormat.PNG
    extension = kind.extension
    return tuple(dict.fromkeys((final_path(job.path, extension), image_path(job, extension))))


def taken_text(place: Path | str, what: str) -> str:
    """Return why a job fails whose output path has a file that is not its image or sidecar."""
    return f"{PATH_REASON}: {place} is not {what} of this job; move it, or run with --overwrite"


def _root_obstacle(root: Path) -> str | None:
    """Check an output directory. It and its parents may be symbolic links."""
    for place in (root, *root.parents):
        try:
            mode = place.stat().st_mode
        except FileNotFoundError:
            if place.is_symlink():
                return f"{place} is a broken symbolic link"
            continue
        except OSError as exc:
            return f"{place}: {exc.strerror}"
        if not stat.S_ISDIR(mode):
            return f"{place} is a file where a directory is needed"
        return _no_access(place)
    return f"{root}: nothing above it exists"


def _directory_obstacle(directory: Path) -> str | None:
    """Check a directory whose parents are usable."""
    try:
        mode = os.lstat(directory).st_mode
    except FileNotFoundError:
        return None
    except OSError as exc:
        return f"{directory}: {exc.strerror}"
    if stat.S_ISLNK(mode):
        return f"{directory} is a symbolic link inside the output directory"
    if not stat.S_ISDIR(mode):
        return f"{directory} is a file where a directory is needed"
    return _no_access(directory)


def _no_access(directory: Path) -> str | None:
    if sys.platform == "win32":
        return None
    if os.access(directory, os.W_OK | os.X_OK, effective_ids=_AS_EFFECTIVE_USER):
        return None
    read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
    why = "the file system is read-only" if read_only else "no permission to create files in it"
    return f"{directory}: {why}"


def _path_obstacle(root: Path, path: str) -> str | None:
    """Return why a path, or a name derived from it, can't be written on this system."""
    try:
        parts = [os.fsencode(part) for part in path.split("/")]
        length = len(os.fsencode(root)) + 1 + sum(len(part) + 1 for part in parts)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        return f"{path!a}: the file system's encoding {encoding} can't hold this name"
    longest = max(len(parts[-1]) + len(LONGEST_SUFFIX), *map(len, parts))
    if longest > _USUAL_NAME_BYTES // 2 and longest > _name_bytes(root):
        return f"{path}: a name of {longest} bytes; the file system takes {_name_bytes(root)}"
    length += len(PREVIOUS_DIRECTORY) + 1 + _TEMPORARY_BYTES
    if length > _USUAL_PATH_BYTES:
        return f"{path}: a path of {length} bytes; the system takes {_USUAL_PATH_BYTES}"
    return None


@cache
def _name_bytes(root: Path) -> int:
    """Return the maximum length of a file name in the file system of a directory."""
    if sys.platform == "win32":
        return _USUAL_NAME_BYTES
    place = next(place for place in (root, *root.parents) if place.exists())
    try:
        return os.pathconf(place, "PC_NAME_MAX")
    except OSError:
        return _USUAL_NAME_BYTES
