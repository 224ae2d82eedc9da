"""A batch on disk: its commands, its ledger, the bill, and what people did to its files."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from batchgen.cli.main import main
from batchgen.errors import ExitCode
from batchgen.system.shell_command import name_ledger
from tests.nights.catalog import DIRECTORIES, Catalog
from tests.support import rig

SAVED: Final = (
    "SELECT jobs.key AS key, jobs.state AS job_state, retired, images.root AS root,"
    " images.path AS path, images.state AS state, sha256, unpublished, position, attempt_id"
    " FROM images JOIN jobs ON jobs.id = job_id WHERE images.state = 'saved'"
)
"""The images on disk, to be continued with AND."""
PUBLISHED: Final = f"{SAVED} AND unpublished = 0 AND position = 0"
QUIET: Final = {"latency": 0.0, "overload": 0.0}


class Disagreement(AssertionError):
    """Two records of one fact differ; the text says which, and how to repeat it."""


@dataclass
class Batch:
    """A catalog in a directory of its own, with its ledger and an endpoint's bill."""

    directory: Path
    served: rig.Endpoint
    catalog: Catalog
    record: list[str] = field(default_factory=list)
    """The steps and commands so far, with exit codes."""
    faults: Mapping[str, float] = field(default_factory=dict)
    """What the endpoint does wrong now."""
    is_settled: bool = False
    """Whether the last run ended by itself: a killed one may leave files to the next run."""
    was_at_once: bool = False
    """Whether images were ever published without a decision."""
    accepted: set[str] = field(default_factory=set)
    """Hashes of images that were waiting when they were accepted."""
    damaged: set[str] = field(default_factory=set)
    """Hashes of images that a person removed or changed."""
    edited: dict[str, Path] = field(default_factory=dict)
    """Hashes of files that a person made; no command may delete them."""
    pruned: set[str] = field(default_factory=set)
    """Hashes of images that `prune` deleted."""
    published: dict[str, str] = field(default_factory=dict)
    """The hash of each job's published image after the last step."""
    replaced: dict[str, str] = field(default_factory=dict)
    """The hash of the image that it replaced."""

    @property
    def db(self) -> Path:
        return self.directory / "batchgen.db"

    @property
    def has_ledger(self) -> bool:
        return self.db.exists()

    def write(self, dice: random.Random) -> None:
        """Write the manifest and its table."""
        self.catalog.write(self.directory, dice)
        self.was_at_once |= self.catalog.publish == "at_once"

    def note(self, line: str) -> None:
        """Add to the record."""
        self.record.append(line)

    def command(self, *arguments: str | Path) -> tuple[int, str]:
        """Run a command in a process of its own; return its exit code and its output."""
        done = rig.batchgen(*arguments, cwd=self.directory, code=None)
        text = done.stdout + done.stderr
        self.note(f"batchgen {' '.join(map(str, arguments))}  # exit {done.returncode}")
        if done.returncode == ExitCode.BUG or done.returncode < 0 or "Traceback" in text:
            raise Disagreement(f"{arguments[0]} ended with {done.returncode}: {text}")
        return done.returncode, done.stdout

    def lookup(self, *arguments: str) -> tuple[int, str]:
        """Run a command that only reads, in this process; return its exit code and its output."""
        out, errors = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.directory),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
        ):
            try:
                code = main(list(arguments))
            finally:
                name_ledger(None)
        if code not in (ExitCode.DONE, ExitCode.UNFINISHED, ExitCode.USAGE):
            raise Disagreement(f"{' '.join(arguments)} ended with {code}: {errors.getvalue()}")
        return code, out.getvalue() if code != ExitCode.USAGE else errors.getvalue()

    def read(self, *arguments: str) -> Any:
        """Return the JSON that a command prints."""
        code, text = self.lookup(*arguments, "--json")
        if code == ExitCode.USAGE:
            raise Disagreement(f"{' '.join(arguments)} is refused: {text}")
        return json.loads(text)

    def read_lines(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the JSON lines that a command prints."""
        code, text = self.lookup(*arguments)
        if code == ExitCode.USAGE:
            raise Disagreement(f"{' '.join(arguments)} is refused: {text}")
        return [json.loads(line) for line in text.splitlines()]

    def query(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """Read the ledger."""
        return rig.query(self.db, sql, *values)

    def count(self, sql: str, *values: object) -> int:
        """Return the only number of a query."""
        return int(self.query(sql, *values)[0][0])

    def key(self, dice: random.Random) -> str | None:
        """Return the key of any job in the manifest; None without one."""
        rows = self.query("SELECT key FROM jobs WHERE retired = 0 ORDER BY key")
        return str(dice.choice(rows)["key"]) if rows else None

    def posts(self) -> int:
        """Return how many paid requests the endpoint has received."""
        return int(self.served.judge("stats")["posts"])

    def set_faults(self, faults: Mapping[str, float]) -> None:
        """Let the endpoint do these things wrong, and nothing else."""
        self.served.judge("faults", {**dict.fromkeys(self.faults, 0.0), **faults})
        self.faults = faults
        if faults:
            self.note(f"# faults of the endpoint: {faults}")

    def calm(self) -> None:
        """Wait for requests whose clients are gone, and end the delays."""
        self.served.wait_until_idle()
        self.served.judge("faults", QUIET)

    def published_now(self) -> dict[str, str]:
        """Return the hash of each job's published image, of retired jobs too."""
        return {row["key"]: row["sha256"] for row in self.query(PUBLISHED)}

    def images(self) -> Iterator[Path]:
        """Return all files in the directories of images."""
        for directory in DIRECTORIES:
            yield from sorted(p for p in (self.directory / directory).rglob("*") if p.is_file())

    def shown(self, path: Path) -> str:
        """Return a path as messages show it."""
        return str(path.relative_to(self.directory))


def digest(path: Path) -> str:
    """Return the hash of a file, as the ledger records it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
