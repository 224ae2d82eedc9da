"""The only reader of the environment: keys, paths and switches."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchgen.errors import SettingsError
from batchgen.providers.account import Account, ApiKey

if TYPE_CHECKING:
    from batchgen.providers.profile import AccountLog

DB_NAME: Final = "batchgen.db"
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ENV_LINE: Final = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*
    (?:"(?P<double>[^"]*)" | '(?P<single>[^']*)' | (?P<plain>(?![\#"']).*?))
    (?:\s+\#.* | \s*)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment of this process, beneath it a ``.env`` file beside the manifest."""

    variables: Mapping[str, str] = field(repr=False)

    @classmethod
    def load(cls, directory: Path | None = None) -> Environment:
        """Read the environment now. Raises SettingsError for an unreadable ``.env``."""
        file = _read_env_file(directory / ".env") if directory else {}
        return cls({**file, **{name: value for name, value in os.environ.items() if value}})

    def get(self, name: str) -> str | None:
        """A variable, None where it is unset or empty."""
        return self.variables.get(name) or None

    def expand(self, text: str, where: str) -> str:
        """Put variables in place of ``${NAME}``. Raises SettingsError for one that is not set."""

        def value(match: re.Match[str]) -> str:
            found = self.get(match[1])
            if found is None:
                raise SettingsError(f"{where}: the environment variable {match[1]} is not set")
            return found

        return _VARIABLE.sub(value, text)

    def key(self, variable: str) -> ApiKey:
        """The key in a variable. Raises SettingsError, which never shows it."""
        return self._secret(variable, "API key", hint="`provider: local` needs none")

    def account(self, log: AccountLog) -> Account:
        """Who reads an account's log. Raises SettingsError, which shows neither."""
        token, user = ApiKey(log.open_token), log.open_user
        if log.token_variable is not None:
            hint = "it is made on the provider's account page; or export the log and say --log FILE"
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
                f"no {what}: set {variable} in the environment, or in a .env file beside the"
                f" manifest; {hint}"
            )
        if not value.isascii() or not value.isprintable() or " " in value:
            raise SettingsError(
                f"{variable} is no {what}: it holds spaces, line breaks or non-ASCII characters"
            )
        return ApiKey(value)

    def log_path(self, flag: Path | None) -> Path | None:
        """Where runs are logged: ``--log-file``, else ``BATCHGEN_LOG``, else nowhere."""
        if flag is not None:
            return flag.absolute()
        named = self.get("BATCHGEN_LOG")
        return Path(named).expanduser().absolute() if named else None

    @property
    def failpoint(self) -> str | None:
        """The step at which a test has this process killed."""
        return self.get("BATCHGEN_FAILPOINT")

    def ledger_path(self, flag: Path | None, manifest_directory: Path | None) -> Path:
        """The ledger: ``--db``, else ``BATCHGEN_DB``, else beside the manifest or found here.

        Symbolic links are followed, so that lock and spool, which lie next to the ledger, are the
        same by whatever name it is reached. Raises SettingsError for links in a circle.
        """
        path = self._ledger_name(flag, manifest_directory)
        try:
            return path.resolve()
        except (OSError, RuntimeError) as exc:
            raise SettingsError(f"{path}: the ledger's path can't be followed: {exc}") from exc

    def _ledger_name(self, flag: Path | None, manifest_directory: Path | None) -> Path:
        if flag is not None:
            return flag
        if named := self.get("BATCHGEN_DB"):
            return Path(named).expanduser()
        if manifest_directory is not None:
            return manifest_directory / DB_NAME
        for directory in (Path.cwd(), Path.cwd() / "jobs"):
            if (directory / DB_NAME).exists():
                return directory / DB_NAME
        return Path.cwd() / DB_NAME

    @property
    def ledger_wait_s(self) -> float | None:
        """How long a locked ledger is waited for, by ``BATCHGEN_LEDGER_WAIT``.

        None where it is not set. Raises SettingsError.
        """
        written = self.get("BATCHGEN_LEDGER_WAIT")
        if written is None:
            return None
        try:
            seconds = float(written)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise SettingsError(f"BATCHGEN_LEDGER_WAIT: {written!r}; expected seconds, like 600")
        return seconds


def exposed_env_file(directory: Path) -> str | None:
    """Who else may come to read the keys in the ``.env`` of a directory; None where nobody does."""
    path = directory.absolute() / ".env"
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if os.name == "posix" and mode & 0o077:
        return f"{path} may be read by others on this machine; say chmod 600 on it"
    if _is_in_git(path):
        return f"{path} is in git, and so are its keys: git rm --cached it, and make new keys"
    return None


def _is_in_git(path: Path) -> bool:
    """Whether git lists the file. Git is not run: it obeys the settings of the directory."""
    for directory in path.parents:
        try:
            index = (directory / ".git" / "index").read_bytes()
        except OSError:
            continue
        name = path.relative_to(directory).as_posix().encode()
        return len(name).to_bytes(2, "big") + name + b"\0" in index
    return False


def _read_env_file(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path}: can't be read: {exc}") from exc
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(line)
        if match is None:
            raise SettingsError(f"{path}:{number}: expected NAME=value")
        found[match["name"]] = match["double"] or match["single"] or match["plain"] or ""
    return found
