"""The local endpoint as a child process of a run: started on demand, ended with its parent."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from batchgen.errors import SettingsError

STATE_SUFFIX: Final = ".local"
"""Directory next to the ledger with the endpoint's own bill and the images it serves."""
_STOP_WITHIN_S: Final = 15.0


@contextmanager
def embedded_endpoint(ledger: Path, switches: Sequence[str] = ()) -> Iterator[str]:
    """Start the endpoint on a free loopback port and yield its base URL.

    It runs in its own process session, so that Ctrl-C does not reach it. It ends when its standard
    input closes, and so also after a SIGKILL of this process.
    """
    state = ledger.with_name(ledger.name + STATE_SUFFIX)
    command = [sys.executable, "-m", "batchgen.simulator", "--state", str(state)]
    with subprocess.Popen(
        [*command, "--stdin-lifeline", *switches],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else b""
            if not line:
                raise SettingsError(
                    f"the embedded endpoint did not start (exit code {process.wait()})"
                )
            yield json.loads(line)["base_url"]
        finally:
            if process.stdin:
                process.stdin.close()
            try:
                process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
