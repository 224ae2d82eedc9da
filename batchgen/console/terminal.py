"""The presenter of the command line: notices and the plan on stderr, questions at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from batchgen.console.ask import ask, can_ask
from batchgen.console.progress import is_terminal, make_progress, write_line, write_text
from batchgen.console.tally import RunFacts
from batchgen.report.plan_summary import plan_summary_text
from batchgen.session.presenter import Count, RunProgress
from batchgen.session.proposal import PlanSummary

_PLANNED_STEP: Final = 10_000
_FETCHED_STEP: Final = 1_000
_CLEAR_LINE: Final = "\r\x1b[K"


class TerminalPresenter:
    """Shows a run to a person, or with ``as_json`` to a program."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._is_interactive = not (as_json or quiet)

    def notice(self, text: str) -> None:
        """Write the notice to stderr, even in a quiet run."""
        write_line(sys.stderr, text)

    def detail(self, text: str) -> None:
        """Write the text to stderr, except in a quiet run."""
        if not self.quiet:
            write_line(sys.stderr, text)

    @contextmanager
    def planning(self) -> Iterator[Count | None]:
        """Count planned jobs on a terminal, and clear the line afterwards."""
        if not (self._is_interactive and is_terminal()):
            yield None
            return

        def count(jobs: int) -> None:
            if jobs % _PLANNED_STEP == 0:
                _overwrite(f"planning: {jobs:,} jobs")

        try:
            yield count
        finally:
            _overwrite(_CLEAR_LINE)

    @contextmanager
    def fetching(self, total: int) -> Iterator[Count | None]:
        """Count reference images: live on a terminal, else a line for every 1,000."""
        if not self._is_interactive:
            yield None
            return
        live = is_terminal()

        def count(done: int) -> None:
            text = f"reference images: {done:,} of {total:,}"
            if live:
                _overwrite(text)
            elif done % _FETCHED_STEP == 0:
                write_line(sys.stderr, text)

        try:
            yield count
        finally:
            if live:
                _overwrite(_CLEAR_LINE)

    def show_plan(self, summary: PlanSummary) -> None:
        """Write the plan to stderr, except in a quiet run and for programs."""
        if self._is_interactive:
            write_text(sys.stderr, plan_summary_text(summary))

    def confirm(self, question: str) -> bool:
        """Ask at the terminal; without a terminal return True."""
        if not (self._is_interactive and can_ask()):
            return True
        return ask(question, "y/N").lower() in ("y", "yes")

    def run_progress(self, facts: RunFacts) -> RunProgress:
        """Return the display of a run."""
        return make_progress(facts, json=self.as_json, quiet=self.quiet)


def _overwrite(text: str) -> None:
    """Write over the current line of the terminal."""
    sys.stderr.write(text if text.startswith("\r") else f"\r{text}")
    sys.stderr.flush()
