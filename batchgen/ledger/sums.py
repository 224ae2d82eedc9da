"""What an attempt counts as, as SQL: the one source of every sum of money over attempts."""

from __future__ import annotations

from typing import Final

CHARGED: Final = "attempts.cost"
POSSIBLE: Final = """CASE attempts.billed WHEN 'maybe' THEN attempts.price
    WHEN 'yes' THEN attempts.possible ELSE 0 END"""
"""What may be charged beyond CHARGED; a request in flight counts as possible."""
UNPRICED: Final = "(attempts.price_known = 0 AND attempts.billed <> 'no')"
"""Whether it costs money, or may, and nothing says how much: it is in no sum."""
NOT_ACKNOWLEDGED: Final = """(jobs.state <> 'uncertain' OR NOT EXISTS (SELECT 1 FROM attempts
    WHERE rowid = (SELECT max(rowid) FROM attempts WHERE job_id = jobs.id)
    AND acknowledged_at IS NOT NULL))"""
"""Whether no person has closed a job that is held as uncertain."""
