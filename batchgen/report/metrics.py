"""Format batches as OpenMetrics text, for the textfile collector of node_exporter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from batchgen.ledger.batch_status import BatchStatus
from batchgen.money import decimal_string

_GAUGES = (
    ("batchgen_jobs", "Jobs by state, except jobs that left the manifest."),
    ("batchgen_images", "Images on disk."),
    ("batchgen_images_unpublished", "Images on disk that are not published, by decision."),
    ("batchgen_dollars", "Costs: estimated, charged, and possibly charged (maybe)."),
    ("batchgen_last_run_started_seconds", "Start of the newest run, in Unix time."),
    ("batchgen_last_run_ended_seconds", "End of the newest run, in Unix time."),
    ("batchgen_last_run_exit_code", "Exit code of the newest run."),
)


def metrics_text(found: Sequence[BatchStatus]) -> str:
    """Return metrics in the text format of OpenMetrics 1.0; a killed run has no end.

    https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
    """
    lines: list[str] = []
    for name, meaning in _GAUGES:
        lines += [f"# TYPE {name} gauge", f"# HELP {name} {meaning}"]
        for status in found:
            labels = f'batch="{_escaped(status.batch)}",provider="{_escaped(status.provider)}"'
            lines += [f"{name}{{{labels}{more}}} {value}" for more, value in _samples(name, status)]
    return "\n".join([*lines, "# EOF", ""])


def _samples(name: str, status: BatchStatus) -> Iterable[tuple[str, str]]:
    run = status.last_run
    match name:
        case "batchgen_jobs":
            return _by("state", {state: str(n) for state, n in status.shown_jobs.items()})
        case "batchgen_images":
            return [("", str(status.images_saved))]
        case "batchgen_images_unpublished":
            counts = status.unpublished.as_json()
            return _by("decision", {name: str(count) for name, count in counts.items()})
        case "batchgen_dollars":
            amounts = {
                "estimated": status.estimated,
                "charged": status.charged,
                "maybe": status.maybe,
            }
            return _by("kind", {kind: decimal_string(value) for kind, value in amounts.items()})
        case "batchgen_last_run_started_seconds" if run is not None:
            return [("", _seconds(run.started_at))]
        case "batchgen_last_run_ended_seconds" if run is not None and run.ended_at is not None:
            return [("", _seconds(run.ended_at))]
        case "batchgen_last_run_exit_code" if run is not None and run.exit_code is not None:
            return [("", str(run.exit_code))]
    return []


def _by(label: str, values: dict[str, str]) -> Iterator[tuple[str, str]]:
    return ((f',{label}="{name}"', value) for name, value in values.items())


def _seconds(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).timestamp():.3f}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
