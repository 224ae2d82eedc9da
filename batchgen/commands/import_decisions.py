"""`batchgen review --import`: record decisions from a file."""

from __future__ import annotations

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
from batchgen.review.picks import Target, match, read_picks
from batchgen.session.publish import publish_if_free
from batchgen.session.settings import Environment
from batchgen.text import counted


def import_decisions(name: str, db: Path | None, file: Path, *, by: str) -> ExitCode:
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
    for pick in found.unknown:
        why = "its image was replaced since" if pick.sha256 else "the batch has no such image"
        write_line(sys.stderr, f"{file}:{pick.line}: {pick.key}: {why}; not recorded")
    known = f", {found.same:,} recorded before" if found.same else ""
    recorded = counted(len(found.decisions), "decision")
    write_line(sys.stdout, f"{name}: {recorded} of {by} recorded{known}")
    published = _publish(ledger, name) if is_due else True
    return ExitCode.UNFINISHED if found.unknown or not published else ExitCode.DONE


def _publish(ledger: Path, name: str) -> bool:
    """Publish what is accepted; return whether there was no trouble."""
    done = publish_if_free(ledger, name)
    if done is None:
        text = "the accepted images are published within seconds, by the run of this batch"
        write_line(sys.stdout, f"{name}: {text}")
        return True
    for trouble in done.troubles.values():
        write_line(sys.stderr, trouble)
    write_line(sys.stdout, f"{name}: {counted(len(done.images), 'image')} published")
    return not done.troubles
