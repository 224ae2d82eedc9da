"""Tests of the optional extras; each skips and says how to get what it lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.s3 import S3Server, s3_server

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """Serve S3 for all tests of a module."""
    with s3_server() as server:
        yield server
