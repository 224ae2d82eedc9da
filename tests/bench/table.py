"""The figures as markdown.

A ratio is given twice: the median of the rounds, and that of the best rounds, which other programs
disturbed least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from tests.bench.throughput import BASE, Measured, Scenario, Series, middle

HEADER = (
    "| scenario | client | images/s | x script | best | CPU ms | of script | least | switches"
    " | peak MB | first request s | goal | reached |\n|" + "---|" * 13
)


def throughput(scenario: Scenario, everything: Sequence[Series]) -> list[str]:
    """A line a client."""
    base = next((series for series in everything if series.client == BASE), None)
    return [_line(scenario, series, base) for series in everything]


def _line(scenario: Scenario, series: Series, base: Series | None) -> str:
    found = middle(series)
    if found is None:
        return f"| {scenario.name} | {series.client} | failed |{' |' * 10}"
    rate = _ratio(series, base, lambda one: one.rate)
    cpu = _ratio(series, base, lambda one: one.cpu_ms)
    first = "" if found.first_s is None else f"{found.first_s:.2f}"
    goal, reached = "", ""
    if series.client == "batchgen":
        goal, reached = _judge(scenario, found, rate, cpu)
    cells = [
        scenario.name,
        series.client,
        f"{found.rate:,.0f}",
        _times(rate),
        _times(_of_best(series, base, lambda one: max(round.rate for round in one.rounds))),
        f"{found.cpu_ms:.2f}",
        _times(cpu),
        _times(_of_best(series, base, lambda one: min(round.cpu_ms for round in one.rounds))),
        f"{found.switches:.1f}",
        f"{found.peak_mb:,.0f}",
        first,
        goal,
        reached,
    ]
    return f"| {' | '.join(cells)} |"


def _ratio(
    series: Series, base: Series | None, figure: Callable[[Measured], float]
) -> float | None:
    """Round by round, since a shared machine is fast in one and slow in the next."""
    if base is None or not base.rounds:
        return None
    pairs = zip(series.rounds, base.rounds, strict=False)
    return median(figure(one) / figure(other) for one, other in pairs)


def _of_best(series: Series, base: Series | None, best: Callable[[Series], float]) -> float | None:
    """Return the ratio of the best rounds."""
    if base is None or not base.rounds:
        return None
    return best(series) / best(base)


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _judge(
    scenario: Scenario, found: Measured, rate: float | None, cpu: float | None
) -> tuple[str, str]:
    """The goals of a scenario, and which of them are reached."""
    goals, reached = [], []
    if scenario.cpu_goal is not None and cpu is not None:
        most, wanted = scenario.cpu_goal
        goals.append(f"CPU <= {most} ({wanted})")
        reached.append("stretch" if cpu <= wanted else _yes(cpu <= most))
    if scenario.rate_goal is not None and rate is not None:
        goals.append(f">= {scenario.rate_goal:g} x")
        reached.append(_yes(rate >= scenario.rate_goal))
    if scenario.least_rate is not None:
        goals.append(f">= {scenario.least_rate:g}/s")
        reached.append(_yes(found.rate >= scenario.least_rate))
    if scenario.latency_s:
        mean_s = scenario.latency_s + scenario.jitter_s / 2
        share = found.rate * mean_s / scenario.in_flight
        if scenario.share_goal is None:
            reached.append(f"{share:.0%} of ideal")
        else:
            goals.append(f">= {scenario.share_goal:.0%} of ideal")
            reached.append(f"{_yes(share >= scenario.share_goal)} ({share:.0%})")
    if scenario.peak_goal_mb is not None:
        goals.append(f"<= {scenario.peak_goal_mb:g} MB")
        reached.append(_yes(found.peak_mb <= scenario.peak_goal_mb))
    return ", ".join(goals), ", ".join(reached)


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"
