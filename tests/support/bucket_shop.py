"""A batch whose images go to a bucket of a real S3 server."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from batchgen.storage.object_store import ObjectStore
from tests.support import rig
from tests.support.s3 import S3Server


@dataclass
class Shop:
    """A batch in a directory of its own, with its bucket and its bill."""

    directory: Path
    served: rig.Endpoint
    server: S3Server
    root: str
    store: ObjectStore
    env: dict[str, str]
    before: int

    def write(self, *prompts: str, output: str = "", extra: str = "", root: str = "") -> Path:
        return rig.manifest(
            self.directory,
            self.served.base_url,
            prompts,
            extra=f"output: {{dir: {json.dumps(root or self.root)}{output}}}\n{extra}",
        )

    def batchgen(self, *arguments: str, code: int = 0, point: str | None = None) -> str:
        env = self.env if point is None else {**self.env, "BATCHGEN_FAILPOINT": point}
        done = rig.batchgen(*arguments, cwd=self.directory, env=env, code=code)
        return done.stdout + done.stderr

    def run(self, *options: str, code: int = 0, point: str | None = None) -> str:
        return self.batchgen("run", "batch.yaml", *options, code=code, point=point)

    @property
    def bill(self) -> int:
        return len(self.served.bill()) - self.before

    def objects(self) -> dict[str, bytes]:
        return {one.name: self.store.read(one.name) for one in self.store.list()}

    def recorded(self) -> dict[str, str]:
        rows = rig.query(
            self.directory / "batchgen.db",
            "SELECT images.path AS path, sha256 FROM images JOIN jobs ON jobs.id = job_id"
            " WHERE images.state = 'saved' AND jobs.state = 'done'",
        )
        return {row["path"]: row["sha256"] for row in rows}

    def judge(self, jobs: int) -> None:
        """Every job is done, and its object is the one of the ledger."""
        recorded = self.recorded()
        assert len(recorded) == jobs
        objects = self.objects()
        for path, sha256 in recorded.items():
            assert hashlib.sha256(objects[path]).hexdigest() == sha256
