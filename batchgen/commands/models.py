"""`batchgen models`: list the models of a key, and check those of a manifest. Free of charge."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, StoppedError
from batchgen.ledger.database import in_memory
from batchgen.ledger.staging import Staging
from batchgen.providers.catalog import OfferedModel, Unavailable, fetch_models
from batchgen.providers.profile import Profile
from batchgen.session.local_server import embedded_endpoint
from batchgen.session.prepare import Prepared, find_endpoint, key_of, with_fetched_table
from batchgen.session.settings import DB_NAME
from batchgen.session.stage_plan import stage
from batchgen.text import counted


def models(manifest: Path | None, *, provider: str | None, as_json: bool) -> ExitCode:
    """List the models. With a manifest, check those it needs; exit with 1 if one is missing.

    Raises BatchgenError.
    """
    asked = find_endpoint(manifest, provider, None)
    needed = _needed(with_fetched_table(asked.prepared)) if asked.prepared else []
    key = key_of(asked.profile, asked.environment)
    with _base_url(asked.profile) as base_url:
        try:
            offered = anyio.run(
                fetch_models,
                base_url,
                key.reveal() if key else None,
                asked.profile.network,
            )
        except Unavailable as exc:
            raise StoppedError(_why(exc)) from exc
    seen = {model.name for model in offered}
    missing = [name for name in needed if name not in seen]
    if as_json:
        record = {
            "provider": asked.profile.name,
            "models": [
                {"id": model.name, "shutdown_date": model.shutdown_date} for model in offered
            ],
            "needed": needed,
            "missing": missing,
        }
        write_line(sys.stdout, json.dumps(record))
    else:
        write_line(sys.stdout, _text(asked.profile.name, offered, needed))
    return ExitCode.UNFINISHED if missing else ExitCode.DONE


def _needed(prepared: Prepared) -> list[str]:
    with closing(in_memory()) as conn:
        return stage(Staging(conn), prepared, accept_unknown_price=True).models()


@contextmanager
def _base_url(profile: Profile) -> Iterator[str]:
    """Yield the endpoint's base URL; start the local endpoint if it is the one."""
    if profile.base_url is not None:
        yield profile.base_url
        return
    with (
        TemporaryDirectory(prefix="batchgen-") as directory,
        embedded_endpoint(Path(directory) / DB_NAME) as base_url,
    ):
        yield base_url


def _why(exc: Unavailable) -> str:
    if exc.status in (401, 403):
        return f"{exc}: the endpoint refuses the key"
    if exc.status == 404:
        return f"{exc}: the endpoint lists no models; does base_url end in /v1?"
    return str(exc)


def _text(name: str, offered: Sequence[OfferedModel], needed: Sequence[str]) -> str:
    known = {model.name: model for model in offered}
    lines = [f"{name}: this key sees {counted(len(offered), 'model')}"]
    for wanted in needed or known:
        model = known.get(wanted)
        if model is None:
            near = get_close_matches(wanted, known, n=1)
            hint = f"; {near[0]} is the nearest that it sees" if near else ""
            lines.append(f"  {wanted}: MISSING, this key does not see it{hint}")
        else:
            end = f": shuts down on {model.shutdown_date}" if model.shutdown_date else ""
            lines.append(f"  {wanted}{end}")
    return "\n".join(lines)
