"""The index of the review page: filter first, then the most images of a view."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from batchgen.job import BatchId
from batchgen.ledger import review
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.newest_decisions import Decision
from batchgen.ledger.review import SORTS, ImageFilter, image_index
from tests.review.big import big_batch
from tests.review.decide import decide


@pytest.mark.parametrize("sort", SORTS)
def test_most_images_of_a_view_pass_its_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    db = big_batch(tmp_path, 6)
    decide(tmp_path, Decision.ACCEPT, "k-00000", "k-00005")
    decide(tmp_path, Decision.REJECT, "k-00002")
    monkeypatch.setattr(review, "MOST_IMAGES", 2)
    with closing(open_for_reading(db)) as conn:
        for decisions, letters in (
            (["accept"], "aa"),
            (["reject"], "r"),
            (["redo"], ""),
            (["undecided"], "--"),
        ):
            found = image_index(conn, BatchId(1), ImageFilter(decisions=decisions), sort)
            assert found.decisions == letters
            assert len(found.ids) == len(letters)
