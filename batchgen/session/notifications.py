"""Notifications about the start and end of a run: `ping` and `on_finish` of a manifest.

What sends them is imported only for a manifest that has such a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchgen.errors import BatchgenError, ExitCode
from batchgen.session.prepare import Prepared

if TYPE_CHECKING:
    from batchgen.session.channels import ReportReader


@dataclass(slots=True)
class Ending:
    """How a run ended; a bug, until the caller knows better."""

    code: ExitCode = ExitCode.BUG
    error: str | None = None


def check_channels(prepared: Prepared) -> None:
    """Check the channels of a manifest.

    Raises SettingsError for a variable that is not set, and for a missing extra.
    """
    if prepared.loaded.manifest.on_finish:
        from batchgen.session.channels import channels_of

        channels_of(prepared)


@contextmanager
def notifying(
    prepared: Prepared, notice: Callable[[str], None], read_report: ReportReader
) -> Iterator[Ending]:
    """Notify about a run that begins and ends inside the block.

    The caller sets the ending. ``notice`` takes a text for each channel that could not be reached.
    """
    name, url = prepared.loaded.name, prepared.loaded.manifest.ping
    ping_url = prepared.environment.expand(url, "ping") if url else None

    def send_ping(suffix: str) -> None:
        if ping_url is None:
            return
        from batchgen.session.notify import ping

        if problem := ping(ping_url, suffix, prepared.profile.network):
            notice(f"{name}: ping: {problem}")

    ending = Ending()
    send_ping("/start")
    try:
        yield ending
    except BatchgenError as exc:
        ending.code, ending.error = exc.exit_code, str(exc)
        raise
    finally:
        send_ping("/fail" if ending.code else "")
        if prepared.loaded.manifest.on_finish:
            from batchgen.session.channels import notify_all

            notify_all(prepared, ending, notice, read_report)
