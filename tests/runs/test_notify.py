"""Notifications about the start and end of a run; their failures change nothing."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from batchgen.session.notify import Apprise, Command, Notice, Webhook, notify, ping
from tests.support import rig

NOTICE = Notice(title="batchgen x: all done", text="fine", body=b'{"batch": "x"}')
SECRET = "T0P-SECRET-PATH"
OLD_IMPORTS = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # those of apprise


class Service(ThreadingHTTPServer):
    """The operator's own service; it responds with ``status``."""

    status = 200

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{SECRET}"


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def running() -> Iterator[Service]:
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield service
        finally:
            service.shutdown()
            thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    with running() as one:
        yield one


def test_a_webhook_gets_the_report(service: Service) -> None:
    assert notify(Webhook(url=service.url), NOTICE) is None
    assert service.asked == [("POST", f"/{SECRET}", NOTICE.body)]


def test_a_command_gets_the_report_on_stdin(tmp_path: Path) -> None:
    command = Command(arguments=["sh", "-c", "cat > report.json"], directory=tmp_path)
    assert notify(command, NOTICE) is None
    assert (tmp_path / "report.json").read_bytes() == NOTICE.body


@OLD_IMPORTS
def test_a_service_of_apprise_gets_it_as_text(service: Service) -> None:
    url = service.url.replace("http://", "json://")
    assert notify(Apprise(url=url), NOTICE) is None
    ((method, _, body),) = service.asked
    assert (method, json.loads(body)["message"]) == ("POST", "fine")


@pytest.mark.parametrize("suffix", ["", "/start", "/fail"])
def test_health_check_is_requested_below_its_url(suffix: str, service: Service) -> None:
    assert ping(f"{service.url}/?rid=1", suffix) is None
    assert service.asked == [("GET", f"/{SECRET}{suffix}?rid=1", b"")]


def test_no_log_has_the_url(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert notify(Webhook(url=service.url), NOTICE) is None
    assert ping(service.url) is None
    assert SECRET not in caplog.text


@OLD_IMPORTS
def test_failed_notification_is_reported_without_the_url(service: Service, tmp_path: Path) -> None:
    service.status = 500
    unreachable = f"http://127.0.0.1:9/{SECRET}"
    shown = [
        notify(Webhook(url=service.url), NOTICE),
        notify(Webhook(url=unreachable), NOTICE),
        notify(Webhook(url=f"https://[{SECRET}"), NOTICE),
        notify(Apprise(url=f"{SECRET}://nothing"), NOTICE),
        notify(Command(arguments=["sh", "-c", "exit 3"], directory=tmp_path), NOTICE),
        notify(Command(arguments=["./nowhere"], directory=tmp_path), NOTICE),
        ping(unreachable),
    ]
    assert shown[0] == "HTTP 500"
    assert all(shown)
    assert shown[4] == "it ended with exit code 3"
    assert SECRET not in str(shown)
    assert SECRET not in repr([Webhook(url=unreachable), Apprise(url=unreachable)])


def finishing(directory: Path, base_url: str, prompts: list[str]) -> Path:
    extra = (
        'ping: "${CHECK}"\n'
        "on_finish:\n"
        '  - {webhook: "${HOOK}", only_if: failed}\n'
        '  - {command: [sh, -c, "cat > report.json"]}\n'
    )
    return rig.manifest(directory, base_url, prompts, extra=extra)


def test_run_notifies_how_it_ended_without_the_url(service: Service, tmp_path: Path) -> None:
    env = {"CHECK": service.url, "HOOK": f"{service.url}/hook"}
    with rig.endpoint(tmp_path / "state", "--fast-images") as served:
        path = finishing(tmp_path, served.base_url, ["a mug"])
        rig.batchgen("run", path, cwd=tmp_path, env=env)
        assert [asked[:2] for asked in service.asked] == [
            ("GET", f"/{SECRET}/start"),
            ("GET", f"/{SECRET}"),
        ]
        shown = json.loads((tmp_path / "report.json").read_bytes())
        assert (shown["exit_code"], shown["made"]["new"]) == (0, 1)

        service.asked.clear()
        service.status = 503
        path = finishing(tmp_path, served.base_url, ["a mug", "a forbidden-word"])
        done = rig.batchgen("run", path, "--quiet", cwd=tmp_path, env=env, code=1)
    assert [asked[:2] for asked in service.asked] == [
        ("GET", f"/{SECRET}/start"),
        ("GET", f"/{SECRET}/fail"),
        ("POST", f"/{SECRET}/hook"),
    ]
    assert json.loads(service.asked[2][2])["jobs"]["blocked"] == 1
    assert "batch: on_finish[0]: not notified: HTTP 503" in done.stderr
    assert "batch: ping: HTTP 503" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert SECRET.encode() not in (tmp_path / "batchgen.db").read_bytes()


def test_run_that_never_began_is_notified_too(service: Service, tmp_path: Path) -> None:
    env = {"CHECK": service.url, "HOOK": f"{service.url}/hook"}
    with rig.endpoint(tmp_path / "state", "--fast-images") as served:
        path = finishing(tmp_path, served.base_url, ["a mug"])
        rig.batchgen("run", path, "--max-cost", "0.01", cwd=tmp_path, env=env, code=3)
    shown = json.loads(service.asked[-1][2])
    assert shown["exit_code"] == 3
    assert "0.01" in shown["error"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{webhook: 'https://x.example', command: [a]}", "exactly one of"),
        ("{only_if: failed}", "exactly one of"),
        ("{webhook: 'http://x.example/T0P-SECRET-PATH'}", "unencrypted"),
        ("{webhook: '${NOT_SET}'}", "NOT_SET is not set"),
    ],
)
def test_wrong_notifier_is_reported_before_anything_is_sent(
    spec: str, message: str, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, "http://127.0.0.1:9/v1", ["a"], extra=f"on_finish: [{spec}]\n")
    refused = rig.batchgen("run", path, cwd=tmp_path, code=2)
    assert message in refused.stderr
    assert SECRET not in refused.stderr
    assert not (tmp_path / "batchgen.db").exists()
