"""`prices`, `models` and the price list of a run: real processes against a real endpoint."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from batchgen.cli.main import main
from tests.support import rig, wire

KEY = "sk-of-these-tests-0123456789"


@pytest.fixture(scope="module")
def dear(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Endpoint]:
    """An endpoint that takes 5 cents an image, which is not what is shipped."""
    state = tmp_path_factory.mktemp("endpoint")
    with rig.endpoint(state, "--fast-images", "--price", "0.05") as endpoint:
        yield endpoint


def estimate(directory: Path, path: Path) -> dict[str, Any]:
    """What a plan says of the new jobs, and by which prices."""
    found: dict[str, Any] = json.loads(rig.batchgen("plan", path, "--json", cwd=directory).stdout)
    return found


@pytest.mark.fault("A03")
def test_run_estimates_by_the_fresh_list_and_names_changes(
    dear: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, dear.base_url, ["one", "two"])
    shipped = estimate(tmp_path, path)
    assert shipped["groups"]["new"]["cost"] == "0.075400"
    before = len(dear.bill())

    done = rig.batchgen("run", path, cwd=tmp_path)

    assert "gpt-image-2 costs $0.05 by the price list of 127.0.0.1" in done.stderr
    assert "not $0.0377" in done.stderr
    assert "2 jobs are estimated again" in done.stderr
    assert rig.status(tmp_path)["cost"]["charged"] == "0.100000"
    rig.judge(tmp_path, dear.bill()[before:], finished=True)
    sources = rig.query(tmp_path / "batchgen.db", "SELECT price, source FROM prices")
    assert [(row["price"], row["source"].split(":")[0]) for row in sources] == [
        (50_000, "price list of 127.0.0.1")
    ]


def test_plan_uses_the_price_list_of_the_last_run(dear: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, dear.base_url, ["one"])
    rig.batchgen("run", path, cwd=tmp_path)
    rig.manifest(tmp_path, dear.base_url, ["one", "two"])

    planned = estimate(tmp_path, path)
    assert planned["groups"]["new"]["cost"] == "0.050000"
    assert planned["price_source"].startswith("price list of 127.0.0.1")
    assert "estimated again" not in rig.batchgen("run", path, cwd=tmp_path).stderr


def test_a_budget_holds_by_the_fresh_price(dear: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, dear.base_url, ["one", "two"], limits="{max_cost: 0.08}")
    before = len(dear.bill())
    rig.batchgen("run", path, "--yes", cwd=tmp_path, code=3)
    assert len(dear.bill()) == before + 1


class NoPriceList(BaseHTTPRequestHandler):
    """An endpoint that makes images and returns 404 for everything else."""

    def do_GET(self) -> None:
        self._response(404, b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        image = BytesIO()
        Image.new("RGB", (1024, 640)).save(image, "png")
        item = {"b64_json": b64encode(image.getvalue()).decode()}
        self._response(200, json.dumps({"created": 1, "data": [item]}).encode())

    def _response(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_run_without_a_price_list_warns_and_continues(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), NoPriceList) as server:
        Thread(target=server.serve_forever).start()
        try:
            base_url = f"http://127.0.0.1:{server.server_port}/v1"
            path = rig.manifest(tmp_path, base_url, ["one"])
            done = rig.batchgen("run", path, cwd=tmp_path)
        finally:
            server.shutdown()
    assert "no fresh price list" in done.stderr
    assert ": HTTP 404" in done.stderr
    assert "prices are from simulated prices of the local endpoint" in done.stderr
    assert rig.status(tmp_path)["cost"]["charged"] == "0.037700"


def test_a_price_of_the_manifest_wins_over_the_list(dear: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, dear.base_url, ["one"])
    text = path.read_text(encoding="utf-8").replace("name: local,", "name: local, price: 0.07,")
    path.write_text(text, encoding="utf-8")
    done = rig.batchgen("run", path, cwd=tmp_path)
    assert "prices from the manifest" in done.stderr
    assert rig.status(tmp_path)["cost"]["charged"] == "0.070000"


def test_unpriced_model_needs_explicit_acceptance(dear: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, dear.base_url, ["one"], extra="model: gpt-5.1\n")
    refused = rig.batchgen("run", path, cwd=tmp_path, code=2)
    assert "the price of gpt-5.1" in refused.stderr
    assert "--accept-unknown-price" in refused.stderr
    accepted = rig.batchgen("plan", path, "--json", "--accept-unknown-price", cwd=tmp_path)
    assert "unknown" in accepted.stderr
    assert json.loads(accepted.stdout)["groups"]["new"]["jobs"] == 1


def test_prices_shows_the_fresh_list_of_a_manifest(dear: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, dear.base_url, ["one"])
    done = rig.batchgen("prices", path, cwd=tmp_path)
    head, *lines = done.stdout.splitlines()
    assert head.startswith("local: price list of 127.0.0.1")
    words = [line.split() for line in lines]
    assert words[0] == ["gpt-image-2", "$0.05", "an", "image"]
    assert ["nano-banana", "$0.02145", "an", "image", "1k"] in words
    assert "1 model sold by tokens" in lines[-1]
    assert not (tmp_path / "batchgen.db").exists()


def test_an_unknown_price_is_shown_as_unknown(dear: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, dear.base_url, ["one"])
    done = rig.batchgen("prices", path, "--model", "gpt-5*", cwd=tmp_path)
    assert done.stdout.splitlines()[1].split() == ["gpt-5.1", "unknown", "by", "tokens"]
    done = rig.batchgen("prices", path, "--model", "gpt-5*", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["models"] == [
        {"model": "gpt-5.1", "unit": "token", "prices": [{"for": "", "price": None}]}
    ]


def test_prices_offline_are_those_of_the_last_run_or_shipped(
    dear: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, dear.base_url, ["one"])
    command = ("prices", path, "--offline", "--json", "--model", "gpt-image-2")
    shipped = json.loads(rig.batchgen(*command, cwd=tmp_path).stdout)
    assert shipped["models"][0]["prices"] == [{"for": "", "price": "0.037700"}]
    rig.batchgen("run", path, cwd=tmp_path)
    kept = json.loads(rig.batchgen(*command, cwd=tmp_path).stdout)
    assert kept["models"][0]["prices"] == [{"for": "", "price": "0.050000"}]
    assert kept["source"].startswith("price list of 127.0.0.1")


def test_prices_without_a_connection_are_the_newest_known(tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, f"http://127.0.0.1:{wire.free_port()}/v1", ["one"])
    done = rig.batchgen("prices", path, cwd=tmp_path)
    assert "no fresh price list" in done.stderr
    assert done.stdout.startswith("local: simulated prices")


def test_packaged_prices_are_shown_with_their_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prices", "--offline"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("crazyrouter: public price list of 2026-06-06\n")
    assert "$0.0825  an image    4k" in shown
    assert main(["prices", "--offline", "--provider", "openai"]) == 0
    assert "2026-11-22" in capsys.readouterr().out
    assert main(["prices", "--offline", "--provider", "openrouter"]) == 2
    assert "unknown provider" in capsys.readouterr().err


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[rig.Endpoint]:
    """An endpoint that takes one key only."""
    with rig.endpoint(tmp_path / "endpoint", "--key", KEY) as endpoint:
        yield endpoint


def with_key(directory: Path, base_url: str, model: str) -> Path:
    path = directory / "keyed.yaml"
    path.write_text(
        f"provider: {{name: local, base_url: {base_url!r}, api_key_env: MY_KEY}}\n"
        f"model: {model}\njobs: [a, {{prompt: b, model: gpt-image-2}}]\n",
        encoding="utf-8",
    )
    return path


def test_models_checks_what_a_manifest_needs_for_free(locked: rig.Endpoint, tmp_path: Path) -> None:
    env = {"MY_KEY": KEY}
    good = with_key(tmp_path, locked.base_url, "gpt-image-2")
    assert "gpt-image-2" in rig.batchgen("models", good, cwd=tmp_path, env=env).stdout

    bad = with_key(tmp_path, locked.base_url, "gpt-image-3")
    done = rig.batchgen("models", bad, cwd=tmp_path, env=env, code=1)
    assert "gpt-image-3: MISSING" in done.stdout
    assert "gpt-image-2 is the nearest" in done.stdout
    done = rig.batchgen("models", bad, "--json", cwd=tmp_path, env=env, code=1)
    found = json.loads(done.stdout)
    assert found["needed"] == ["gpt-image-2", "gpt-image-3"]
    assert found["missing"] == ["gpt-image-3"]
    assert "gpt-image-2" in [model["id"] for model in found["models"]]
    assert locked.judge("stats")["posts"] == 0
    assert not (tmp_path / "batchgen.db").exists()


def test_models_reports_a_refused_key_without_showing_it(
    locked: rig.Endpoint, tmp_path: Path
) -> None:
    path = with_key(tmp_path, locked.base_url, "gpt-image-2")
    wrong = "sk-wrong-0123456789abcdef"
    done = rig.batchgen("models", path, cwd=tmp_path, env={"MY_KEY": wrong}, code=3)
    assert "refuses the key" in done.stderr
    assert wrong not in done.stderr + done.stdout
    done = rig.batchgen("models", path, cwd=tmp_path, code=2)
    assert "set MY_KEY in the environment" in done.stderr


def test_models_of_the_local_endpoint_leave_no_files(tmp_path: Path) -> None:
    done = rig.batchgen("models", "--provider", "local", cwd=tmp_path)
    assert "  gpt-image-2" in done.stdout.splitlines()[1:]
    assert list(tmp_path.iterdir()) == []
