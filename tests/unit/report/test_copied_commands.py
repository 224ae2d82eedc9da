"""Commands in messages are quoted, so that a person can copy them into a shell."""

from __future__ import annotations

from batchgen.ledger.unpublished import UnpublishedCounts
from batchgen.report.status import unpublished_lines
from batchgen.session.missing_images import Missing


def test_names_with_a_space_are_quoted() -> None:
    (line,) = unpublished_lines("two words", UnpublishedCounts(undecided=1))
    assert line.endswith("batchgen review 'two words'")
    assert "`batchgen verify 'two words' --repair`" in Missing(count=1).text("two words")
