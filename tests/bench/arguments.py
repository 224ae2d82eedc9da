"""Arguments of every client's script; imports nothing, because it runs in the peers'
environments.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """A table of prompts, where to send them, and where the images go."""

    base_url: str
    rows: Path
    in_flight: int
    out: Path

    def prompts(self) -> Iterator[tuple[str, str]]:
        """The id and the prompt of each row."""
        with self.rows.open(newline="") as file:
            for row in csv.DictReader(file):
                yield row["id"], row["prompt"]


def parse() -> Work:
    """Read the command line, and make the directory for the images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    work = Work(**vars(parser.parse_args()))
    work.out.mkdir(parents=True, exist_ok=True)
    return work
