"""Read the environment: keys, paths and switches. No other module does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchgen.errors import SettingsError
from batchgen.providers.account import Account, ApiKey
from batchgen.session.env_file import read_env_file
from batchgen.system.shell_command import name_ledger
from batchgen.urls import bucket_of_path, check_local_path, is_bucket, output_root

if TYPE_CHECKING:
    from batchgen.providers.profile import AccountLog

DB_NAME: Final = "batchgen.db"
_RAY_STATISTICS: Final = "RAY_USAGE_STATS_ENABLED"
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment of this process, then the ``.env`` file next to the manifest."""

    variables: Mapping[str, str] = field(repr=False)
    notices: tuple[str, ...] = ()
    """What was skipped in the ``.env`` file; a sentence each."""

    @classmethod
    def load(cls, directory: Path | None = None) -> Environment:
        """Read the environment now. Raises SettingsError for an unreadable ``.env``."""
        file = read_env_file(directory / ".env") if directory else None
        variables = {name: value for name, value in os.environ.items() if value}
        if file is None:
            return cls(variables)
        return cls({**file.variables, **variables}, file.notices)

    def get(self, name: str) -> str | None:
        """Return a variable, or None if it is unset or empty."""
        return self.variables.get(name) or None

    def expand(self, text: str, where: str) -> str:
        """Replace ``${NAME}`` with variables. Raises SettingsError for one that is not set."""

        def value(match: re.Match[str]) -> str:
            found = self.get(match[1])
            if found is None:
                raise SettingsError(f"{where}: the environment variable {match[1]} is not set")
            return found

        return _VARIABLE.sub(value, text)

    def key(self, variable: str) -> ApiKey:
        """Return the key in a variable. Raises SettingsError, which never shows the key."""
        return self._secret(variable, "API key", hint="`provider: local` needs none")

    def account(self, log: AccountLog) -> Account:
        """Return who may read an account's log. Raises SettingsError, which shows no secret."""
        token, user = ApiKey(log.open_token), log.open_user
        if log.token_variable is not None:
            hint = "create it on the provider's account page, or export the log and pass --log FILE"
            token = self._secret(log.token_variable, "access token", hint=hint)
        if log.user_variable is not None:
            user = (self.get(log.user_variable) or "").strip()
            if not user.isascii() or not user.isdecimal():
                raise SettingsError(
                    f"no account: set {log.user_variable} to the number of the account that the"
                    " access token belongs to"
                )
        return Account(token=token, user=user)

    def _secret(self, variable: str, what: str, *, hint: str) -> ApiKey:
        value = (self.get(variable) or "").strip()
        if not value:
            raise SettingsError(
                f"no {what}: set {variable} in the environment, or in a .env file next to the"
                f" manifest; {hint}" + "".join(f"\n{notice}" for notice in self.notices)
            )
        if not value.isascii() or not value.isprintable() or " " in value:
            raise SettingsError(
                f"{variable} is not a usable {what}: it contains spaces, line breaks or"
                " non-ASCII characters"
            )
        return ApiKey(value)

    def log_path(self, flag: Path | None) -> Path | None:
        """Return where runs are logged: ``--log-file``, else ``BATCHGEN_LOG``; None for no log."""
        if flag is not None:
            return flag.absolute()
        named = self.get("BATCHGEN_LOG")
        if not named:
            return None
        try:
            check_local_path(named)
        except ValueError as exc:
            raise SettingsError(f"BATCHGEN_LOG: {exc}") from exc
        return Path(named).expanduser().absolute()

    @property
    def failpoint(self) -> str | None:
        """Return the failpoint at which a test has this process killed."""
        return self.get("BATCHGEN_FAILPOINT")

    @property
    def proxy(self) -> str | None:
        """Return the URL of the proxy, by ``BATCHGEN_PROXY``; None without one."""
        return self.get("BATCHGEN_PROXY")

    @property
    def ca_file(self) -> Path | None:
        """Return a file of certificates, by ``BATCHGEN_CA_FILE``; None if it is not set."""
        named = self.get("BATCHGEN_CA_FILE")
        return Path(named).expanduser().absolute() if named else None

    def ledger_path(self, flag: Path | None, manifest_directory: Path | None) -> Path:
        """Return the ledger: ``--db``, else ``BATCHGEN_DB``, else next to the manifest or found
        here.

        Symbolic links are followed, so that lock and spool, which are next to the ledger, are the
        same for each of its names. Raises SettingsError for circular links.
        """
        bucket = self.ledger_bucket(flag)
        path = self._ledger_name(None if bucket else flag, manifest_directory)
        # Here, because every command about a batch passes here before its first message.
        name_ledger(_option(path, bucket))
        if bucket is not None:
            # Imported here: few ledgers are in a bucket, and the import would delay all commands.
            from batchgen.ledger.bucket_marker import check_working_copy

            check_working_copy(path.resolve(), bucket)
        try:
            return path.resolve()
        except (OSError, RuntimeError) as exc:
            raise SettingsError(f"{path}: the ledger's path can't be followed: {exc}") from exc

    def ledger_bucket(self, flag: Path | None) -> str | None:
        """Return the URL of the bucket of the ledger; None for a ledger that is a file only.

        Raises SettingsError.
        """
        named = self.get("BATCHGEN_DB") or ""
        try:
            if flag is not None:
                return bucket_of_path(flag)
            check_local_path(named, buckets=True)
            return output_root(named) if is_bucket(named) else None
        except ValueError as exc:
            raise SettingsError(f"{'BATCHGEN_DB' if flag is None else '--db'}: {exc}") from exc

    def working_copy(self, manifest_directory: Path | None) -> Path:
        """Return the file on this machine of a ledger that is in a bucket."""
        return self._ledger_name(None, manifest_directory).resolve()

    def _ledger_name(self, flag: Path | None, manifest_directory: Path | None) -> Path:
        if flag is not None:
            return flag
        named = self.get("BATCHGEN_DB")
        if named is not None and not is_bucket(named):
            return Path(named).expanduser()
        if manifest_directory is not None:
            return manifest_directory / DB_NAME
        for directory in (Path.cwd(), Path.cwd() / "jobs"):
            if (directory / DB_NAME).exists():
                return directory / DB_NAME
        return Path.cwd() / DB_NAME

    @property
    def ledger_wait_s(self) -> float | None:
        """Return how long to wait for a locked ledger, by ``BATCHGEN_LEDGER_WAIT``.

        None if it is not set. Raises SettingsError.
        """
        if self.get("BATCHGEN_LEDGER_WAIT") is None:
            return None
        return self.seconds("BATCHGEN_LEDGER_WAIT", 0.0)

    def seconds(self, variable: str, default: float) -> float:
        """Return a variable in seconds. Raises SettingsError."""
        written = self.get(variable)
        if written is None:
            return default
        try:
            seconds = float(written)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise SettingsError(f"{variable}: {written!r}; expected seconds, like 600")
        return seconds


