"""Tests of the optional extras; each skips and says how to get what it lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.storage.object_store import ObjectStore
from tests.support import rig
from tests.support.bucket_shop import Shop
from tests.support.old_store import Behavior, s3_proxy
from tests.support.s3 import S3Server, s3_server

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """Serve S3 for all tests of a module."""
    with s3_server() as server:
        yield server


@pytest.fixture
def shop(served: rig.Endpoint, s3: S3Server, tmp_path: Path) -> Shop:
    """A batch whose images go to a bucket."""
    root = f"s3://{s3.new_bucket()}/out"
    store = ObjectStore(root, s3.options)
    return Shop(tmp_path, served, s3, root, store, s3.env, len(served.bill()))


@pytest.fixture
def behavior() -> Behavior:
    """Return what the proxy in front of the server does; a test changes it."""
    return Behavior()


@pytest.fixture
def proxied(shop: Shop, behavior: Behavior) -> Iterator[Shop]:
    """A batch whose requests to the bucket pass a proxy."""
    with s3_proxy(shop.server.endpoint, behavior) as endpoint:
        shop.env = {**shop.env, "AWS_ENDPOINT_URL": endpoint}
        yield shop
