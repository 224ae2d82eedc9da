"""The clients that are compared: each a command that makes the images of a table, and ends."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support import rig

PEERS: Final = Path(__file__).parent / "peers"
ROOT: Final = Path(__file__).parents[2]
KEY_VARIABLE: Final = "BENCH_KEY"
_KEY: Final = "sk-bench-key"
BATCH: Final = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a client is to make."""

    base_url: str
    count: int
    in_flight: int
    size: str
    image_url: str | None = None
    """Where a response's URL points; None for inline images."""
    ca_file: Path | None = None
    """Certificate of an endpoint with TLS."""
    limits: str = ""
    """More of the manifest's limits, for batchgen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client by name, and the Python that has it."""

    name: str
    python: Path | str = sys.executable
    script: str = ""
    downloads: bool = True
    """Whether it downloads an image given by URL."""
    environment: Mapping[str, str] | None = None

    def command(self, task: Task, directory: Path) -> list[str | Path]:
        """Prepare the directory; gives the command that is to be measured in it."""
        write_rows(directory / "rows.csv", task.count)
        options = ["--base-url", task.base_url, "--in-flight", str(task.in_flight)]
        files = ["--rows", str(directory / "rows.csv"), "--out", str(directory / "out")]
        return [self.python, PEERS / self.script, *options, *files]

    def env(self, task: Task | None = None) -> dict[str, str]:
        """The environment of its process."""
        paths = {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": _KEY, KEY_VARIABLE: _KEY}
        if task is not None and task.ca_file is not None:
            paths["SSL_CERT_FILE"] = str(task.ca_file)
        return rig.environment({**paths, **(self.environment or {})})


@dataclass(frozen=True, slots=True, kw_only=True)
class Batchgen(Client):
    """batchgen as it comes: ledger on, every image verified by structure and hashed."""

    keep_alive: bool = True
    """Whether paid requests share connections, as those of the other clients do."""

    def command(self, task: Task, directory: Path) -> list[str | Path]:
        write_rows(directory / "rows.csv", task.count)
        manifest = write_manifest(directory, task, keep_alive=self.keep_alive)
        return [self.python, "-m", "batchgen", "run", manifest, "--db", directory / "batchgen.db"]


class Curl(Client):
    """curl, for what downloading alone costs at least."""

    def command(self, task: Task, directory: Path) -> list[str | Path]:
        assert task.image_url is not None
        (directory / "out").mkdir()
        config = directory / "curl.cfg"
        with config.open("w") as file:
            for number in range(task.count):
                file.write(f'url = "{task.image_url}"\noutput = "out/{number}.png"\n')
        width = ["--parallel", "--parallel-immediate", "--parallel-max", str(task.in_flight)]
        return ["curl", "-s", *width, "-K", config]


def write_rows(path: Path, count: int) -> None:
    """A table of prompts."""
    with path.open("w", newline="") as file:
        file.write("id,prompt\n")
        file.writelines(
            f'{number:07d},"A product photo of item {number}, white background, soft light"\n'
            for number in range(count)
        )


def write_manifest(
    directory: Path, task: Task, *, name: str = BATCH, keep_alive: bool = True
) -> Path:
    """A manifest over the directory's table, as short as it can be."""
    path = directory / f"{name}.yaml"
    provider: dict[str, str | bool] = {
        "name": "bench",
        "base_url": task.base_url,
        "api_key_env": KEY_VARIABLE,
    }
    if not keep_alive:
        provider["keep_alive"] = False
    if task.ca_file is not None:
        provider["ca_file"] = str(task.ca_file)
    path.write_text(
        f"name: {name}\n"
        f"provider: {json.dumps({**provider, 'price': '0.01'})}\n"
        "rows: rows.csv\n"
        'prompt: "{{ prompt }}"\n'
        "output: {dir: out}\n"
        f"limits: {{concurrency: {task.in_flight}{task.limits}}}\n"
    )
    return path


def clients(peers: Path | None, litellm: Path | None) -> list[Client]:
    """batchgen and the script first, then those that are here."""
    found: list[Client] = [
        Batchgen(name="batchgen"),
        Batchgen(name="batchgen-fresh", keep_alive=False),
        Client(name="gather", script="gather.py"),
    ]
    if peers is not None and (peers / "openai-2").exists():
        python = _python(peers / "openai-2")
        found.append(Client(name="gather, SDK 2", python=python, script="gather.py"))
    if litellm is not None:
        offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        found.append(
            Client(
                name="litellm",
                python=_python(litellm),
                script="litellm_gather.py",
                environment=offline,
            )
        )
    if peers is not None and (peers / "async-batch-llm").exists():
        python = _python(peers / "async-batch-llm")
        found.append(Client(name="async-batch-llm", python=python, script="batch_llm.py"))
    if peers is not None and (peers / "saturate").exists():
        python = _python(peers / "saturate")
        found.append(
            Client(name="saturate", python=python, script="saturate_pump.py", downloads=False)
        )
    if shutil.which("curl"):
        found.append(Curl(name="curl"))
    return found


def _python(environment: Path) -> Path:
    return environment.absolute() / ("Scripts" if os.name == "nt" else "bin") / "python"
