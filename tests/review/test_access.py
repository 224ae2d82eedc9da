"""Who reaches the review server: check 12 of its specification, without a browser."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.review.big import big_batch
from tests.review.browser import Server, review
from tests.support import canary

PATHS = [
    *("/api/batch", "/api/index", "/api/images?ids=1", "/api/images/1", "/api/basket"),
    *("/api/events", "/thumb/1/320", "/image/1", "/reference/1/0", "/api/related/1"),
    *("/api/run", "/api/comparison/rows", "/api/comparison/cells"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("access")
    big_batch(directory, 3)
    big_batch(directory, 2, name="other")
    (directory / "secret.txt").write_text("secret", encoding="utf-8")
    with review(directory) as served:
        yield served


@pytest.fixture(scope="module")
def cookie(server: Server) -> dict[str, str]:
    with httpx.Client(base_url=server.origin) as client:
        made = server.begin_session(client)
        header = made.headers["set-cookie"]
        assert "HttpOnly" in header
        assert "SameSite=strict" in header
        return dict(made.cookies)


def ask(
    server: Server, path: str, cookie: dict[str, str] | None = None, **headers: str
) -> httpx.Response:
    with httpx.Client(base_url=server.origin, cookies=cookie) as client:
        if path == "/api/events":
            with client.stream("GET", path, headers=headers) as response:
                return response
        return client.get(path, headers=headers)


@pytest.mark.parametrize("path", PATHS)
def test_check_12_nothing_without_the_cookie(server: Server, path: str) -> None:
    assert ask(server, path).status_code == 403
    wrong = {f"batchgen-{server.host.partition(':')[2]}": "x" * 22}
    assert ask(server, path, wrong).status_code == 403


@pytest.mark.parametrize("token", ["", "x", "x" * 22, None, 7, ["a"]])
def test_check_12_wrong_token_gets_no_cookie(server: Server, token: object) -> None:
    with httpx.Client(base_url=server.origin) as client:
        made = client.post("/api/session", json={"token": token}, headers={"Origin": server.origin})
    assert made.status_code == 403
    assert "set-cookie" not in made.headers


@pytest.mark.parametrize(
    "host", ["127.evil.com", "127.0.0.1.nip.io", "127.0.0.1:1", "localhost", "127.0.0.1", ""]
)
@pytest.mark.parametrize("path", ["/", "/static/base.css", "/api/batch"])
def test_check_12_other_hosts_are_refused(
    server: Server, cookie: dict[str, str], host: str, path: str
) -> None:
    port = server.host.partition(":")[2]
    for name in {host, f"{host}:{port}"} - {server.host}:
        assert ask(server, path, cookie, Host=name).status_code == 403


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "http://127.0.0.1:1"])
def test_check_12_foreign_origins_write_nothing(
    server: Server, cookie: dict[str, str], origin: str | None
) -> None:
    headers = {"Content-Type": "application/json"} | ({"Origin": origin} if origin else {})
    with httpx.Client(base_url=server.origin, cookies=cookie) as client:
        for path in ("/api/decisions", "/api/undo", "/api/session"):
            assert client.post(path, content=b"{}", headers=headers).status_code == 403
        form = {"Origin": server.origin, "Content-Type": "text/plain"}
        assert client.post("/api/undo", content=b"{}", headers=form).status_code == 403
        assert client.put("/api/undo", content=b"{}", headers=form).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/image/..%2f..%2fsecret.txt",
        "/image/4",  # of the other batch
        "/image/999999999999",
        "/image/-1",
        "/thumb/4/320",
        "/thumb/1/321",
        "/api/images/4",
        "/reference/1/0",
        "/reference/4/0",
    ],
)
def test_check_12_paths_and_other_batches_are_unknown(
    server: Server, cookie: dict[str, str], path: str
) -> None:
    # httpx would resolve ".." before it sends a path.
    client = http.client.HTTPConnection(server.host, timeout=60)
    try:
        client.request("GET", path, headers={"Cookie": "; ".join(map("=".join, cookie.items()))})
        found = client.getresponse()
        assert found.status == 404
        assert b"secret" not in found.read()
    finally:
        client.close()


def test_check_12_headers_shut_the_pages(server: Server, cookie: dict[str, str]) -> None:
    for path in (
        "/",
        "/run",
        "/compare",
        "/static/js/main.js",
        "/api/batch",
        "/image/1",
        "/nothing",
    ):
        found = ask(server, path, cookie)
        assert not canary.is_in(found.content)
        policy = found.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["cross-origin-resource-policy"] == "same-origin"
        assert found.headers["referrer-policy"] == "no-referrer"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
DECISION = st.fixed_dictionaries(
    {},
    optional={
        "image": st.sampled_from([1, 4, -1, 2**70, "1"]) | JSON,
        "sha256": st.text(max_size=70) | JSON,
        "decision": st.sampled_from(["accept", "redo", "clear", "drop"]) | JSON,
        "note": JSON,
        "prompt": JSON,
    },
)


@given(
    st.fixed_dictionaries(
        {}, optional={"action": JSON | st.just("a"), "decisions": st.lists(DECISION) | JSON}
    )
)
@settings(max_examples=60)
def test_odd_requests_are_refused_and_record_nothing(
    server: Server, cookie: dict[str, str], body: dict[str, object]
) -> None:
    with httpx.Client(base_url=server.origin, cookies=cookie) as client:
        found = client.post("/api/decisions", json=body, headers={"Origin": server.origin})
        assert found.status_code in (400, 409)
        assert client.get("/api/batch").json()["counts"]["undecided"] == 3
