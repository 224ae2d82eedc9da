"""The embedded endpoint's log: what the bill says, in new-api's shape, with each of its habits."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest

from batchgen.simulator.usage_log import LogHabits
from tests.support import rig

BEARER = {"Authorization": "Bearer token-of-these-tests", "New-Api-User": "7"}
JOBS = 12


def get(endpoint: rig.Endpoint, path: str, headers: Mapping[str, str] = BEARER) -> Any:
    url = endpoint.base_url.removesuffix("/v1") + path
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=rig.TIMEOUT_S
    ) as response:
        return json.load(response)


def rows(endpoint: rig.Endpoint, query: str = "") -> list[dict[str, Any]]:
    found = get(endpoint, f"/api/log/self?page_size=100{query}")
    assert found["success"]
    assert found["data"]["total"] == len(found["data"]["items"])
    items: list[dict[str, Any]] = found["data"]["items"]
    return items


SWITCHES = ("--fast-images", "--bill-drop", "0.3", "--seed", "3")


@pytest.fixture(scope="module", autouse=True)
def _charges(served: rig.Endpoint) -> None:
    """Bill twelve requests, and drop the responses of some."""
    for number in range(JOBS):
        body = json.dumps({"model": "gpt-image-2", "prompt": f"image {number}"}).encode()
        headers = {"Authorization": "Bearer sk-x", "Content-Type": "application/json"}
        url = f"{served.base_url}/images/generations"
        try:
            request = urllib.request.Request(url, data=body, headers=headers)
            with urllib.request.urlopen(request, timeout=rig.TIMEOUT_S) as response:
                response.read()
        except OSError:
            continue
    assert len(served.bill()) == JOBS


@pytest.fixture(autouse=True)
def _without_habits(served: rig.Endpoint) -> None:
    served.judge("log", vars_of(LogHabits()))


def vars_of(habits: LogHabits) -> dict[str, object]:
    return {name: getattr(habits, name) for name in LogHabits.__slots__}


def dropped(endpoint: rig.Endpoint) -> set[str]:
    found = {row["request_id"] for row in endpoint.bill() if row["status"] != 200}
    assert 0 < len(found) < JOBS
    return found


def ids(found: list[dict[str, Any]]) -> set[str]:
    return {row["other"]["request_id"] for row in found}


def test_the_log_is_the_bill_in_units_newest_first(served: rig.Endpoint) -> None:
    found = rows(served, "&type=2")
    charges = served.bill()
    assert [row["other"]["request_id"] for row in reversed(found)] == [
        charge["request_id"] for charge in charges
    ]
    assert {(row["quota"], row["model_name"], row["type"]) for row in found} == {
        (18_850, "gpt-image-2", 2)
    }
    assert [row["created_at"] for row in reversed(found)] == [
        int(charge["time"]) for charge in charges
    ]


def test_pages_cover_the_log_and_are_smaller_than_requested(served: rig.Endpoint) -> None:
    served.judge("log", {"page_cap": 5})
    pages = [
        get(served, f"/api/log/self?p={page}&page_size=100")["data"] for page in (0, 1, 2, 3, 4)
    ]
    assert [(page["page"], len(page["items"])) for page in pages] == [
        *((1, 5), (1, 5), (2, 5)),
        *((3, 2), (4, 0)),
    ]
    assert {page["total"] for page in pages} == {JOBS}
    assert len(ids([row for page in pages for row in page["items"]])) == JOBS


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("&start_timestamp={last}&end_timestamp={last}", None),
        ("&end_timestamp={before}", 0),
        ("&start_timestamp={after}", 0),
        ("&type=1", 0),
        ("&token_name=batch", JOBS),
        ("&token_name=another", 0),
    ],
)
def test_rows_are_chosen_by_time_kind_and_token(
    served: rig.Endpoint, query: str, count: int | None
) -> None:
    times = [int(charge["time"]) for charge in served.bill()]
    if count is None:
        count = times.count(times[-1])
    moments = {"last": times[-1], "before": times[0] - 1, "after": times[-1] + 1}
    assert len(rows(served, query.format(**moments))) == count


def test_units_and_balance_are_reported(served: rig.Endpoint) -> None:
    assert get(served, "/api/status", {})["data"]["quota_per_unit"] == 500_000
    user = get(served, "/api/user/self")["data"]
    assert (user["id"], user["used_quota"], user["request_count"]) == (7, JOBS * 18_850, JOBS)


@pytest.mark.parametrize("path", ["/api/log/self", "/api/user/self"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer t"}, 401),
        ({"Authorization": "Basic t", "New-Api-User": "7"}, 401),
        ({"Authorization": "Bearer sk-key", "New-Api-User": "7"}, 200),
    ],
)
def test_who_may_not_see_the_account_is_refused(
    served: rig.Endpoint, path: str, headers: dict[str, str], status: int
) -> None:
    if status == 200:
        document = get(served, path, headers)
    else:
        with pytest.raises(urllib.error.HTTPError, match=str(status)) as refused:
            get(served, path, headers)
        document = json.load(refused.value)
    assert document["success"] is False
    assert "data" not in document


def test_a_log_that_refuses_looks_empty_but_for_its_success(served: rig.Endpoint) -> None:
    served.judge("log", {"refuse": True})
    assert get(served, "/api/log/self") == {
        "success": False,
        "message": "无权进行此操作, access token 无效",
    }


def test_late_rows_appear_after_some_queries(served: rig.Endpoint) -> None:
    served.judge("log", {"late_queries": 2})
    assert ids(rows(served)) & dropped(served) == set()
    assert len(rows(served)) == JOBS - len(dropped(served))
    assert ids(rows(served)) > dropped(served)


def test_late_rows_appear_after_some_time_with_that_time_on_them(served: rig.Endpoint) -> None:
    served.judge("log", {"late_s": 3600})
    assert ids(rows(served)) & dropped(served) == set()
    charge = next(row for row in served.bill() if row["status"] != 200)
    served.judge("log", {"late_s": 0.001})
    late = {row["other"]["request_id"]: row["created_at"] for row in rows(served)}
    assert late[charge["request_id"]] == int(charge["time"] + 0.001)


def test_double_foreign_and_dearer_rows(served: rig.Endpoint) -> None:
    served.judge("log", {"double": True, "foreign": 2, "drift_percent": 2})
    found = rows(served)
    billed = {charge["request_id"] for charge in served.bill()}
    ours = [row for row in found if row["other"]["request_id"] in billed]
    assert len(ours) == 2 * JOBS
    assert {row["quota"] for row in ours} == {19_227}
    assert len(found) == 2 * JOBS + 2
    assert len(ids(found) - billed) == 2


@pytest.mark.parametrize(
    "document",
    [
        {"lates": 1},
        {"double": 1},
        {"foreign": -1},
        {"late_s": "1"},
        {"page_cap": 1.5},
        {"late_s": -0.1},
    ],
)
def test_a_habit_that_makes_no_sense_is_refused(
    served: rig.Endpoint, document: dict[str, object]
) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        served.judge("log", document)
