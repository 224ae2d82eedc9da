"""Checks before any money is spent: open files, room to write, key and models."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import anyio

from batchgen.errors import SettingsError, StoppedError
from batchgen.ledger.path_owners import Claimed
from batchgen.money import Micros, compared_dollars
from batchgen.output.obstacles import Obstacles
from batchgen.providers.account import ApiKey
from batchgen.providers.catalog import Unavailable, fetch_account, fetch_models
from batchgen.providers.profile import Profile
from batchgen.session.settings import Environment
from batchgen.system.disk_space import measure, nearest_existing
from batchgen.text import closest_match, counted

_OWNERS_COUNTED: Final = 1_000
_OPEN_FILES_ASIDE: Final = 48
"""Used by libraries, terminal, ledger, event loop and the local endpoint's pipes."""


def check_writable(directory: Path) -> None:
    """Write to the directory, or to its nearest existing parent. Raises SettingsError."""
    place = nearest_existing(directory)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as exc:
        raise SettingsError(f"{place}: can't be written: {exc.strerror}; nothing was sent") from exc


def check_log(path: Path) -> None:
    """Refuse to start if the log cannot be opened for appending. Creates no file.

    A pipe is refused unopened: it blocks the whole run while its reader is slow or absent, and the
    end of this check would be the end of its input for a reader. Raises SettingsError.
    """
    try:
        if path.is_fifo():
            raise SettingsError(f"{path}: the log is a pipe; expected a file; nothing was sent")
        if path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
        else:
            path.parent.stat()
            check_writable(path.parent)
    except OSError as exc:
        raise SettingsError(
            f"{path}: the log can't be written: {exc.strerror}; nothing was sent"
        ) from exc


def check_space(directory: Path, requests: int) -> None:
    """Refuse to start if this number of responses would not fit on disk. Raises SettingsError."""
    found = measure(directory)
    if found.responses < requests:
        raise SettingsError(
            f"{found.directory}: {found.limit}, not enough for the responses to {requests}"
            " requests at a time; free up disk space or lower limits.concurrency; nothing was sent"
        )


def check_disk(spool: Path, base: Path, roots: Sequence[str], requests: int) -> None:
    """Refuse to start if no response, or no image of any job, can be written.

    ``roots`` are the output directories, relative to ``base``. If only some cannot be written,
    only their jobs fail, before they cost anything. Raises SettingsError.
    """
    check_writable(spool)
    check_space(spool, requests)
    obstacles = Obstacles(base)
    found = {base / root: obstacles.directory(base / root, base / root) for root in roots}
    fit = [directory for directory, obstacle in found.items() if obstacle is None]
    if found and not fit:
        raise SettingsError(f"{next(iter(found.values()))}; nothing was sent")
    refused: list[SettingsError] = []
    for directory in fit:
        try:
            check_writable(directory)
        except SettingsError as exc:
            refused.append(exc)
        else:
            check_space(directory, requests)
    if refused and len(refused) == len(fit):
        raise refused[0]


def check_owners(claimed: Iterator[Claimed], name: str) -> None:
    """Refuse a plan that writes to paths of other batches. Raises SettingsError."""
    found = list(islice(claimed, _OWNERS_COUNTED + 1))
    if not found:
        return
    first = found[0]
    is_more = len(found) > _OWNERS_COUNTED
    what = f"more than {_OWNERS_COUNTED:,} jobs" if is_more else counted(len(found), "job")
    raise SettingsError(
        f"{name}: output paths of another batch of this ledger, for {what}:"
        f" {first.root}/{first.path} of job {first.key!r} ({first.source}) is the path of job"
        f" {first.owner_key!r} of batch {first.owner!r}; give one of them another output.dir or"
        f" output.path, or `name: {first.owner}` if it is the same batch, or replace the files with"
        " --overwrite; nothing was sent"
    )


def check_models(profile: Profile, key: ApiKey | None, needed: Sequence[str]) -> None:
    """Check, for free, that the key can use the models of the plan.

    An endpoint that lists no models is not checked. Raises StoppedError.
    """
    if profile.base_url is None or not needed:
        return
    try:
        offered = anyio.run(
            fetch_models, profile.base_url, key.reveal() if key else None, profile.network
        )
    except Unavailable as exc:
        if exc.status == 401:
            raise StoppedError(f"{exc}: the endpoint refuses the key; nothing was sent") from exc
        return
    seen = {model.name for model in offered}
    for name in needed:
        if seen and name not in seen:
            near = closest_match(name, seen)
            hint = f"; did you mean {near!r}?" if near else "."
            raise StoppedError(
                f"model_not_found: this key does not see the model {name!r} at"
                f" {profile.name}{hint} Nothing was sent; --yes requests it anyway"
            )


def short_balance(profile: Profile, environment: Environment, estimate: Micros) -> str | None:
    """Return why the account's balance will not last for a run; None if it will, or is unknown.

    Requested only if the environment has an access token, which a run needs for nothing else.
    """
    log, root_url = profile.account_log, profile.root_url
    if log is None or root_url is None or not estimate:
        return None
    variables = (log.token_variable, log.user_variable)
    if not all(name and environment.get(name) for name in variables):
        return None
    account = environment.account(log)
    # Imported here: few accounts report their balance, and the import would delay all runs.
    from batchgen.providers.usage_log import UsageLogError, read_balance

    async def fetch(route: str) -> bytes:
        token, user = account.token.reveal(), account.user
        return await fetch_account(root_url + route, token, user, profile.network)

    try:
        balance = anyio.run(read_balance, fetch)
    except (Unavailable, UsageLogError):
        return None
    if balance >= estimate:
        return None
    holds, needs = compared_dollars(balance, estimate)
    return (
        f"the account holds {holds}, and this run is estimated at {needs}:"
        " it stops when the balance is used up, and continues after a top-up"
    )


if sys.platform == "win32":

    def allow_open_files(concurrency: int, downloads: int) -> None:
        """Do nothing: Windows has no such limit that a run would reach."""

else:
    import resource

    def allow_open_files(concurrency: int, downloads: int) -> None:
        """Raise this process's limit of open files to what the requests and downloads need.

        A paid response for which no file can be opened would be lost. Raises SettingsError.
        """
        # Per request: a socket, the response and its image; per download: one file.
        needed = 3 * concurrency + 2 * downloads + _OPEN_FILES_ASIDE
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= needed:
            return
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # macOS has a kernel limit below "unlimited"
            wanted = soft
        if wanted < needed:
            raise SettingsError(
                f"{counted(concurrency, 'request')} and {counted(downloads, 'download')} at a time"
                f" need {needed:,} open files, and this process may have {wanted}: raise"
                " `ulimit -n`, or lower limits.concurrency and limits.downloads"
            )
