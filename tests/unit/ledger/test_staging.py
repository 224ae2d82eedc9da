"""From planned jobs to the ledger: staged, compared, enrolled at once, or not at all."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batchgen.errors import Fault, ManifestError, SettingsError
from batchgen.job import BatchId, JobId, PlannedJob
from batchgen.ledger.groups import Group, GroupSum
from batchgen.ledger.jobs import pending_jobs
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.relocations import Relocation, Relocations
from batchgen.ledger.runs import start_run
from batchgen.ledger.staging import Staging
from batchgen.money import ZERO, Micros
from batchgen.planning.naming import collision_key
from tests.support.builders import IDENTITY
from tests.support.fixtures import Clock
from tests.support.rig import changed_job
from tests.support.staging import planned

PRICE = Micros(37_700)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
CLOCK = Clock(NOW)


def stage(ledger: Ledger, *jobs: PlannedJob, now: datetime = NOW) -> Staging:
    if any(row["name"] == "staging" for row in ledger.conn.execute("PRAGMA database_list")):
        ledger.conn.execute("DETACH DATABASE staging")
    staging = Staging(ledger.conn, lambda: now)
    staging.fill(jobs, price=lambda *_: PRICE, collision_key=collision_key)
    return staging


def finish(ledger: Ledger, key: str) -> None:
    ledger.conn.execute(
        "UPDATE jobs SET state = 'done', done_at = '2026-11-22T00:00:00.000Z' WHERE key = ?",
        (key,),
    )


def states(ledger: Ledger) -> dict[str, tuple[str, int]]:
    rows = ledger.conn.execute("SELECT key, state, retired FROM jobs")
    return {row["key"]: (row["state"], row["retired"]) for row in rows}


@pytest.mark.fault("Q18")
def test_new_changed_unchanged_and_retired_jobs_are_separated(ledger: Ledger) -> None:
    batch = stage(ledger, *map(planned, "abc")).enroll(IDENTITY)
    for key in "abc":
        finish(ledger, key)
    staging = stage(ledger, planned("a"), planned("b", prompt="other"), planned("d"))

    assert staging.compare(batch) == {
        Group.UNCHANGED: GroupSum(1, PRICE),
        Group.CHANGED: GroupSum(1, PRICE),
        Group.NEW: GroupSum(1, PRICE),
        Group.RETIRED: GroupSum(1, ZERO),
    }
    staging.enroll(IDENTITY)
    assert states(ledger) == {
        "a": ("done", 0),
        "b": ("pending", 0),
        "c": ("done", 1),
        "d": ("pending", 0),
    }


def test_a_key_that_comes_back_keeps_its_image(ledger: Ledger) -> None:
    stage(ledger, planned("a"), planned("b")).enroll(IDENTITY)
    finish(ledger, "b")
    stage(ledger, planned("a")).enroll(IDENTITY)
    stage(ledger, planned("a"), planned("b")).enroll(IDENTITY)
    assert states(ledger)["b"] == ("done", 0)


@pytest.mark.fault("Q18")
def test_moving_a_job_in_the_manifest_changes_nothing(
    ledger: Ledger,
) -> None:
    batch = stage(ledger, *map(planned, "cab")).enroll(IDENTITY)
    assert [job.key for job in pending_jobs(ledger, batch, after=JobId(0), limit=9)] == list("cab")
    staging = stage(ledger, *map(planned, "abc"))
    assert staging.compare(batch) == {Group.PENDING: GroupSum(3, Micros(3 * PRICE))}


@pytest.mark.parametrize(
    ("refresh", "age_days", "group"),
    [
        ("changed", 400, Group.UNCHANGED),
        ("always", 1, Group.STALE),
        ("30d", 29, Group.UNCHANGED),
        ("30d", 31, Group.STALE),
    ],
)
def test_an_old_image_is_stale_as_the_manifest_says(
    refresh: str, age_days: int, group: Group, ledger: Ledger
) -> None:
    job = changed_job(planned("a"), refresh=refresh)
    batch = stage(ledger, job).enroll(IDENTITY)
    finish(ledger, "a")
    staging = stage(ledger, job, now=NOW + timedelta(days=age_days))
    assert list(staging.compare(batch)) == [group]
    staging.enroll(IDENTITY)
    assert states(ledger)["a"][0] == ("pending" if group is Group.STALE else "done")


@pytest.mark.fault("D09")
@pytest.mark.fault("M15")
def test_jobs_with_one_key_are_all_named_and_nothing_is_enrolled(ledger: Ledger) -> None:
    twice = [
        planned("a"),
        planned("b"),
        changed_job(planned("a"), path="x.{ext}", source="b.csv:9"),
    ]
    with pytest.raises(ManifestError) as caught:
        stage(ledger, *twice)
    (fault,) = caught.value.faults
    assert str(fault) == (
        "b.csv:9: key: the key 'a' is taken already by b.csv:97 (a); each job needs its own"
    )
    assert states(ledger) == {}


@pytest.mark.fault("D09", "D10")
@pytest.mark.parametrize(
    ("one", "other"),
    [("Mug.{ext}", "mug.{ext}"), ("caf\u00e9.{ext}", "cafe\u0301.{ext}"), ("a.{ext}", "a.{ext}")],
)
def test_paths_that_some_disk_takes_for_one_are_a_collision(
    one: str, other: str, ledger: Ledger
) -> None:
    with pytest.raises(ManifestError, match="output path") as caught:
        stage(ledger, planned("a", path=one), planned("b", path=other))
    assert "b.csv:97 (a)" in str(caught.value)


def many(count: int) -> list[PlannedJob]:
    base = planned("a")
    return [
        changed_job(base, key=f"k{n}", path=f"{n}.{{ext}}", source=f"b.csv:{n + 2}")
        for n in range(count)
    ]


def test_a_collision_is_found_across_pages(ledger: Ledger) -> None:
    late = changed_job(planned("z"), key="k7", path="z.{ext}", source="b.csv:9999")
    with pytest.raises(ManifestError) as caught:
        stage(ledger, *many(4500), late)
    assert str(caught.value) == (
        "b.csv:9999: key: the key 'k7' is taken already by b.csv:9 (k7); each job needs its own"
    )


def test_two_jobs_of_one_line_with_one_key_are_a_fault_too(ledger: Ledger) -> None:
    """As where a matrix makes several jobs of a row, and the key's template leaves it out."""
    front = planned("mug", path="mug/front.{ext}")
    with pytest.raises(ManifestError) as caught:
        stage(ledger, front, changed_job(front, path="mug/lifestyle.{ext}"), planned("tote"))
    assert str(caught.value) == (
        "b.csv:109: key: the key 'mug' is taken already by a job of the same line (mug);"
        " each job needs its own"
    )


