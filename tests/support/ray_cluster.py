"""A real Ray cluster of several nodes on this machine, in a process of its own.

As a program it starts the nodes, prints how to reach them as JSON, and obeys commands on stdin:
``remove`` takes a node away without notice and adds another one; ``drain`` gives notice of that.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support import rig

_STORE_BYTES = 80 * 1024 * 1024


@dataclass(frozen=True)
class RayCluster:
    """A running cluster."""

    gcs: str
    """HOST:PORT of its head."""
    session: Path
    """Directory of its logs."""
    process: subprocess.Popen[str]
    scratch: Path
    """Directory of the temporary files of its actors."""
    dashboard: str = ""
    """HOST:PORT of its dashboard, if that was requested."""

    def actors(self) -> list[int]:
        """Return the process ids of the actors, oldest first."""
        return sorted(
            pid for pid in _below(self.process.pid) if _title(pid).startswith("ray::Actor")
        )

    def head(self) -> int:
        """Return the process id of the server that knows all nodes (GCS)."""
        return next(pid for pid in self.pids() if "gcs_server" in _title(pid).partition("\0")[0])

    def pids(self) -> list[int]:
        """Return the process ids of all that belongs to the cluster."""
        return [self.process.pid, *_below(self.process.pid)]

    def remove_node(self) -> None:
        """Take a node away without notice; another one is added after that."""
        self._command("remove")

    def drain_node(self) -> None:
        """Give notice that the node which `remove_node` takes next will be taken away."""
        self._command("drain")

    def _command(self, name: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()


@contextmanager
def ray_cluster(
    env: Mapping[str, str], nodes: int = 3, *, has_dashboard: bool = False
) -> Iterator[RayCluster]:
    """Start a cluster whose actors have this environment; stopped at the end."""
    options = [str(nodes), *(["dashboard"] if has_dashboard else [])]
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
    with (
        tempfile.TemporaryDirectory(prefix="cluster-", ignore_cleanup_errors=True) as scratch,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.ray_cluster", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # Ray's sockets stay where they are: their paths have a greatest length.
            env=rig.environment(
                {**env, **quiet, "TMPDIR": scratch, "RAY_TMPDIR": tempfile.gettempdir()}
            ),
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            ready = json.loads(process.stdout.readline())
            yield RayCluster(
                ready["gcs"],
                Path(ready["session"]),
                process,
                Path(scratch),
                ready["dashboard"] or "",
            )
        finally:
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            for pid in [*_below(process.pid), process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    """Return the processes that a process started, and those that these started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with suppress(OSError):
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(path.name))
    found, left = list[int](), [pid]
    while left:
        more = children.get(left.pop(), [])
        found += more
        left += more
    return found


def _title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


def main(count: int, *, has_dashboard: bool) -> None:
    """Start the nodes, and obey commands until the end of stdin."""
    from ray.cluster_utils import Cluster

    arguments = {"num_cpus": 2, "object_store_memory": _STORE_BYTES}
    head = {**arguments, "include_dashboard": has_dashboard, "dashboard_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    others = [cluster.add_node(**arguments) for _ in range(count - 1)]
    session = cluster.head_node.get_session_dir_path()
    ready = {
        "gcs": cluster.head_node.gcs_address,
        "session": session,
        "dashboard": cluster.webui_url if has_dashboard else "",
    }
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        if line.strip() == "remove" and others:
            cluster.remove_node(others.pop(), allow_graceful=False)
            print("removed", flush=True)
            others.append(cluster.add_node(**arguments))
        elif line.strip() == "drain" and others:
            print(_drain(cluster.head_node.gcs_address, others[-1].node_id), flush=True)
    cluster.shutdown()


def _drain(gcs: str, node: str) -> str:
    """Announce that a node is taken away, as a provider of spot machines does."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    deadline_ms = int((time.time() + 120) * 1000)
    done = GcsClient(gcs).drain_node(node, reason, "taken away", deadline_ms)
    return f"drained: {done}"


if __name__ == "__main__":
    main(int(sys.argv[1]), has_dashboard="dashboard" in sys.argv[2:])
