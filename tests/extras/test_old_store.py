"""Runs against s3rver, a real server for S3 that ignores If-None-Match."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from batchgen.storage.object_store import ObjectStore
from tests.support import rig
from tests.support.bucket_shop import Shop
from tests.support.extras import require
from tests.support.s3 import S3Server

require("obstore")

PROGRAM = shutil.which("s3rver")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="needs s3rver on the path: npm install --global s3rver@3.7.1"
)
BUCKET = "shop"
_ENDPOINT = re.compile(r"listening on (127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class S3rver(S3Server):
    """A running s3rver, which knows one key."""

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, "AWS_ACCESS_KEY_ID": "S3RVER", "AWS_SECRET_ACCESS_KEY": "S3RVER"}

    @property
    def options(self) -> dict[str, str]:
        keys = {"aws_access_key_id": "S3RVER", "aws_secret_access_key": "S3RVER"}
        return {**super().options, **keys}


@pytest.fixture
def old_shop(served: rig.Endpoint, tmp_path: Path) -> Iterator[Shop]:
    """A batch whose images go to a bucket of s3rver."""
    assert PROGRAM is not None
    command = [PROGRAM, "-d", str(tmp_path / "s3"), "-a", "127.0.0.1", "-p", "0"]
    command += ["--no-vhost-buckets", "--configure-bucket", BUCKET]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            lines = map(_ENDPOINT.search, process.stdout)
            found = next(line for line in lines if line is not None)
            # The log of requests would fill the pipe.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            server, root = S3rver(f"http://{found[1]}", process.pid), f"s3://{BUCKET}/out"
            store, directory = ObjectStore(root, server.options), tmp_path / "batch"
            directory.mkdir()
            yield Shop(directory, served, server, root, store, server.env, len(served.bill()))
        finally:
            process.kill()


@pytest.mark.parametrize("options", [(), ("--on", "ray")], ids=["one-process", "cluster"])
def test_store_that_ignores_conditions_costs_nothing(
    options: tuple[str, ...], old_shop: Shop
) -> None:
    old_shop.write("one", "two")
    shown = old_shop.run(*options, code=2)
    assert "ignores conditional writes (If-None-Match)" in shown
    assert len([line for line in shown.splitlines() if "conditional writes" in line]) == 1
    assert old_shop.bill == 0
    assert not (old_shop.directory / "batchgen.db").exists()
    assert old_shop.objects() == {}


def test_single_writer_may_use_a_store_that_ignores_conditions(old_shop: Shop) -> None:
    old_shop.write("one", "two", extra="storage: {single_writer: true}\n")
    old_shop.run()
    old_shop.judge(2)
    assert old_shop.bill == 2
    assert "ignores conditional writes" in old_shop.run("--on", "ray", code=2)
