"""The key goes to the origin of the base URL only, however a polling URL is written."""

from __future__ import annotations

from typing import cast

import pytest

from batchgen.engine.video_tasks import TaskDone, TaskPoller, TaskUnresolved
from batchgen.http.client import ApiClient, Document
from batchgen.http.network import key_origin
from batchgen.outcomes.classify import Response
from batchgen.outcomes.exchange import Task
from batchgen.providers.adapters.tasks import followed

BASE = "https://api.example/v1"

OURS = (
    "https://api.example/t/1",
    "https://api.example:443/t/1",
    "HTTPS://API.example/t/1",
)
OTHERS = (
    "http://api.example/t/1",
    "https://api.example:8443/t/1",
    "https://other.example/t/1",
    "https://user@api.example/t/1",
    "https://user:pass@api.example/t/1",
    "https://@api.example/t/1",
    "https://api.example@other.example/t/1",
    "https://api.example\\@other.example/t/1",
    "https://api.example.:443/t/1",
    "https://api.example:x/t/1",
    "https://api.example\t/t/1",
    "https://[::/t/1",
    "data:,1",
)


DONE = Document(status=200, body=b'{"status": "done", "url": "https://cdn.example/1.png"}')


class Client:
    """Notes the URLs that are requested with the key."""

    def __init__(self, reply: Document = DONE) -> None:
        self.urls: list[str] = []
        self._reply = reply

    async def fetch_document(self, url: str) -> Document:
        self.urls.append(url)
        return self._reply


async def pause(seconds: float) -> bool:
    del seconds
    return False


async def unlimited(seconds: float) -> bool:
    del seconds
    return True


@pytest.mark.parametrize("url", OURS)
@pytest.mark.parametrize("base", [BASE, "https://api.example:443/v1"])
@pytest.mark.anyio
async def test_task_at_our_origin_is_polled(url: str, base: str) -> None:
    (image,) = followed(Response(task=Task(id="1", url=url)), base).images
    assert image.task is not None
    client = Client()
    poller = TaskPoller(cast("ApiClient", client), base, pause=pause)
    assert isinstance(await poller.poll_until_done(image.task), TaskDone)
    assert len(client.urls) == 1


@pytest.mark.anyio
async def test_id_that_is_not_in_the_url_is_reported() -> None:
    (image,) = followed(Response(task=Task(id="job 7", url="/t/1")), BASE).images
    client = Client(Document(status=404, body=b"404: Not Found"))
    poller = TaskPoller(cast("ApiClient", client), BASE, pause=unlimited)
    found = await poller.poll_until_done(image.task or "")
    assert set(client.urls) == {"https://api.example/t/1"}
    assert found == TaskUnresolved(
        "job 7, polled at https://api.example/t/1: HTTP 404: a body that is not JSON:"
        " 404: Not Found",
        unknown=True,
    )


@pytest.mark.parametrize("url", OTHERS)
@pytest.mark.anyio
async def test_key_is_never_sent_to_another_origin(url: str) -> None:
    assert followed(Response(task=Task(id="1", url=url)), BASE).images == ()
    client = Client()
    poller = TaskPoller(cast("ApiClient", client), BASE, pause=pause)
    found = await poller.poll_until_done(url)
    assert isinstance(found, TaskUnresolved)
    assert "pass" not in found.reason
    assert client.urls == []


def test_origin_is_shown_without_its_default_port() -> None:
    assert str(key_origin("https://api.example:443/v1?sig=1")) == "https://api.example"
    assert str(key_origin("http://[::1]:8080/v1")) == "http://[::1]:8080"
