"""The interface through which a session reports to its caller.

The session never prints. The command line passes a presenter for the terminal, the Python API one
that only collects notices.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeAlias

from batchgen.engine.events import RunEvent
from batchgen.engine.throttle.limits import DispatchStatus
from batchgen.errors import StoppedError
from batchgen.session.proposal import PlanSummary

Count: TypeAlias = Callable[[int], None]
"""Takes how many items are done so far."""


class RunProgress(Protocol):
    """A display of a run that receives each event and refreshes itself now and then."""

    def observe(self, event: RunEvent) -> None:
        """Record an event."""

    async def run(self, throttle: Callable[[], DispatchStatus]) -> None:
        """Refresh the display until cancelled."""

    def close(self) -> None:
        """Remove the display."""


class Presenter(Protocol):
    """Shows notices, progress and the plan before a run sends anything."""

    def notice(self, text: str) -> None:
        """Report something that matters even in a quiet run."""

    def detail(self, text: str) -> None:
        """Report something that a quiet run leaves out."""

    def planning(self) -> AbstractContextManager[Count | None]:
        """Show how many jobs are planned; gives None where that is not shown."""

    def fetching(self, total: int) -> AbstractContextManager[Count | None]:
        """Show how many of ``total`` reference images are checked; gives None if not shown."""

    def show_plan(self, summary: PlanSummary) -> None:
        """Show what the run would do and cost."""

    def confirm(self, question: str) -> bool:
        """Ask whether to continue; without a person to ask return True."""


class SilentPresenter:
    """A presenter that shows nothing, keeps the notices and confirms every question."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self._ending: str | None = None

    def refuse(self, reason: str) -> None:
        """Make the next step of the plan raise StoppedError; any thread may call this."""
        self._ending = reason

    def _check(self, _: int) -> None:
        if self._ending is not None:
            raise StoppedError(f"{self._ending}; nothing was sent or changed")

    def notice(self, text: str) -> None:
        """Keep the notice."""
        self.notices.append(text)

    def detail(self, text: str) -> None:
        """Ignore the detail."""

    def planning(self) -> AbstractContextManager[Count | None]:
        """Show no progress."""
        return nullcontext(self._check)

    def fetching(self, total: int) -> AbstractContextManager[Count | None]:
        """Show no progress."""
        return nullcontext(self._check)

    def show_plan(self, summary: PlanSummary) -> None:
        """Show no plan."""
        self._check(0)

    def confirm(self, question: str) -> bool:
        """Return True."""
        return True
