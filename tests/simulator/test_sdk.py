"""The official `openai` SDK against `batchgen serve`: what works with one works with the other."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest
from PIL import Image

from tests.support import rig

MODEL = "gpt-image-2"
SIZE = "1024x640"


SWITCHES = ()


@pytest.fixture(scope="module")
def client(served: rig.Endpoint) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key="sk-test", max_retries=0) as made:
        yield made


def png(mode: str = "RGB", side: int = 96) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def test_it_generates(client: openai.OpenAI) -> None:
    response = client.images.generate(
        model=MODEL, prompt="A mug", size=SIZE, quality="high", output_format="jpeg", n=2
    )
    assert (response.size, response.quality, response.output_format) == (SIZE, "high", "jpeg")
    urls = [item.url or "" for item in response.data or []]
    assert len(set(urls)) == 2
    for url in urls:
        image = opened(httpx.get(url).content)
        assert (image.format, image.size) == ("JPEG", (1024, 640))


def test_it_takes_images_inside_the_response(tuned: rig.Endpoint, client: openai.OpenAI) -> None:
    tuned.judge("faults", {"response": "b64_json"})
    response = client.images.generate(model=MODEL, prompt="A mug", size=SIZE)
    (item,) = response.data or []
    assert opened(base64.b64decode(item.b64_json or "")).size == (1024, 640)


def test_it_edits_several_references_with_a_mask(
    served: rig.Endpoint, client: openai.OpenAI
) -> None:
    response = client.images.edit(
        model=MODEL,
        prompt="put both on a table",
        image=[("a.png", png()), ("b.png", png())],
        mask=("mask.png", png("RGBA")),
        size="1024x1024",
        output_format="webp",
    )
    (item,) = response.data or []
    assert opened(httpx.get(item.url or "").content).format == "WEBP"
    assert served.bill()[-1]["prompt"] == "put both on a table"


def test_it_streams_partial_images(tuned: rig.Endpoint, client: openai.OpenAI) -> None:
    tuned.judge("faults", {"response": "b64_json"})
    before = len(tuned.bill())
    with client.images.generate(
        model=MODEL, prompt="A mug", size=SIZE, stream=True, partial_images=2
    ) as stream:
        events = list(stream)
    first, second, last = events
    assert first.type == second.type == "image_generation.partial_image"
    assert (first.partial_image_index, second.partial_image_index) == (0, 1)
    assert last.type == "image_generation.completed"
    assert last.usage.output_tokens > 200
    assert last.usage.total_tokens == last.usage.input_tokens + last.usage.output_tokens
    for event in events:
        assert opened(base64.b64decode(event.b64_json)).size == (1024, 640)
    assert len(tuned.bill()) == before + 1


def test_it_streams_edits(tuned: rig.Endpoint, client: openai.OpenAI) -> None:
    tuned.judge("faults", {"response": "b64_json"})
    with client.images.edit(
        model=MODEL,
        prompt="on a table",
        image=[("a.png", png()), ("b.png", png())],
        mask=("mask.png", png("RGBA")),
        stream=True,
        partial_images=1,
    ) as stream:
        partial, last = list(stream)
    assert partial.type == "image_edit.partial_image"
    assert last.type == "image_edit.completed"
    assert last.usage.input_tokens_details.image_tokens > 0
    assert opened(base64.b64decode(last.b64_json)).size == (1024, 1024)


@pytest.mark.anyio
async def test_it_streams_asynchronously(served: rig.Endpoint) -> None:
    async with openai.AsyncOpenAI(
        base_url=served.base_url, api_key="sk-test", max_retries=0
    ) as client:
        stream = await client.images.generate(
            model=MODEL, prompt="A mug", size=SIZE, stream=True, partial_images=1
        )
        types = [event.type async for event in stream]
    assert types == ["image_generation.partial_image", "image_generation.completed"]


def test_it_raises_for_an_error_in_mid_stream(tuned: rig.Endpoint, client: openai.OpenAI) -> None:
    tuned.judge("faults", {"stream-error": 1})
    with client.images.generate(
        model=MODEL, prompt="A mug", size=SIZE, stream=True, partial_images=1
    ) as stream:
        assert next(stream).type == "image_generation.partial_image"
        with pytest.raises(openai.APIError) as raised:
            next(stream)
    assert raised.value.code == "image_generation_failed"
    assert raised.value.type == "image_generation_server_error"


def test_it_raises_for_a_stream_that_is_cut(tuned: rig.Endpoint, client: openai.OpenAI) -> None:
    tuned.judge("faults", {"bill-stream-cut": 1})
    with (
        pytest.raises(openai.APIConnectionError),
        client.images.generate(model=MODEL, prompt="A mug", size=SIZE, stream=True) as stream,
    ):
        list(stream)


def test_it_lists_models(client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert models[MODEL].object == "model"


FAULTS: list[tuple[str, type[openai.APIStatusError], int]] = [
    ("refuse", openai.BadRequestError, 400),
    ("throttle", openai.RateLimitError, 429),
    ("error", openai.InternalServerError, 500),
    ("overload", openai.InternalServerError, 503),
    ("bill-error", openai.InternalServerError, 500),
    ("bill-gateway-timeout", openai.InternalServerError, 504),
]


@pytest.mark.parametrize(("fault", "error", "status"), FAULTS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_raises_the_error_of_its_status(
    stream: bool,
    fault: str,
    error: type[openai.APIStatusError],
    status: int,
    tuned: rig.Endpoint,
    client: openai.OpenAI,
) -> None:
    tuned.judge("faults", {fault: 1})
    with pytest.raises(error) as raised:
        client.images.generate(model=MODEL, prompt="A mug", size=SIZE, stream=stream)
    assert raised.value.status_code == status


BAD: list[tuple[Callable[[openai.OpenAI], object], str, str]] = [
    (
        lambda c: c.images.generate(model=MODEL, prompt="x", size="1920x1080"),
        "invalid_value",
        "size",
    ),
    (
        lambda c: c.images.generate(model=MODEL, prompt="x", response_format="b64_json"),
        "unknown_parameter",
        "response_format",
    ),
    (
        lambda c: c.images.generate(model=MODEL, prompt="a forbidden-word"),
        "moderation_blocked",
        "",
    ),
    (
        lambda c: c.images.edit(model=MODEL, prompt="x", image=("a.png", b"no image")),
        "invalid_image_file",
        "image",
    ),
]


@pytest.mark.parametrize(("ask", "code", "param"), BAD)
def test_a_bad_request_says_what_is_wrong(
    ask: Callable[[openai.OpenAI], object], code: str, param: str, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client)
    assert (raised.value.code, raised.value.param) == (code, param)
    assert raised.value.type == "image_generation_user_error"


def test_a_wrong_key_raises_an_authentication_error(served: rig.Endpoint) -> None:
    with openai.OpenAI(base_url=served.base_url, api_key="wrong", max_retries=0) as foreign:
        with pytest.raises(openai.AuthenticationError) as raised:
            foreign.images.generate(model=MODEL, prompt="A mug")
        with pytest.raises(openai.AuthenticationError):
            foreign.models.list()
    assert raised.value.type == "new_api_error"


def test_no_money_raises_permission_denied(tmp_path_factory: pytest.TempPathFactory) -> None:
    state = tmp_path_factory.mktemp("poor")
    with (
        rig.endpoint(state, "--balance", "0.01") as poor,
        openai.OpenAI(base_url=poor.base_url, api_key="sk-test", max_retries=0) as client,
    ):
        with pytest.raises(openai.PermissionDeniedError) as raised:
            client.images.generate(model=MODEL, prompt="A mug", stream=True)
        assert raised.value.code == "insufficient_user_quota"
        assert poor.bill() == []


def test_a_doubled_path_raises_not_found(served: rig.Endpoint) -> None:
    with (
        openai.OpenAI(base_url=f"{served.base_url}/v1", api_key="sk-test", max_retries=0) as lost,
        pytest.raises(openai.NotFoundError),
    ):
        lost.images.generate(model=MODEL, prompt="A mug")


def test_unknown_model_raises_a_server_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        client.images.generate(model="nobodys", prompt="A mug")
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize("fault", ["break", "bill-drop"])
def test_a_lost_connection_raises_a_connection_error(
    fault: str, tuned: rig.Endpoint, client: openai.OpenAI
) -> None:
    tuned.judge("faults", {fault: 1})
    with pytest.raises(openai.APIConnectionError):
        client.images.generate(model=MODEL, prompt="A mug", size=SIZE)


def test_a_client_that_waits_too_short_times_out_and_is_billed(
    tuned: rig.Endpoint, client: openai.OpenAI
) -> None:
    tuned.judge("faults", {"latency": 0.5})
    before = len(tuned.bill())
    with pytest.raises(openai.APITimeoutError):
        client.images.generate(model=MODEL, prompt="A mug", size=SIZE, timeout=0.1)
    tuned.wait_until_idle()
    assert len(tuned.bill()) == before + 1
