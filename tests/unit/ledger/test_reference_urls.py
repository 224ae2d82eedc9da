"""What the ledger knows of URLs, and what a plan reads of them."""

from __future__ import annotations

import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path

from batchgen.images.formats import ImageFormat
from batchgen.job import BatchId, PlannedJob
from batchgen.ledger.batch_identity import BatchIdentity
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.reference_urls import (
    FetchedUrl,
    NeededUrls,
    fetched_url,
    pending_references,
    urls_of_content,
)
from batchgen.ledger.selection import EVERYTHING
from batchgen.ledger.staging import Staging
from batchgen.money import Micros
from batchgen.planning.naming import collision_key
from batchgen.planning.reference_images import FetchedReference
from tests.support.rig import planned_job

URL = "https://shop.example/a.jpg"


def fetched(url: str = URL, sha256: str = "5e", day: int = 1) -> FetchedUrl:
    return FetchedUrl(
        url=url,
        sha256=sha256,
        format=ImageFormat.JPEG,
        etag='"1"',
        last_modified=None,
        fetched_at=f"2026-11-{day:02}T00:00:00.000Z",
    )


def test_each_url_is_noted_once_with_what_is_known(
    conn: sqlite3.Connection, tmp_path: Path
) -> None:
    urls = _kept_before(conn, tmp_path)
    other = "https://shop.example/b.jpg"
    assert [urls.find(url) for url in (URL, other, URL)] == [
        FetchedReference(sha256="5e"),
        FetchedReference(),
        FetchedReference(sha256="5e"),
    ]
    assert (len(urls), urls.missing) == (2, 2)
    assert list(urls) == [(URL, fetched()), (other, None)]


def _kept_before(conn: sqlite3.Connection, directory: Path) -> NeededUrls:
    """The URLs of a plan, after an earlier run has fetched one."""
    _keep(conn, directory, fetched())
    return NeededUrls(conn, directory)


def _keep(conn: sqlite3.Connection, directory: Path, *found: FetchedUrl) -> None:
    urls = NeededUrls(conn, directory)
    urls.settle(found, [])
    urls.keep(conn)
    conn.execute("DROP TABLE temp.needed")
    conn.execute("DROP TABLE temp.fetched")


def test_fetched_urls_are_no_row_before_they_are_kept(
    conn: sqlite3.Connection, tmp_path: Path
) -> None:
    urls = NeededUrls(conn, tmp_path)
    urls.settle([fetched()], [])
    assert urls.find(URL).sha256 == "5e"
    assert fetched_url(conn, URL) is None
    urls.keep(conn)
    assert fetched_url(conn, URL) == fetched()


def test_a_copy_that_is_there_is_given_and_not_missing(
    conn: sqlite3.Connection, tmp_path: Path
) -> None:
    (tmp_path / "5e.jpg").write_bytes(b"x")
    urls = _kept_before(conn, tmp_path)
    assert urls.find(URL) == FetchedReference(path=tmp_path / "5e.jpg", sha256="5e")
    assert urls.missing == 0


def test_each_url_has_its_problem_after_a_run(conn: sqlite3.Connection, tmp_path: Path) -> None:
    urls = NeededUrls(conn, tmp_path)
    urls.find(URL)
    urls.settle([], [(URL, "HTTP 404")])
    assert urls.find(URL) == FetchedReference(problem="HTTP 404")
    late = urls.find("https://shop.example/late.jpg")
    assert "was not in the manifest" in late.problem


def test_newest_content_of_a_url_counts(conn: sqlite3.Connection, tmp_path: Path) -> None:
    other = "https://shop.example/b.jpg"
    _keep(conn, tmp_path, fetched(), fetched(sha256="6f", day=2), fetched(other, "6f", day=3))
    assert fetched_url(conn, URL) == fetched(sha256="6f", day=2)
    assert [known.url for known in urls_of_content(conn, "6f")] == [other, URL]
    assert urls_of_content(conn, "5e") == []


def test_a_plan_needs_no_right_to_write(conn: sqlite3.Connection, tmp_path: Path) -> None:
    _keep(conn, tmp_path, fetched())
    with closing(open_for_reading(tmp_path / "batchgen.db")) as reading:
        urls = NeededUrls(reading, tmp_path)
        assert urls.find(URL).sha256 == "5e"
        assert urls.missing == 1


def test_thousands_of_urls_are_not_held_in_memory(conn: sqlite3.Connection, tmp_path: Path) -> None:
    urls = NeededUrls(conn, tmp_path)
    tracemalloc.start()
    try:
        for number in range(20_000):
            urls.find(f"https://shop.example/{'x' * 100}/{number}.jpg")
        assert sum(1 for _ in urls) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def enroll(conn: sqlite3.Connection, *jobs: PlannedJob) -> BatchId:
    staging = Staging(conn)
    staging.fill(jobs, price=lambda *_: Micros(1), collision_key=collision_key)
    identity = BatchIdentity(
        name="b",
        provider="local",
        price_source="",
        manifest_path="",
        manifest_sha256="",
        manifest="",
    )
    batch = staging.enroll(identity)
    staging.close()
    return batch


def planned(key: str, *images: str, mask: str | None = None) -> PlannedJob:
    return planned_job(
        key=key,
        fingerprint="",
        provider="local",
        model="m",
        prompt="",
        options={},
        images=images,
        mask=mask,
        root="",
        path=key,
        source="",
    )


def test_pending_jobs_can_be_refused_while_they_are_listed(
    conn: sqlite3.Connection,
) -> None:
    edits = [planned(f"k{number}", "a.png", "b.png", mask="m.png") for number in range(1200)]
    batch = enroll(conn, *edits, planned("done", "a.png"), planned("plain"))
    conn.execute("UPDATE jobs SET state = 'done' WHERE key = 'done'")
    staging = Staging(conn)
    staging.fill_from_ledger(batch, "local", EVERYTHING)
    found = pending_references(conn, batch)
    staging.refuse(
        (job, f"reference: {' '.join(Path(name).name for name in names)}") for job, names in found
    )
    staging.go_on(batch, lambda batch: None)
    counted = conn.execute("SELECT state, reason, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2")
    assert [tuple(row) for row in counted] == [
        ("done", None, 1),
        ("failed", "reference: a.png b.png m.png", 1200),
        ("pending", None, 1),
    ]
