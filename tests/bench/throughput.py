"""Make the same images by each client in turn: images a second, CPU, memory, first request."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Final, Protocol

from tests.bench.clients import Batchgen, Client, Curl, Task
from tests.bench.figures import Bench, Figure
from tests.bench.latency import latency
from tests.bench.measure import BOTH_CORES, CLIENT_CORE, TRACE, Failed, Usage, measure
from tests.bench.nginx import Nginx

_TIMEOUT_S: Final = 150.0
"""No client needs that long; one that hangs has failed."""
BASE: Final = "gather"
"""The client that ratios are to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One load, and what is to be reached; ratios are to the script of the same run."""

    name: str
    response: str
    size: str
    in_flight: int
    count: int
    quick: int
    latency_s: float = 0.0
    jitter_s: float = 0.0
    """Each request is delayed by up to as much more."""
    tls: bool = False
    cores: int = 1
    """Cores of the client."""
    on_disk: bool = False
    """Whether files are on a disk, where a sync is real."""
    sync_s: float = 0.0
    """How long each sync takes in addition."""
    least_rate: float | None = None
    """Minimum of images per second."""
    cpu_goal: tuple[float, float] | None = None
    """At most so much of the script's CPU an image; the second is what is really wanted."""
    rate_goal: float | None = None
    """Minimum rate as a multiple of the script's images per second."""
    share_goal: float | None = None
    """At least that share of the rate that latency allows."""
    peak_goal_mb: float | None = None


def _scenarios() -> Iterator[Scenario]:
    goals = {"20k": (0.25, 0.15), "1500k": (0.30, 0.22)}
    for response, size, count, quick in (
        ("url", "20k", 2_000, 500),
        ("url", "64k", 2_000, 500),
        ("url", "1500k", 300, 100),
        ("inline", "20k", 2_000, 500),
        ("inline", "64k", 1_500, 400),
        ("inline", "1500k", 300, 100),
    ):
        goal = (0.28, 0.22) if (response, size) == ("inline", "1500k") else goals.get(size)
        yield Scenario(
            name=f"{response}-{size}",
            response=response,
            size=size,
            in_flight=64,
            count=count,
            quick=quick,
            cpu_goal=goal,
            peak_goal_mb=90,
        )
    yield Scenario(name="url-12m", response="url", size="12m", in_flight=32, count=96, quick=40)
    yield Scenario(
        name="inline-12m",
        response="inline",
        size="12m",
        in_flight=32,
        count=96,
        quick=40,
        peak_goal_mb=130,
    )
    for in_flight in (1, 16, 256, 1_000):
        yield Scenario(
            name=f"url-20k-{in_flight}",
            response="url",
            size="20k",
            in_flight=in_flight,
            count=3_000 if in_flight > 1 else 1_000,
            quick=1_000 if in_flight > 1 else 200,
            peak_goal_mb=150 if in_flight == 1_000 else None,
        )
    yield Scenario(
        name="latency-64",
        response="url",
        size="64k",
        in_flight=64,
        latency_s=0.1,
        count=8_000,  # so that the start and the end of a run hardly count
        quick=600,
        share_goal=0.9,
        peak_goal_mb=90,
    )
    yield from _variants()
    yield Scenario(
        name="latency-1000",
        response="url",
        size="20k",
        in_flight=1_000,
        latency_s=1.0,
        count=20_000,
        quick=3_000,
        share_goal=0.85,
        peak_goal_mb=150,
    )


def _variants() -> Iterator[Scenario]:
    """Yield the small image over TLS, on two cores, on a disk, with slow syncs and with jitter."""
    plain = Scenario(
        name="", response="url", size="20k", in_flight=64, count=2_000, quick=500, peak_goal_mb=90
    )
    yield replace(plain, name="url-20k-tls", tls=True)
    yield replace(plain, name="url-20k-2cores", cores=2)
    yield replace(plain, name="url-20k-disk", on_disk=True)
    yield replace(plain, name="url-20k-sync", sync_s=0.005, count=1_000, quick=400, least_rate=400)
    yield replace(plain, name="jitter-64", size="64k", latency_s=0.1, jitter_s=0.1, share_goal=0.9)


