"""URLs of images as gateways write them, relative to the request."""

from __future__ import annotations

import pytest

from batchgen.urls import absolute_url, image_urls

BASE = "https://gateway.example/api/v1"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("/files/x.png", "https://gateway.example/files/x.png"),
        ("files/x.png?a=1", "https://gateway.example/api/v1/images/files/x.png?a=1"),
        ("../files/x.png", "https://gateway.example/api/v1/files/x.png"),
        ("//cdn.example/x.png", "https://cdn.example/x.png"),
        ("?id=7", "https://gateway.example/api/v1/images/generations?id=7"),
    ],
)
def test_a_relative_url_is_relative_to_the_request(url: str, found: str) -> None:
    assert absolute_url(url, BASE) == found


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.example/a/../b%2fc?sig=%20+'|#x",
        "HTTP://CDN.example",
        "data:image/png;base64,AAAA",
        "http://[::",
        "//[::",
    ],
)
def test_an_absolute_url_stays_unchanged(url: str) -> None:
    assert absolute_url(url, BASE) == url


@pytest.mark.parametrize(
    ("url", "others"),
    [
        (
            "files/x.png",
            ["https://gateway.example/api/v1/files/x.png", "https://gateway.example/files/x.png"],
        ),
        (
            "https://gateway.example/api/v1/images/x.png",
            ["https://gateway.example/api/v1/x.png", "https://gateway.example/x.png"],
        ),
        (
            "cdn.example/x.png",
            [
                "https://gateway.example/api/v1/cdn.example/x.png",
                "https://gateway.example/cdn.example/x.png",
                "https://cdn.example/x.png",
            ],
        ),
        ("/files/x.png", []),
        ("https://cdn.example/x.png", []),
        ("../files/x.png", []),
    ],
)
def test_relative_url_may_mean_several_places(url: str, others: list[str]) -> None:
    first, *found = image_urls(url, BASE)
    assert first == absolute_url(url, BASE)
    assert found == others
