"""What a stop of one run means for its other work, and for the batches after it."""

from __future__ import annotations

import pytest

from batchgen.engine.stop_reasons import prevents_saving, stops_all_batches, stops_provider


@pytest.mark.parametrize(
    ("reason", "saving", "everything", "provider"),
    [
        (None, False, False, False),
        ("disk: full", True, True, True),
        ("ledger: locked", True, True, True),
        ("bug: ValueError()", False, True, True),
        ("storage: access refused", True, False, False),
        ("budget: $1.00 for this run", False, False, False),
        ("budget_exceeded: over the limit of the key", False, False, True),
        ("disk_quota: the provider's own disk", False, False, True),
        ("invalid_api_key: no", False, False, True),
    ],
)
def test_reason_stops_no_more_than_its_cause_does(
    reason: str | None, saving: bool, everything: bool, provider: bool
) -> None:
    found = (prevents_saving(reason), stops_all_batches(reason), stops_provider(reason))
    assert found == (saving, everything, provider)
