"""`batchgen plan --show` and `--sample`: print the exact requests of single jobs."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchgen.commands.plan import ledger_of, staged
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, SettingsError
from batchgen.http.request import ApiRequest, BytesBody
from batchgen.images.formats import ImageFormat
from batchgen.job import AttemptId
from batchgen.ledger.staged_jobs import StagedJob, sample_keys, staged_job
from batchgen.money import Micros, decimal_string, rounded_dollars
from batchgen.planning.naming import final_path
from batchgen.providers.adapters.multipart import FilePiece, PiecedBody
from batchgen.providers.adapters.registry import ADAPTERS
from batchgen.providers.profile import Profile
from batchgen.session.fresh_prices import with_kept_prices
from batchgen.session.overrides import Overrides
from batchgen.session.prepare import Prepared, prepare
from batchgen.text import cause_of

_LOCAL_URL: Final = "http://127.0.0.1:PORT/v1"
"""The local endpoint gets its port when a run starts it."""
_ATTEMPT: Final = AttemptId("ATTEMPT-ID")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    staged: StagedJob
    request: ApiRequest | None
    """None if a reference image cannot be read."""
    problem: str
    price: Micros | None
    """None if the price is not known."""


def show_jobs(
    manifest: Path, keys: Sequence[str], overrides: Overrides, *, sample: int = 0, as_json: bool
) -> ExitCode:
    """Print prompt, request, output path and price of jobs; needs no key and no network.

    With ``sample``, that many of the most different jobs are shown. Raises SettingsError for a key
    that the manifest does not plan.
    """
    prepared = prepare(manifest, overrides.db)
    with closing(ledger_of(prepared)) as conn:
        profile = with_kept_prices(prepared.profile, conn)
        staged(conn, prepared, overrides.selection)
        wanted = [*keys, *sample_keys(conn, sample)]
        shown = [_shown(profile, _staged(conn, prepared, key)) for key in wanted]
    for number, one in enumerate(shown):
        if as_json:
            write_line(sys.stdout, json.dumps(_record(one), ensure_ascii=False))
        else:
            write_line(sys.stdout, ("\n" if number else "") + _text(one))
    return ExitCode.DONE


def _staged(conn: sqlite3.Connection, prepared: Prepared, key: str) -> StagedJob:
    found = staged_job(conn, key, prepared.ledger)
    if found is None:
        path = prepared.loaded.path.name
        raise SettingsError(f"{path}: the manifest plans no job with the key {key!r}")
    return found


def _shown(profile: Profile, staged: StagedJob) -> _Shown:
    job = staged.job
    price = profile.price(job.model, job.options, len(job.images))
    request, problem = None, staged.refused or ""
    if not problem:
        adapter = ADAPTERS[profile.route_of(job.model)]
        try:
            request = adapter.build_request(job, _ATTEMPT, profile.base_url or _LOCAL_URL)
        except OSError as exc:
            problem = f"a reference image cannot be read: {cause_of(exc)}"
    return _Shown(staged=staged, request=request, problem=problem, price=price)


def _text(shown: _Shown) -> str:
    job = shown.staged.job
    price = "price unknown" if shown.price is None else rounded_dollars(shown.price)
    lines = [
        f"{job.key}: {price}",
        f"  source  {shown.staged.source}",
        f"  path    {_path(shown)}",
        f"  prompt  {job.prompt}",
    ]
    if shown.request is None:
        return "\n".join([*lines, f"  not sent: {shown.problem}"])
    request = shown.request
    headers = {**request.headers, "Content-Type": request.body.headers["Content-Type"]}
    lines.append(f"{request.method} {request.url}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\n".join([*lines, _body_text(request).replace("\r\n", "\n")])


def _path(shown: _Shown) -> str:
    """Return the output path; a format that is not requested leaves its extension open."""
    job = shown.staged.job
    kind = ImageFormat.named(job.options.get("output_format"))
    path = job.path if kind is None else final_path(job.path, kind.extension)
    return f"{job.root}/{path}"


def _body_text(request: ApiRequest) -> str:
    """Return the exact body, with each file named in place of its bytes."""
    body = request.body
    if isinstance(body, BytesBody):
        return body.data.decode()
    assert isinstance(body, PiecedBody)
    return "".join(
        f"<{piece.length:,} bytes: {piece.path}{' as base64' if piece.base64 else ''}>"
        if isinstance(piece, FilePiece)
        else piece.decode()
        for piece in body.pieces
    )


def _record(shown: _Shown) -> dict[str, object]:
    job, request = shown.staged.job, shown.request
    return {
        "key": job.key,
        "source": shown.staged.source,
        "path": _path(shown),
        "model": job.model,
        "prompt": job.prompt,
        "price": None if shown.price is None else decimal_string(shown.price),
        "problem": shown.problem or None,
        "request": None
        if request is None
        else {
            "method": request.method,
            "url": request.url,
            "headers": dict(request.headers),
            "body": _body_text(request),
        },
    }