def test_every_job_that_collides_is_listed_in_order(ledger: Ledger) -> None:
    jobs = many(4500)
    for position in (1, 10, 2500):
        jobs.insert(position, changed_job(jobs[0], source=f"b.csv:{90_000 + position}"))
    with pytest.raises(ManifestError) as caught:
        stage(ledger, *jobs)
    assert [fault.line for fault in caught.value.faults] == [90_001, 90_010, 92_500]


def test_at_most_a_hundred_collisions_are_reported(ledger: Ledger) -> None:
    job = planned("a")
    with pytest.raises(ManifestError) as caught:
        stage(ledger, *(changed_job(job, source=f"b.csv:{number}") for number in range(5_000)))
    assert [fault.line for fault in caught.value.faults] == list(range(1, 101))


def test_texts_with_one_hash_are_no_collision(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchgen.ledger.staging_rows.hash", len, raising=False)
    stage(ledger, *map(planned, "abc"))
    with pytest.raises(ManifestError, match=r"b\.csv:9: key: the key 'b' is taken"):
        stage(ledger, *map(planned, "abc"), changed_job(planned("b"), source="b.csv:9"))


def test_collisions_are_reported_with_the_faults_of_the_plan(ledger: Ledger) -> None:
    template = Fault(file="b.yaml", line=3, column=1, path="prompt", message="'titel' is undefined")

    def jobs() -> Iterator[PlannedJob]:
        yield planned("a")
        yield changed_job(planned("a"), source="b.csv:98")
        raise ManifestError([template])

    with pytest.raises(ManifestError) as caught:
        Staging(ledger.conn).fill(jobs(), price=lambda *_: PRICE, collision_key=collision_key)
    assert [fault.path for fault in caught.value.faults] == ["key", "prompt"]


def test_a_plan_that_fails_leaves_the_ledger_as_it_was(ledger: Ledger) -> None:
    def unpriced(*_: object) -> Micros:
        raise SettingsError("no price")

    before = list(ledger.conn.iterdump())
    with pytest.raises(SettingsError):
        Staging(ledger.conn).fill([planned("a")], price=unpriced, collision_key=collision_key)
    assert list(ledger.conn.iterdump()) == before


def test_a_failed_enrollment_leaves_the_ledger_as_it_was(ledger: Ledger) -> None:
    stage(ledger, planned("a"), planned("b")).enroll(IDENTITY)
    ledger.conn.execute(
        "CREATE TRIGGER full BEFORE INSERT ON jobs WHEN new.key = 'd'"
        " BEGIN SELECT raise(ABORT, 'disk is full'); END"
    )
    before = list(ledger.conn.iterdump())
    staging = stage(ledger, planned("a", prompt="other"), planned("c"), planned("d"))
    with pytest.raises(sqlite3.IntegrityError, match="disk is full"):
        staging.enroll(replace(IDENTITY, manifest="other"))
    assert list(ledger.conn.iterdump()) == before


def test_each_state_of_a_job_has_its_group_in_a_plan(ledger: Ledger) -> None:
    groups = {
        "pending": Group.PENDING,
        "sending": Group.IN_FLIGHT,
        "paid": Group.PAID,
        "done": Group.UNCHANGED,
        "failed": Group.FAILED,
        "blocked": Group.BLOCKED,
        "uncertain": Group.UNCERTAIN,
    }
    changed_groups = {
        "pending": Group.PENDING,
        "sending": Group.IN_FLIGHT,
        "paid": Group.PAID_CHANGED,
        "done": Group.CHANGED,
        "failed": Group.REVISED,
        "blocked": Group.REVISED,
        "uncertain": Group.REVISED,
    }
    batch = stage(ledger, *map(planned, groups)).enroll(IDENTITY)
    ledger.conn.execute("UPDATE jobs SET state = key")
    for state, group in groups.items():
        assert stage(ledger, planned(state)).compare(batch)[group] == GroupSum(1, PRICE)
        (changed,) = stage(ledger, planned(state, prompt="other")).compare(batch, partial=True)
        assert changed is changed_groups[state], state


def test_a_changed_job_is_pending_unless_a_request_is_in_flight(
    ledger: Ledger,
) -> None:
    names = ("pending", "sending", "paid", "done", "failed", "blocked", "uncertain")
    stage(ledger, *map(planned, names)).enroll(IDENTITY)
    ledger.conn.execute("UPDATE jobs SET state = key, reason = 'why', tries = 1, doubts = 1")
    stage(ledger, *map(planned, names)).enroll(IDENTITY)
    assert states(ledger) == {name: (name, 0) for name in names}, "nothing has changed"
    stage(ledger, *(planned(name, prompt="other") for name in names)).enroll(IDENTITY)
    rows = ledger.conn.execute("SELECT * FROM jobs").fetchall()
    for row in rows:
        under_way = row["key"] in ("sending", "paid")
        assert row["state"] == (row["key"] if under_way else "pending")
        assert (row["reason"], row["tries"], row["doubts"]) == (
            ("why", 1, 1) if under_way else (None, 0, 0)
        )
        assert row["fingerprint"] == "other"


def test_what_does_not_change_the_image_is_kept_up_to_date(ledger: Ledger) -> None:
    batch = stage(ledger, planned("a")).enroll(IDENTITY)
    finish(ledger, "a")
    moved = changed_job(planned("a"), root="elsewhere", tags=("winter",), source="b.csv:2")
    staging = stage(ledger, moved)
    assert list(staging.compare(batch)) == [Group.MOVED]
    staging.enroll(IDENTITY)
    (row,) = ledger.conn.execute("SELECT state, root, tags, source FROM jobs").fetchall()
    assert tuple(row) == ("done", "elsewhere", '["winter"]', "b.csv:2")


def test_saved_images_that_are_wanted_elsewhere_come_in_pages(ledger: Ledger) -> None:
    batch = stage(ledger, *map(planned, "abc")).enroll(IDENTITY)
    for key in "abc":
        finish(ledger, key)
    save_images(ledger, batch, provider="local")
    staging = stage(
        ledger,
        planned("a"),
        *(changed_job(planned(key), root="new", path=f"{key}/x.{{ext}}") for key in "bc"),
    )
    (first,) = staging.moves(batch, after=0, limit=1)
    assert (first.key, first.root, first.path) == ("b", "out", "b.png")
    assert (first.new_root, first.new_path, first.rank) == ("new", "b/x.{ext}", 0)
    (second,) = staging.moves(batch, after=first.image, limit=9)
    assert second.key == "c"
    moved = Relocation(first.image, first.job, "b", "out", "b.png", first.sha256, "new", "b/x.png")
    relocations = Relocations(ledger.conn)
    relocations.add([moved])
    relocations.done([moved])
    assert list(relocations.pages()) == []
    row = ledger.conn.execute("SELECT root, path FROM images WHERE id = ?", (first.image,))
    assert tuple(row.fetchone()) == ("new", "b/x.png")


def test_images_of_another_provider_to_replace_are_counted(
    ledger: Ledger,
) -> None:
    batch = stage(ledger, *map(planned, "abc")).enroll(IDENTITY)
    save_images(ledger, batch, provider="openai")
    staging = stage(ledger, planned("a"), *(planned(key, prompt="other") for key in "bc"))
    assert staging.foreign_images(batch) == {"openai": 2}
    assert stage(ledger, *map(planned, "abc")).foreign_images(batch) == {}


def test_the_models_of_a_plan_are_named_once(ledger: Ledger) -> None:
    jobs = [planned("a"), planned("b"), changed_job(planned("c"), model="dall-e-3")]
    assert stage(ledger, *jobs).models() == ["dall-e-3", "gpt-image-2"]


def save_images(ledger: Ledger, batch: BatchId, provider: str) -> None:
    """A saved image for each job, by an attempt at this provider."""
    run = start_run(ledger, batch, estimate=ZERO, max_cost=None, max_waste=ZERO)
    for row in ledger.conn.execute("SELECT id, key, fingerprint FROM jobs").fetchall():
        ledger.conn.execute(
            "INSERT INTO attempts (id, job_id, run_id, fingerprint, provider, model, started_at,"
            " outcome, billed, price) VALUES (?, ?, ?, ?, ?, 'm', '', 'ok', 'yes', 1)",
            (f"attempt-{row['key']}", row["id"], run, row["fingerprint"], provider),
        )
        ledger.conn.execute(
            "INSERT INTO images (job_id, attempt_id, position, state, root, path, sha256, format)"
            " VALUES (?, ?, 0, 'saved', 'out', ?, 's', 'png')",
            (row["id"], f"attempt-{row['key']}", f"{row['key']}.png"),
        )


def test_a_batch_keeps_its_manifest_and_counts_its_plans(ledger: Ledger) -> None:
    first = stage(ledger, planned("a")).enroll(IDENTITY)
    again = stage(ledger, planned("a")).enroll(replace(IDENTITY, manifest="jobs: [x]"))
    other = stage(ledger, planned("a")).enroll(replace(IDENTITY, name="other"))
    assert first == again != other
    rows = ledger.conn.execute("SELECT name, manifest, plan FROM batches ORDER BY id").fetchall()
    assert [tuple(row) for row in rows] == [("b", "jobs: [x]", 2), ("other", "", 1)]


def test_jobs_of_many_kinds_keep_their_options_and_price(
    ledger: Ledger,
) -> None:
    jobs = [
        changed_job(planned("a"), key=f"k{n}", path=f"{n}.{{ext}}", options={"n": n % 1500})
        for n in range(3_200)
    ]
    noted: Counter[int] = Counter()
    staging = Staging(ledger.conn)
    staging.fill(
        jobs,
        price=lambda _, options, __: Micros(int(options["n"])),
        priced=lambda _, options, __, price, count: noted.update({price: count}),
        collision_key=collision_key,
    )
    staging.enroll(IDENTITY)
    rows = ledger.conn.execute("SELECT options, estimated FROM jobs ORDER BY id").fetchall()
    numbers = [n % 1500 for n in range(3_200)]
    assert [tuple(row) for row in rows] == [(f'{{"n":{n}}}', n) for n in numbers]
    assert noted == Counter(numbers)


def test_the_price_that_was_used_is_kept(ledger: Ledger) -> None:
    stage(ledger, planned("a")).enroll(IDENTITY)
    stage(ledger, planned("a"), planned("b")).enroll(IDENTITY)
    (row,) = ledger.conn.execute("SELECT provider, model, price, source FROM prices").fetchall()
    assert tuple(row) == ("local", "gpt-image-2", PRICE, "test")


_MANY = """
import resource, sys
from contextlib import closing
from pathlib import Path
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.staging import Staging
from batchgen.planning.naming import collision_key
from tests.support.builders import IDENTITY
from tests.support.staging import planned
base = planned("a")
count = int(sys.argv[2])
jobs = (base._replace(key=f"k{n}", path=f"{n}.{{ext}}") for n in range(count))
with closing(open_for_writing(Path(sys.argv[1]))) as conn:
    staging = Staging(conn)
    staging.fill(jobs, price=lambda *_: 1, collision_key=collision_key)
    staging.enroll(IDENTITY)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _peak_kb(db: Path, jobs: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _MANY, str(db), str(jobs)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_memory_does_not_grow_with_the_number_of_jobs(tmp_path: Path) -> None:
    small = _peak_kb(tmp_path / "small.db", 20_000)
    large = _peak_kb(tmp_path / "large.db", 200_000)
    assert large - small < 15_000, "kilobytes"


# Jobs that the plan refuses


def refused(key: str, *, prompt: str = "p", reason: str = "reference: u: HTTP 404") -> PlannedJob:
    return changed_job(planned(key, prompt=prompt), refused=reason)


def reasons(ledger: Ledger) -> dict[str, tuple[str, str | None]]:
    rows = ledger.conn.execute("SELECT key, state, reason FROM jobs")
    return {row["key"]: (row["state"], row["reason"]) for row in rows}


def test_a_job_without_its_reference_image_fails_alone(ledger: Ledger) -> None:
    staging = stage(ledger, planned("a"), refused("b"))
    assert staging.compare(None) == {
        Group.NEW: GroupSum(1, PRICE),
        Group.REFUSED: GroupSum(1, PRICE),
    }
    staging.enroll(IDENTITY)
    assert reasons(ledger) == {"a": ("pending", None), "b": ("failed", "reference: u: HTTP 404")}


def test_refused_job_is_retried_once_its_reference_is_there(ledger: Ledger) -> None:
    batch = stage(ledger, refused("a"), refused("b")).enroll(IDENTITY)
    staging = stage(ledger, planned("a"), refused("b", reason="reference: u: HTTP 410"))
    assert staging.compare(batch) == {
        Group.RETRIED: GroupSum(1, PRICE),
        Group.REFUSED: GroupSum(1, PRICE),
    }
    staging.enroll(IDENTITY)
    assert reasons(ledger) == {"a": ("pending", None), "b": ("failed", "reference: u: HTTP 410")}


def test_other_failures_are_left_alone_despite_their_message(ledger: Ledger) -> None:
    batch = stage(ledger, planned("a")).enroll(IDENTITY)
    reason = "refused: the reference: is too small"
    ledger.conn.execute("UPDATE jobs SET state = 'failed', reason = ?", (reason,))
    staging = stage(ledger, planned("a"))
    assert staging.compare(batch) == {Group.FAILED: GroupSum(1, PRICE)}
    staging.enroll(IDENTITY)
    assert reasons(ledger) == {"a": ("failed", reason)}


@pytest.mark.parametrize("state", ["done", "paid", "sending", "blocked", "uncertain"])
def test_what_need_not_be_sent_is_not_failed_for_its_image(state: str, ledger: Ledger) -> None:
    stage(ledger, planned("a")).enroll(IDENTITY)
    ledger.conn.execute("UPDATE jobs SET state = ?", (state,))
    stage(ledger, refused("a")).enroll(IDENTITY)
    assert states(ledger) == {"a": (state, 0)}


def test_a_changed_or_stale_job_that_cannot_be_sent_fails(ledger: Ledger) -> None:
    batch = stage(ledger, planned("a"), planned("b")).enroll(IDENTITY)
    for key in "ab":
        finish(ledger, key)
    stale = changed_job(refused("b"), refresh="1d")
    staging = stage(ledger, refused("a", prompt="other"), stale, now=NOW + timedelta(days=2))
    assert staging.compare(batch) == {Group.REFUSED: GroupSum(2, Micros(2 * PRICE))}
    staging.enroll(IDENTITY)
    assert {state for state, _ in reasons(ledger).values()} == {"failed"}


def test_plan_can_be_staged_twice(ledger: Ledger) -> None:
    stage(ledger, planned("a")).close()
    staging = Staging(ledger.conn, lambda: NOW)
    staging.fill([planned("b")], price=lambda *_: PRICE, collision_key=collision_key)
    staging.enroll(IDENTITY)
    assert states(ledger) == {"b": ("pending", 0)}
