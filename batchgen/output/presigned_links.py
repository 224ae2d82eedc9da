"""Links to images in buckets that work for anyone, for a limited time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final

from batchgen.errors import SettingsError
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.storage.object_store import ObjectStore
from batchgen.storage.stores import Stores

_LIFETIME: Final = re.compile(r"(?P<number>[0-9]{1,5})(?P<unit>[mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
MAX_LIFETIME: Final = timedelta(days=7)
"""Of S3 and Google Cloud Storage; see
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html."""
_SIGNED_STATES: Final = ("saved", "unpublished")


def parse_lifetime(text: str) -> timedelta:
    """Parse a lifetime like ``30m``, ``24h`` or ``7d``. Raises ValueError."""
    found = _LIFETIME.fullmatch(text.strip())
    lifetime = timedelta(0)
    if found is not None:
        lifetime = timedelta(**{_UNITS[found["unit"]]: int(found["number"])})
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise ValueError(f"not a lifetime: {text!r}; expected one like 30m, 24h or 7d, at most 7d")
    return lifetime


@dataclass(slots=True)
class Links:
    """The links of one command, which all end at the same time."""

    stores: Stores
    lifetime: timedelta
    until: datetime
    made: int = 0

    @classmethod
    def lasting(cls, stores: Stores, lifetime: timedelta) -> Links:
        """Return links that begin to count now."""
        return cls(stores, lifetime, utc_now() + lifetime)

    def notice(self, what: str) -> str:
        """Return what a person must know who passes on the links made so far."""
        if not self.made:
            return "no image is in a bucket, so no link was made"
        return (
            f"{what} works until {self.end}, for anyone who has it; shorter if the credentials that"
            " signed it end before"
        )

    @property
    def end(self) -> str:
        """The end to the minute, as text."""
        return f"{self.until:%Y-%m-%d %H:%M} UTC"

    columns: ClassVar[tuple[str, str]] = ("presigned_url", "presigned_until")
    """Added to each row of an image."""

    def added_to(self, rows: Iterator[dict[str, object]]) -> Iterator[dict[str, object]]:
        """Yield rows of images with two more columns; None for images that have no link.

        Raises SettingsError.
        """
        for row in rows:
            url = None
            if row["url"] is not None and row["state"] in _SIGNED_STATES:
                url = self.url(str(row["root"]), str(row["path"]))
            until = None if url is None else timestamp(self.until)
            yield {**row, "presigned_url": url, "presigned_until": until}

    def url(self, root: str, path: str) -> str:
        """Return the link to an object. Raises SettingsError."""
        store = self.stores.of(root)
        assert isinstance(store, ObjectStore)
        try:
            url = store.presigned(path, self.lifetime)
        except OSError as exc:
            raise SettingsError(f"{root}: --presigned: {exc.strerror or exc}") from exc
        self.made += 1
        return url
