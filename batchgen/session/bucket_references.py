"""Fetch reference images from buckets into files named by content; unchanged ones stay."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from batchgen.http.download import MAX_IMAGE_BYTES
from batchgen.images.formats import BadImage
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.reference_urls import FetchedUrl
from batchgen.planning.reference_images import read_content
from batchgen.storage.stores import Stores
from batchgen.system.atomic_files import PRIVATE_FILE, rename_durably
from batchgen.system.file_sync import sync_file
from batchgen.urls import split_object_url


def fetch_object(
    stores: Stores, url: str, known: FetchedUrl | None, part: Path
) -> FetchedUrl | str:
    """Fetch an object unless it has the tag that is known; return why it failed.

    ``part`` is a temporary file in the directory of the copies. Blocks. Raises OSError for the
    disk, and SettingsError if the bucket cannot be opened.
    """
    root, name = split_object_url(url)
    store = stores.of(root)
    try:
        info = store.info(name)
        if info is None:
            return "no such object"
        if known is not None and known.etag and info.e_tag == known.etag:
            return replace(known, fetched_at=timestamp(utc_now()))
        if info.bytes > MAX_IMAGE_BYTES:
            return f"larger than {MAX_IMAGE_BYTES >> 20} MiB"
        data = store.read(name)
    except OSError as exc:
        return exc.strerror or str(exc)
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            sync_file(file.fileno())
        content = read_content(part)
        found = FetchedUrl(
            url=url,
            sha256=content.sha256,
            format=content.image.format,
            etag=info.e_tag or None,
            last_modified=None,
            fetched_at=timestamp(utc_now()),
        )
        rename_durably(part, part.with_name(found.file_name))
    except BadImage as exc:
        return f"no reference image: {exc}"
    finally:
        part.unlink(missing_ok=True)
    return found