SCENARIOS: Final = tuple(_scenarios())


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run of a client, net of its start-up where it is of CPU."""

    rate: float
    """Images a second, from the first request on."""
    cpu_ms: float
    """An image: the slope between a short and a long run."""
    switches: float
    """Context switches of an image, likewise."""
    peak_mb: float
    first_s: float | None
    """From the start of the process to its first request; None where it sends none."""


@dataclass(slots=True)
class Series:
    """The rounds of one client."""

    client: str
    rounds: list[Measured] = field(default_factory=list)
    failed: str | None = None


class _Server(Protocol):
    def mark(self) -> int: ...
    def bought_since(self, mark: int) -> list[float]: ...


def run(scenario: Scenario, clients: Sequence[Client], bench: Bench) -> list[Series]:
    """Measure all clients in turn, once a round."""
    nginx = bench.nginx
    everything = [Series(client=_label(scenario, client)) for client in clients]
    with _endpoint(scenario, nginx) as (server, base_url):
        task = Task(
            base_url=base_url,
            count=scenario.count,
            in_flight=scenario.in_flight,
            size=scenario.size,
            image_url=_image_url(scenario, nginx),
            ca_file=nginx.certificate if scenario.tls else None,
        )
        for _ in range(bench.rounds):
            for client, series in zip(clients, everything, strict=True):
                if series.failed is not None:
                    continue
                print(f"{scenario.name}: {client.name}", file=sys.stderr, flush=True)
                try:
                    series.rounds.append(_once(client, task, server, bench, scenario))
                except Failed as exc:
                    series.failed = str(exc)
                    print(exc, file=sys.stderr)
    return everything


def width(bench: Bench) -> Iterator[Figure]:
    """What more requests in flight cost batchgen, with the smallest of the usual images."""
    widths = (1, 16, 64, 256, 1_000)
    count = 1_000 if bench.quick else 3_000
    taken = dict[int, list[float]]()
    for _ in range(bench.rounds):
        for in_flight in widths:
            scenario = Scenario(
                name="width",
                response="url",
                size="20k",
                in_flight=in_flight,
                count=count,
                quick=count,
            )
            (series,) = run(scenario, [Batchgen(name="batchgen")], replace(bench, rounds=1))
            taken.setdefault(in_flight, []).append(series.rounds[0].cpu_ms)
    for in_flight in widths:
        what = f"CPU an image of 20 kB, {in_flight:,} in flight"
        yield Figure(what=what, value=median(taken[in_flight]), unit="ms")
    ratio = median(many / few for many, few in zip(taken[1_000], taken[16], strict=True))
    yield Figure(what="the same, 1,000 in flight to 16", value=ratio, unit="x", most=1.6)


def suits(scenario: Scenario, client: Client) -> bool:
    """Whether a client can do this at all."""
    if isinstance(client, Curl):
        return scenario.response == "url" and not scenario.latency_s and not scenario.tls
    return True


def _label(scenario: Scenario, client: Client) -> str:
    leaves_out = scenario.response == "url" and not client.downloads
    return f"{client.name} (no download)" if leaves_out else client.name


def _image_url(scenario: Scenario, nginx: Nginx) -> str | None:
    url = nginx.tls_url if scenario.tls else nginx.url
    return f"{url}/images/{scenario.size}.png" if scenario.response == "url" else None


@contextmanager
def _endpoint(scenario: Scenario, nginx: Nginx) -> Iterator[tuple[_Server, str]]:
    if not scenario.latency_s:
        tls = "-tls" if scenario.tls else ""
        name = f"{scenario.response}-{scenario.size}{tls}"
        yield nginx, nginx.base_url(name, nginx.tls_url if scenario.tls else nginx.url)
        return
    image = f"{nginx.url}/images/{scenario.size}.png"
    switches = ("--jitter", str(scenario.jitter_s))
    with latency(image, scenario.latency_s, *switches) as server:
        yield server, server.base_url


def _once(
    client: Client, task: Task, server: _Server, bench: Bench, scenario: Scenario
) -> Measured:
    """Run a fifth of the images first, so that the difference is without the start."""
    short = replace(task, count=max(1, task.count // 5))
    few, _ = _run(client, short, server, bench, scenario)
    many, bought = _run(client, task, server, bench, scenario)
    more = task.count - short.count
    began = bought[0] if bought else many.began_at
    return Measured(
        rate=task.count / (many.ended_at - began),
        cpu_ms=(many.cpu_s - few.cpu_s) / more * 1_000,
        switches=(many.switches - few.switches) / more,
        peak_mb=many.peak_mb,
        first_s=bought[0] - many.began_at if bought else None,
    )


def _run(
    client: Client, task: Task, server: _Server, bench: Bench, scenario: Scenario
) -> tuple[Usage, list[float]]:
    """Return what a run took, and when each of its requests came; none for curl."""
    directory = (bench.disk if scenario.on_disk else bench.work) / "run"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    mark = server.mark()
    usage = measure(
        [*_slow_syncs(scenario.sync_s), *client.command(task, directory)],
        cwd=directory,
        env=client.env(task),
        timeout_s=_TIMEOUT_S,
        cores=BOTH_CORES if scenario.cores > 1 else (CLIENT_CORE,),
    )
    bought = server.bought_since(mark)
    _check(client, task, directory, bench.nginx)
    shutil.rmtree(directory)
    if isinstance(client, Curl):
        return usage, []
    if len(bought) != task.count:
        raise Failed(f"{client.name} sent {len(bought)} requests for {task.count} images")
    return usage, bought


def _slow_syncs(seconds: float) -> list[str]:
    """Return the command that delays each sync of the command after it."""
    if not seconds:
        return []
    calls = "fsync,fdatasync"
    delay = f"inject={calls}:delay_exit={round(seconds * 1e6)}"
    return [*TRACE, "-o", "/dev/null", "-e", f"trace={calls}", "-e", delay]


def _check(client: Client, task: Task, directory: Path, nginx: Nginx) -> None:
    """All images must be there, byte by byte; that is what is compared."""
    if task.image_url is not None and not client.downloads:
        return
    right = nginx.image(task.size).read_bytes()
    files = sorted((directory / "out").rglob("*.png"))
    whole = sum(file.stat().st_size == len(right) for file in files)
    if whole != task.count or files[-1].read_bytes() != right:
        log = (directory / "client.log").read_text(errors="replace")[-2_000:]
        raise Failed(f"{client.name} made {whole} of {task.count} images\n{log}")


def middle(series: Series) -> Measured | None:
    """The medians of a client's rounds."""
    rounds = series.rounds
    if not rounds:
        return None
    first = [one.first_s for one in rounds if one.first_s is not None]
    return Measured(
        rate=median(one.rate for one in rounds),
        cpu_ms=median(one.cpu_ms for one in rounds),
        switches=median(one.switches for one in rounds),
        peak_mb=median(one.peak_mb for one in rounds),
        first_s=median(first) if first else None,
    )