def _option(ledger: Path, bucket: str | None) -> str | Path | None:
    """Return what --db must name in a command typed here; None if the ledger is found without."""
    bare = Environment.load()  # without the .env file of a manifest
    try:
        ledger = ledger.resolve()
        if bucket is None and ledger.with_name(f"{ledger.name}.bucket").exists():
            from batchgen.ledger.bucket_marker import Marker  # few ledgers are in a bucket

            marker = Marker.read(ledger)
            bucket = None if marker is None else marker.url
        if bucket is not None:
            return None if bare.ledger_bucket(None) == bucket else bucket
        found = bare.working_copy(None)
        # This command may create the ledger, so that later ones find it.
        is_new = bare.get("BATCHGEN_DB") is None and not found.exists()
        is_found = ledger == found or (is_new and ledger == found.parent / "jobs" / DB_NAME)
        return None if is_found else ledger
    except (OSError, RuntimeError, SettingsError):
        return ledger.absolute()  # such as in a directory that was removed


@contextmanager
def exported(environment: Environment, names: Iterable[str]) -> Iterator[None]:
    """Set variables of a ``.env`` file in the environment of processes started in this block.

    Ray reports no usage statistics from them.
    """
    added = {name: value for name in names if (value := environment.get(name)) is not None}
    before = {name: os.environ.get(name) for name in (*added, _RAY_STATISTICS)}
    os.environ.update({_RAY_STATISTICS: "0", **added})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def color_setting() -> bool | None:
    """Return whether NO_COLOR or FORCE_COLOR decides about colors; None if neither does."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return False if os.environ.get("TERM") == "dumb" else None
