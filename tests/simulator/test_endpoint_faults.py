"""Faults of the embedded endpoint: what they do to responses, files and the bill."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.support import rig
from tests.support.endpoint import ask, error_of

SWITCHES = ()


FAULTS = {
    "refuse": (400, 0),
    "throttle": (429, 0),
    "overload": (503, 0),
    "error": (500, 0),
    "break": (None, 0),
    "bill-error": (500, 1),
    "bill-drop": (None, 1),
    "bill-gateway-timeout": (504, 1),
    "bill-empty": (200, 1),
    "html": (200, 0),
    "plan-limit": (400, 0),
    "bill-no-data": (200, 1),
    "bill-unread": (200, 1),
    "bill-page": (200, 1),
    "bill-inside": (200, 1),
    "bill-task": (202, 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_does_what_it_says_to_response_and_bill(fault: str, tmp_path: Path) -> None:
    status, charges = FAULTS[fault]
    with rig.endpoint(tmp_path, f"--{fault}", "1") as faulty:
        if status is None:
            with pytest.raises(httpx.TransportError):
                ask(faulty)
        else:
            assert ask(faulty).status_code == status
        assert len(faulty.bill()) == charges


@pytest.mark.parametrize(
    ("fault", "status"),
    [("download-forbid", 403), ("download-miss", 404), ("download-html", 200)],
)
def test_a_faulty_download_has_no_image(fault: str, status: int, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, f"--{fault}", "1", "--fault-after", "1") as faulty:
        url = ask(faulty).json()["data"][0]["url"]
        assert httpx.get(url).headers["content-type"] == "image/png", "the first is without fault"
        found = httpx.get(url)
        assert found.status_code == status
        assert not found.content.startswith(b"\x89PNG")


def test_a_stalled_download_never_ends(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--download-stall", "1") as faulty:
        url = ask(faulty).json()["data"][0]["url"]
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(url, timeout=0.5)


def test_a_cut_download_is_cut(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--download-truncate", "1") as faulty:
        url = ask(faulty).json()["data"][0]["url"]
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url)


def url_of(response: httpx.Response) -> str:
    """Where the first image is."""
    url: str = response.json()["data"][0]["url"]
    return url


def test_faults_are_replaced_at_run_time_and_other_switches_kept(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"error": 1, "response": "b64_json"})
    assert error_of(ask(tuned)) == (500, "do_request_failed")
    in_force = tuned.judge("faults", {"overload": 1.0})
    assert (in_force["error"], in_force["overload"], in_force["response"]) == (0, 1, "b64_json")
    assert error_of(ask(tuned)) == (503, "system_cpu_overloaded")


@pytest.mark.parametrize(
    "wrong",
    [{"no-such": 1}, {"break": 2}, {"break": "1"}, {"break": 0.6, "error": 0.6}, {"burst": 0}],
)
def test_a_wrong_switch_is_refused_and_changes_nothing(
    wrong: dict[str, object], tuned: rig.Endpoint
) -> None:
    before = tuned.judge("faults", {"latency": 0.01})
    root = tuned.base_url.removesuffix("/v1")
    assert httpx.post(f"{root}/judge/faults", json={"latency": 9, **wrong}).status_code == 400
    assert tuned.judge("faults", {}) == before


def test_a_result_is_gone_after_its_time_to_live(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"url_ttl": 100})
    url = url_of(ask(tuned))
    assert httpx.head(url).status_code == httpx.get(url).status_code == 200
    file = tuned.state / "files" / url.rpartition("/")[2]
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 200))
    assert httpx.get(url).status_code == 404
    tuned.judge("faults", {"url_ttl": 0})
    assert httpx.get(url).status_code == 200


@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_a_truncated_image_is_billed_and_cannot_be_read(form: str, tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"bill-truncated": 1, "response": form})
    before = len(tuned.bill())
    item = ask(tuned).json()["data"][0]
    data = httpx.get(item["url"]).content if form == "url" else base64.b64decode(item["b64_json"])
    with pytest.raises((OSError, SyntaxError)), Image.open(io.BytesIO(data)) as image:
        image.load()
    row = tuned.bill()[before]
    assert (row["fault"], row["status"], row["micros"]) == ("bill-truncated", 200, rig.PRICE)


def test_a_download_that_fails_is_there_later(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"download-error": 1})
    url = url_of(ask(tuned))
    assert httpx.get(url).status_code == 503
    tuned.judge("faults", {})
    assert httpx.get(url).status_code == 200


def test_mixed_responses_have_both_forms_and_empty_strings(
    tuned: rig.Endpoint,
) -> None:
    tuned.judge("faults", {"response": "mixed", "fast-images": True})
    items = [item for _ in range(2) for item in ask(tuned, n=10).json()["data"]]
    assert all(set(item) == {"url", "b64_json", "revised_prompt"} for item in items)
    assert all(bool(item["url"]) != bool(item["b64_json"]) for item in items)
    assert 0 < sum(bool(item["url"]) for item in items) < 20


def test_a_dropped_connection_says_so_on_the_bill(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"bill-drop": 1})
    with pytest.raises(httpx.TransportError):
        ask(tuned)
    row = tuned.bill()[-1]
    assert (row["status"], row["fault"]) == ("dropped", "bill-drop")
