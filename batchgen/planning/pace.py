"""How long requests will take, from the limits of a run and the answers so far. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast requests may leave, and how long they have taken so far."""

    concurrency: int
    per_minute: float | None
    """Requests a minute at most; None without such a limit."""
    latency_s: float | None
    """Of the last answers; None while nobody has answered."""
    measured_per_minute: float | None = None
    """Images a minute in the last run of the batch; None where it says too little."""

    def expected_s(self, requests: int) -> float | None:
        """How long so many requests will take; None where nothing is known of it."""
        by_rate_s = requests * 60 / self.per_minute if self.per_minute else None
        if self.measured_per_minute:
            return max(requests * 60 / self.measured_per_minute, by_rate_s or 0.0)
        if self.latency_s is None:
            return by_rate_s
        rounds = -(-requests // self.concurrency)
        return max(rounds * self.latency_s, by_rate_s or 0.0)
