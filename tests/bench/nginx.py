"""Debian's nginx as an endpoint whose responses cost the server nothing: each is a file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.measure import SERVER_CORE, free_port, on_core
from tests.support import wire

_START_WITHIN_S: Final = 10
_LOG_FLUSH_S: Final = 0.1
_CONFIGURATION: Final = """
daemon off;
{user}
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
worker_processes 1;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
  types {{ image/png png; application/json json; }}
  default_type application/json;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  keepalive_timeout 1h;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  client_body_buffer_size 64k;
  open_file_cache max=100 inactive=1h;
  open_file_cache_valid 1h;
  map $request $bought {{ ~^POST 1; default 0; }}
  log_format bought '$msec $request_time';
  access_log {directory}/bought.log bought if=$bought buffer=64k flush=100ms;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    listen 127.0.0.1:{tls_port} ssl backlog=4096;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_session_cache shared:tls:1m;
    root {directory}/files;
    location ~ ^/(?<response>[a-z0-9-]+)/v1/images/generations$ {{
      # nginx returns no file for a POST, but it does as the page of that error.
      error_page 405 =200 /responses/$response.json;
      return 405;
    }}
    location / {{ }}
  }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    url: str
    tls_url: str
    certificate: Path
    directory: Path

    def base_url(self, response: str, url: str | None = None) -> str:
        """Return where every request gets the response ``url-64k``, ``inline-12m`` and so on."""
        return f"{url or self.url}/{response}/v1"

    def image(self, size: str) -> Path:
        """The file that all responses of a size name or contain."""
        return self.directory / "files" / "images" / f"{size}.png"

    def mark(self) -> int:
        """Where the log of bought images ends now."""
        time.sleep(2 * _LOG_FLUSH_S)
        return (self.directory / "bought.log").stat().st_size

    def bought_since(self, mark: int) -> list[float]:
        """When each request came, in seconds since 1970, of those that ended since the mark."""
        time.sleep(2 * _LOG_FLUSH_S)
        with (self.directory / "bought.log").open() as log:
            log.seek(mark)
            return sorted(float(end) - float(took) for end, took in map(str.split, log))


def installed() -> str:
    """nginx's program; installed with apt-get where it is missing and may be."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None and os.geteuid() == 0:
        command = ["apt-get", "install", "-y", "--no-install-recommends", "nginx-light"]
        # Debian would start one of its own on port 80.
        environment = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
        found = shutil.which("nginx", path="/usr/sbin")
    if found is None:
        raise SystemExit("nginx is missing: apt-get install nginx-light")
    return found


@contextmanager
def nginx(directory: Path) -> Iterator[Nginx]:
    """Start nginx on a high port, with images of all sizes; stopped at the end."""
    program, port = installed(), free_port()
    url, tls_port = f"http://127.0.0.1:{port}", free_port()
    tls_url = f"https://localhost:{tls_port}"
    directory.mkdir()
    made = wire.certificate(directory, "DNS:localhost")
    images = ["-m", "tests.bench.images", str(directory / "files"), url, tls_url]
    subprocess.run([sys.executable, *images], check=True)
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = directory / "nginx.conf"
    values = {"port": port, "tls_port": tls_port, "certificate": made.file, "key": made.key}
    configuration.write_text(_CONFIGURATION.format(directory=directory, user=user, **values))
    with subprocess.Popen(
        [program, "-p", directory, "-c", configuration, "-e", directory / "error.log"],
        preexec_fn=on_core(SERVER_CORE),
    ) as process:
        try:
            _wait_until_up(f"{url}/images/tiny.png")
            yield Nginx(url, tls_url, made.file, directory)
        finally:
            process.terminate()
            process.wait(20)


def _wait_until_up(url: str) -> None:
    give_up = time.monotonic() + _START_WITHIN_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError as exc:
            if time.monotonic() > give_up:
                raise SystemExit(f"nginx did not start: {exc}") from exc
            time.sleep(0.05)
