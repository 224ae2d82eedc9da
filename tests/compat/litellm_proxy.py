"""Run batchgen through a foreign gateway: the LiteLLM proxy in front of the local endpoint.

A command for its own environment, not part of the suite: see "A foreign endpoint" in
.github/CONTRIBUTING.md. Each scenario is one run through the proxy; the ledger is then compared
with the bill of the local endpoint.
"""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from PIL import Image

from tests.support import rig

KEY: Final = "sk-litellm-proxy-test-key"
START_WITHIN_S: Final = 120
MICROS: Final = 1_000_000


@dataclass(frozen=True)
class Scenario:
    """One run: what the endpoint does, and what the manifest asks for."""

    name: str
    switches: tuple[str, ...] = ()
    options: str = "{size: 1024x640}"
    extra: str = ""
    prompts: tuple[str, ...] = tuple(f"a mug, number {number}" for number in range(20))
    rebuys: bool = False
    """The proxy retries by itself (`max_retries: 0` counts as unset there), without a trace."""


STREAM: Final = "{size: 1024x640, stream: true, partial_images: 1}"
SCENARIOS: Final = (
    Scenario("urls"),
    Scenario("inline", ("--response", "b64_json")),
    Scenario("mixed", ("--response", "mixed")),
    Scenario("one reference", extra="images: [a.png]\n"),
    Scenario("two references, mask", extra="images: [a.png, b.png]\nmask: mask.png\n"),
    Scenario("stream", ("--response", "b64_json", "--ping-interval", "0.05"), STREAM),
    Scenario("blocked prompts", prompts=("a mug", "a forbidden-word", "a hat")),
    Scenario("bad size", options="{size: 1000x1000}"),
    Scenario("429 now and then", ("--throttle", "0.2")),
    Scenario("503 now and then", ("--overload", "0.2")),
    Scenario("no money half way", ("--balance", "0.40")),
    Scenario("billed, then 500", ("--bill-error", "0.2"), rebuys=True),
    Scenario("billed, then dropped", ("--bill-drop", "0.2"), rebuys=True),
    Scenario("billed, then 504", ("--bill-gateway-timeout", "0.2"), rebuys=True),
    Scenario("billed, then empty", ("--bill-empty", "0.2")),
)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def proxy(command: str, base_url: str, directory: Path) -> Iterator[str]:
    """LiteLLM before an endpoint; gives the proxy's base URL."""
    port = free_port()
    upstream = {
        "model": "openai/gpt-image-2",
        "api_base": base_url,
        "api_key": "sk-embedded",
        "max_retries": 0,
    }
    config = {
        "model_list": [
            {
                "model_name": "gpt-image-2",
                "litellm_params": upstream,
                "model_info": {"mode": "image_generation"},
            }
        ],
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": KEY},
    }
    (directory / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
    with (
        (directory / "proxy.log").open("wb") as log,
        subprocess.Popen(
            [command, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)],
            cwd=directory,
            # The map of prices would be fetched from the network.
            env=rig.environment({"LITELLM_LOCAL_MODEL_COST_MAP": "True"}),
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}/health/liveliness")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def wait_for(url: str) -> None:
    """Ask until there is a response. Raises TimeoutError."""
    end = time.monotonic() + START_WITHIN_S
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"{url} does not respond within {START_WITHIN_S} s")


def images(directory: Path) -> None:
    """References and a mask of their size."""
    for name, mode in (("a", "RGB"), ("b", "RGB"), ("mask", "RGBA")):
        buffer = io.BytesIO()
        Image.new(mode, (64, 64)).save(buffer, "PNG")
        (directory / f"{name}.png").write_bytes(buffer.getvalue())


def play(scenario: Scenario, command: str) -> tuple[str, bool]:
    """Run one scenario; a line about it, and whether ledger and bill agree."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        images(directory)
        with (
            rig.endpoint(directory / "state", "--fast-images", *scenario.switches) as served,
            proxy(command, served.base_url, directory) as base_url,
        ):
            path = rig.manifest(
                directory,
                base_url,
                scenario.prompts,
                options=scenario.options,
                limits='{concurrency: 4, max_waste: "0", unreachable: 5, max_probes: 1}',
                extra=f"rules: warn\n{scenario.extra}",
            )
            text = path.read_text(encoding="utf-8")
            path.write_text(
                text.replace(
                    "name: local,", "name: proxied, api_key_env: PROXY_KEY, price: '0.0377',"
                ),
                encoding="utf-8",
            )
            rig.batchgen("run", path, cwd=directory, env={"PROXY_KEY": KEY}, code=None)
            served.wait_until_idle()
            found = rig.status(directory)
            billed = Decimal(sum(row["micros"] for row in served.bill())) / MICROS
            codes = rig.query(
                directory / "batchgen.db",
                "SELECT outcome, error_code, count(*) AS n FROM attempts"
                " GROUP BY 1, 2 ORDER BY n DESC",
            )
    charged, maybe = (Decimal(found["cost"][name]) for name in ("charged", "maybe"))
    agrees = charged <= billed <= charged + maybe or scenario.rebuys
    jobs = ", ".join(f"{count} {state}" for state, count in found["jobs"].items() if count)
    outcomes = ", ".join(f"{row['n']} {row['outcome']} {row['error_code'] or ''}" for row in codes)
    verdict = "ok" if agrees else "WRONG"
    if billed > charged + maybe and scenario.rebuys:
        verdict = "proxy"
    line = (
        f"{verdict:5} {scenario.name:24} billed {billed:.4f}, charged {charged:.4f}, maybe"
        f" {maybe:.4f}; {jobs}; {outcomes}"
    )
    return line, agrees


def main(arguments: Sequence[str]) -> int:
    """Play the scenarios, or those whose names hold a word of the arguments."""
    command, *words = arguments
    wanted = [s for s in SCENARIOS if not words or any(word in s.name for word in words)]
    wrong = 0
    for scenario in wanted:
        line, agrees = play(scenario, str(Path(command).absolute()))
        print(line, flush=True)
        wrong += not agrees
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
