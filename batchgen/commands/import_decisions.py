"""`batchgen review --import`: record decisions from a file."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from uuid import uuid4

from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, SettingsError
from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import check_exists, open_for_writing
from batchgen.ledger.decisions import Reviewer, record_decisions
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.review_summary import decided_images
from batchgen.ledger.unpublished import publications
from batchgen.review.picks import Pick, Target, match, read_picks
from batchgen.session.publish import Published, publish_if_free
from batchgen.session.settings import Environment
from batchgen.text import counted


def import_decisions(
    name: str, db: Path | None, file: Path, *, by: str, as_json: bool = False
) -> ExitCode:
    """Record the decisions of a file as those of ``by``; reading it again records nothing.

    Accepted images that wait are published. Exits with 1 if a row is about an image that the batch
    does not have, or an image cannot be published. Raises SettingsError.
    """
    ledger = Environment.load().ledger_path(db, None)
    check_exists(ledger)
    try:
        picks = read_picks(file.read_bytes(), str(file))
    except OSError as exc:
        raise SettingsError(f"{file}: cannot be read: {exc.strerror}") from exc
    with closing(open_for_writing(ledger)) as conn:
        batch = find_batch(conn, name).id
        found = match(picks, [Target(**row) for row in decided_images(conn, batch)])
        if found.decisions:
            reviewer = Reviewer(name=by, session=uuid4().hex)
            record_decisions(conn, batch, found.decisions, reviewer)
        is_due = bool(publications(Ledger(conn), batch))
    done = publish_if_free(ledger, name) if is_due else Published()
    troubles = list(done.troubles.values()) if done is not None else []
    code = ExitCode.UNFINISHED if found.unknown or troubles else ExitCode.DONE
    unknown = [(pick.line, pick.key, _why(pick)) for pick in found.unknown]
    if as_json:
        record = {
            "batch": name,
            "by": by,
            "recorded": len(found.decisions),
            "recorded_before": found.same,
            "unknown": [{"line": line, "key": key, "why": why} for line, key, why in unknown],
            "published": None if done is None else len(done.images),
            "not_published": troubles,
        }
        write_line(sys.stdout, json.dumps(record, ensure_ascii=False))
        return code
    for line, key, why in unknown:
        write_line(sys.stderr, f"{file}:{line}: {key}: {why}; not recorded")
    known = f", {found.same:,} recorded before" if found.same else ""
    recorded = counted(len(found.decisions), "decision")
    write_line(sys.stdout, f"{name}: {recorded} of {by} recorded{known}")
    if is_due:
        _say_published(name, done)
    return code


def _say_published(name: str, done: Published | None) -> None:
    if done is None:
        text = "the accepted images are published within seconds, by the run of this batch"
        write_line(sys.stdout, f"{name}: {text}")
        return
    for trouble in done.troubles.values():
        write_line(sys.stderr, trouble)
    write_line(sys.stdout, f"{name}: {counted(len(done.images), 'image')} published")


def _why(pick: Pick) -> str:
    return "its image was replaced since" if pick.sha256 else "the batch has no such image"
