"""URLs of the pages of the review server."""

from __future__ import annotations

from urllib.parse import urlsplit


def page_url(home: str, page: str, *, with_token: bool = True) -> str:
    """Return the URL of a page from that of the review page, whose fragment is the token."""
    parts = urlsplit(home)
    url = f"{parts.scheme}://{parts.netloc}/{page}"
    return f"{url}#{parts.fragment}" if with_token else url
