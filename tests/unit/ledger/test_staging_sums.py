"""What is left out for the usual plan: reading new jobs one by one, and sorting keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchgen.errors import ManifestError
from batchgen.job import PlannedJob
from batchgen.ledger.groups import Group, GroupSum
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.sharing import NO_REPEATS
from batchgen.ledger.staging import Staging
from batchgen.money import Micros
from batchgen.planning.naming import collision_key
from tests.support.builders import IDENTITY
from tests.support.rig import changed_job
from tests.support.staging import planned

PRICES = {"dear": Micros(40_000), "cheap": Micros(1), "free": Micros(0)}


def jobs(names: str, first: int = 0) -> list[PlannedJob]:
    """Return a job for each letter, of the model that begins with it."""
    models = {model[0]: changed_job(planned("x"), model=model).kind for model in PRICES}
    return [
        planned(f"key-{number}", prompt=f"{number}")._replace(kind=models[letter])
        for number, letter in enumerate(names, first)
    ]


def stage(ledger: Ledger, planned_jobs: list[PlannedJob]) -> Staging:
    staging = Staging(ledger.conn)
    staging.fill(
        planned_jobs,
        price=lambda model, _, references: Micros(PRICES.get(model, 5) + references),
        collision_key=collision_key,
    )
    return staging


def tally(ledger: Ledger) -> tuple[int, int]:
    row = ledger.conn.execute("SELECT jobs, estimated FROM tallies").fetchone()
    return row["jobs"], row["estimated"]


@pytest.mark.parametrize("names", ["d", "ddcc", "dcdcf", "f" * 2_001 + "d" * 2_000 + "c"])
def test_sums_of_new_jobs_equal_those_read_job_by_job(
    ledger: Ledger, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = jobs(names)
    everything[-1] = everything[-1]._replace(images=("a.png", "b.png"))
    staging = stage(ledger, everything)
    found, models = staging.compare(None), staging.models_to_ask(None)
    cost = sum(PRICES[job.kind.model] + len(job.images) for job in everything)
    free = sum(job.kind.model == "free" and not job.images for job in everything)
    assert found == {Group.NEW: GroupSum(len(names), Micros(cost), free)}
    assert models == sorted({job.kind.model for job in everything})
    monkeypatch.setattr(Staging, "_are_all_new", lambda _: False)
    assert (staging.compare(None), staging.models_to_ask(None)) == (found, models)


def test_an_enrollment_counts_only_its_new_jobs(ledger: Ledger) -> None:
    staging = stage(ledger, jobs("ddc"))
    batch = staging.enroll(IDENTITY)
    assert tally(ledger) == (3, 80_001)
    staging.close()
    refused = jobs("d", 4)[0]._replace(refused="row: at fault")
    staging = stage(ledger, [*jobs("dd"), *jobs("f", 3), refused])
    assert staging.compare(batch)[Group.NEW] == GroupSum(1, Micros(0), 1)
    staging.enroll(IDENTITY)
    assert tally(ledger) == (5, 120_000)


def test_repeats_are_found_among_new_jobs(ledger: Ledger) -> None:
    one, two, three = jobs("dcd")
    assert stage(ledger, [one, two]).repeats(None) is NO_REPEATS
    ledger.conn.execute("DETACH DATABASE staging")
    again = three._replace(fingerprint=one.fingerprint)
    found = stage(ledger, [one, two, again]).repeats(None)
    assert replace(found, cost=Micros(0)) == replace(NO_REPEATS, jobs=1)
    assert found.cost == PRICES["dear"]


@pytest.mark.parametrize("path", ["{key}.{{ext}}", "all/{key}.{{ext}}"])
def test_taken_keys_are_found_with_or_without_sorting(ledger: Ledger, path: str) -> None:
    everything = [
        planned(key, path=path.format(key=key)) for key in ("mug", "bag", "mug", "BAG", "cup")
    ]
    with pytest.raises(ManifestError) as caught:
        stage(ledger, everything)
    assert {(fault.path, fault.message.split(" is taken")[0]) for fault in caught.value.faults} == {
        ("key", "the key 'mug'"),
        ("output.path", f"the output path '{path.format(key='BAG')}'"),
    }


def test_one_key_in_two_directories_is_taken(ledger: Ledger) -> None:
    here, there = planned("mug"), changed_job(planned("mug"), root="elsewhere")
    with pytest.raises(ManifestError, match="the key 'mug' is taken already"):
        stage(ledger, [here, there])
    ledger.conn.execute("DETACH DATABASE staging")
    with pytest.raises(ManifestError, match="the key 'mug' is taken already"):
        stage(ledger, [here, planned("mug", path="else.{ext}")])
