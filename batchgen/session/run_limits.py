"""The limits of one run, resolved once from flags, manifest and defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from batchgen.engine.guard_rules import GuardLimits
from batchgen.engine.redelivery import DOWNLOAD_WAIT_S
from batchgen.engine.throttle.limits import DispatchLimits
from batchgen.engine.video_tasks import POLL_S
from batchgen.errors import SettingsError
from batchgen.manifest.model import Limits as ManifestLimits
from batchgen.money import Micros, parse_dollars
from batchgen.outcomes.retry_policy import Waste, parse_waste
from batchgen.session.overrides import Overrides

DEFAULT_CONCURRENCY: Final = 8
DEFAULT_DOWNLOADS: Final = 8
DEFAULT_DEADLINE_S: Final = 300.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """How fast, how long and for how much one run works."""

    concurrency: int
    """Requests in flight."""
    downloads: int
    """Downloads at the same time."""
    deadline_s: float
    """Seconds that one request may take."""
    grace_s: float
    """Seconds that requests in flight get to finish after a signal."""
    poll_s: float
    """Seconds between two status requests for a video."""
    download_wait_s: float
    """Seconds to retry failed downloads after all other work is done."""
    jobs: int | None
    """Pending jobs to take up; None for all."""
    max_cost: Micros | None
    """Budget of the run; None for no limit."""
    max_waste: Waste | None
    """Allowance for rebuying; None if neither flag nor manifest sets it."""
    until: datetime | None
    """Time after which no request starts; None for no limit."""
    throttle: DispatchLimits
    guard: GuardLimits

    @classmethod
    def resolve(cls, manifest: ManifestLimits, flags: Overrides, now: datetime) -> RunLimits:
        """Merge flags over the manifest over the defaults. Raises SettingsError."""
        concurrency = flags.concurrency or manifest.concurrency or DEFAULT_CONCURRENCY
        deadline_s = float(manifest.deadline or DEFAULT_DEADLINE_S)
        download_wait_s = (
            DOWNLOAD_WAIT_S if manifest.download_wait is None else float(manifest.download_wait)
        )
        return cls(
            concurrency=concurrency,
            downloads=manifest.downloads or DEFAULT_DOWNLOADS,
            deadline_s=deadline_s,
            grace_s=deadline_s if flags.grace_s is None else flags.grace_s,
            poll_s=float(manifest.poll or POLL_S),
            download_wait_s=download_wait_s,
            jobs=flags.limit,
            max_cost=_amount(flags.max_cost, manifest.max_cost, "--max-cost", parse_dollars),
            max_waste=_amount(flags.max_waste, manifest.max_waste, "--max-waste", parse_waste),
            until=flags.deadline(now),
            throttle=_throttle_limits(manifest, concurrency),
            guard=_guard_limits(manifest, concurrency, download_wait_s),
        )

    @property
    def per_minute(self) -> float | None:
        """The lowest rate limit per minute, or None without one."""
        rates = (self.throttle.requests_per_minute, self.throttle.images_per_minute)
        return min((rate for rate in rates if rate is not None), default=None)

    def waste_allowance(self, estimate: Micros) -> Micros:
        """Return how much a run with this estimate may spend on rebuying."""
        return (self.max_waste or Waste()).allowance(estimate)


def _amount(
    flag: str | None, manifest: object | None, name: str, parse: Callable[[str], T]
) -> T | None:
    written = flag if flag is not None else manifest
    if written is None:
        return None
    try:
        return parse(str(written))
    except ValueError as exc:
        raise SettingsError(f"{name}: {exc}") from exc


def _throttle_limits(manifest: ManifestLimits, concurrency: int) -> DispatchLimits:
    default = DispatchLimits()
    return DispatchLimits(
        concurrency=concurrency,
        requests_per_minute=_rate(manifest.requests_per_minute),
        images_per_minute=_rate(manifest.images_per_minute),
        burst=manifest.burst or default.burst,
        max_probes=manifest.max_probes or default.max_probes,
        unreachable_s=float(manifest.unreachable or default.unreachable_s),
    )


def _guard_limits(manifest: ManifestLimits, concurrency: int, patience_s: float) -> GuardLimits:
    default = GuardLimits()
    return GuardLimits(
        canary=manifest.canary or default.canary,
        max_useless=manifest.max_useless or default.max_useless,
        max_probes=manifest.max_probes or default.max_probes,
        concurrency=concurrency,
        patience_s=patience_s,
    )


def _rate(per_minute: float | None) -> float | None:
    return None if per_minute is None else float(per_minute)
