"""A batch that runs on a cluster, with its bucket and its bill."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from batchgen.storage.object_store import ObjectStore
from tests.support import rig
from tests.support.ray_cluster import RayCluster
from tests.support.s3 import S3Server

LEFT_OVER = ("spool/", "staging/")


@dataclass
class ClusterBatch:
    """One batch in a directory of its own."""

    directory: Path
    served: rig.Endpoint
    root: str
    store: ObjectStore
    env: dict[str, str]
    before: int
    """Rows of the bill before it."""
    cluster: RayCluster

    @classmethod
    def of(
        cls, directory: Path, served: rig.Endpoint, server: S3Server, cluster: RayCluster
    ) -> ClusterBatch:
        """Return a batch with a new bucket."""
        root = f"s3://{server.new_bucket()}/out"
        store = ObjectStore(root, server.options)
        env = {**server.env, "BATCHGEN_CLUSTER_GRACE": "3", "BATCHGEN_CLUSTER_SILENT": "6"}
        return cls(directory, served, root, store, env, len(served.bill()), cluster)

    def write(
        self,
        jobs: int,
        *,
        prompt: str = "a mug",
        limits: str = "{concurrency: 8, max_waste: 0}",
        output: str = "",
        extra: str = "",
    ) -> None:
        rig.manifest(
            self.directory,
            self.served.base_url,
            [f"{prompt}, number {number}" for number in range(jobs)],
            limits=limits,
            extra=f"output: {{dir: {json.dumps(self.root)}{output}}}\n{extra}",
        )

    def arguments(self, *options: str) -> list[str]:
        return ["run", "batch.yaml", "--on", f"ray={self.cluster.gcs}", *options]

    def run(self, *options: str, code: int | None = 0, **env: str) -> str:
        done = rig.batchgen(
            *self.arguments(*options), cwd=self.directory, env={**self.env, **env}, code=code
        )
        return done.stdout + done.stderr

    def start(self, *options: str, **env: str) -> rig.Started:
        arguments = self.arguments(*options)
        return rig.start(*arguments, cwd=self.directory, env={**self.env, **env})

    def states(self) -> dict[str, int]:
        rows = rig.query(
            self.directory / "batchgen.db", "SELECT state, count(*) AS n FROM jobs GROUP BY state"
        )
        return {row["state"]: row["n"] for row in rows}

    def judge(self, *, was_rebought: bool = False) -> None:
        """Compare ledger, bill and objects; see `rig.judge_money`."""
        self.served.wait_until_idle()
        db = self.directory / "batchgen.db"
        rig.judge_money(db, self.served.bill()[self.before :], was_rebought=was_rebought)
        rows = rig.query(
            db,
            "SELECT images.path AS path, sha256 FROM images JOIN jobs ON jobs.id = job_id"
            " WHERE images.state = 'saved' AND jobs.state = 'done'",
        )
        assert len(rows) == self.states().get("done", 0)
        for row in rows:
            assert hashlib.sha256(self.store.read(row["path"])).hexdigest() == row["sha256"]

    def stored_responses(self) -> list[str]:
        """Return the responses in the bucket that no run has used."""
        return [one.name for one in self.store.list("spool/") if one.name.endswith(".response")]

    def left_over(self) -> list[str]:
        """Return the names of objects that a finished batch does not need."""
        return [one.name for prefix in LEFT_OVER for one in self.store.list(prefix)]
