"""A real S3 server on loopback (moto), with a bucket for each test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from tests.support.rig import TIMEOUT_S

_PORT = re.compile(r"Running on http://127\.0\.0\.1:(\d+)")
_numbers = count(1)


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    endpoint: str
    pid: int = 0
    """Of its process; 0 for a proxy."""

    @property
    def env(self) -> dict[str, str]:
        """Environment variables that lead a process to the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
        }

    @property
    def options(self) -> dict[str, str]:
        """The same as options of obstore."""
        return {
            "aws_endpoint_url": self.endpoint,
            "aws_access_key_id": "testing",
            "aws_secret_access_key": "testing",
            "aws_region": "us-east-1",
        }

    def new_bucket(self) -> str:
        """Create a bucket and return its name."""
        name = f"bucket-{os.getpid()}-{next(_numbers)}"
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return name


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Start a server on a free port; stopped at the end."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := _PORT.search(line):
                    break
            else:
                raise AssertionError("the server has ended")
            # The log of requests would fill the pipe.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield S3Server(f"http://127.0.0.1:{found[1]}", process.pid)
        finally:
            process.kill()
            process.wait(TIMEOUT_S)
