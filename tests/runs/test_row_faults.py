"""A fault in one row's data fails that row's job alone, free of charge."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchgen.errors import Fault, ManifestError
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.groups import Group
from batchgen.ledger.staging import Staging
from batchgen.session.prepare import prepare
from batchgen.session.stage_plan import PlanObserver, stage
from tests.support import canary, rig

HEAD = """\
name: cat
provider: {{name: local, base_url: {base_url!r}, api_key_env: {variable}}}
options: {{size: 1024x640}}
"""
PHOTOS = """\
rows: p.csv
prompt: "photo of {{ title }}"
images: ["photos/{{ sku }}.png"]
"""


class Shop:
    """A manifest with its table and photos."""

    def __init__(self, directory: Path, base_url: str = "http://127.0.0.1:1/v1") -> None:
        self.directory = directory
        self.head = HEAD.format(base_url=base_url, variable=canary.VARIABLE)
        (directory / "photos").mkdir(exist_ok=True)
        self.manifest = directory / "cat.yaml"
        self.write(PHOTOS)

    def write(self, body: str, table: str = "") -> None:
        self.manifest.write_text(self.head + body, encoding="utf-8")
        if table:
            (self.directory / "p.csv").write_text(table, encoding="utf-8")

    def products(self, *skus: str, photos: Sequence[str] = ()) -> None:
        """Write a table of these products, and photos of some of them."""
        rows = "".join(f"{sku},Mug {sku}\n" for sku in skus)
        (self.directory / "p.csv").write_text(f"sku,title\n{rows}", encoding="utf-8")
        for sku in photos:
            rig.image(self.directory / f"photos/{sku}.png")

    def jobs(self, what: str = "state") -> dict[str, str]:
        """One value of each job that is not retired, by key."""
        rows = rig.query(
            self.directory / "batchgen.db", f"SELECT key, {what} FROM jobs WHERE retired = 0"
        )
        return {row[0]: row[1] for row in rows}

    def enroll(self) -> tuple[dict[Group, int], list[str]]:
        """Plan and enroll without a run; how many jobs each group has, and the warnings."""
        warnings: list[Fault] = []
        prepared = prepare(self.manifest, self.directory / "batchgen.db")
        with closing(open_for_writing(prepared.ledger)) as conn:
            observer = PlanObserver(warned=warnings.append)
            staging = stage(Staging(conn), prepared, accept_unknown_price=True, observer=observer)
            found = conn.execute("SELECT id FROM batches").fetchone()
            groups = staging.compare(found["id"] if found else None)
            staging.enroll(prepared.identity)
        return {group: of.jobs for group, of in groups.items()}, [str(one) for one in warnings]

    def finish(self) -> None:
        """Mark every pending job as done."""
        with closing(open_for_writing(self.directory / "batchgen.db")) as conn:
            conn.execute(
                "UPDATE jobs SET state = 'done', done_at = '2026-11-22' WHERE state = 'pending'"
            )


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


SWITCHES = ()


@pytest.mark.fault("K27")
def test_row_without_photo_fails_alone_and_is_tried_again(
    tmp_path: Path, served: rig.Endpoint
) -> None:
    shop, before = Shop(tmp_path, served.base_url), len(served.bill())
    shop.products("S1", "S2", "S3", photos=["S1", "S3"])
    checked = rig.batchgen("check", shop.manifest, cwd=tmp_path, code=1)
    assert "1 row is at fault, 3 jobs" in checked.stdout
    assert "p.csv:3: images[0]: reference image not found" in checked.stderr
    planned = rig.batchgen("plan", shop.manifest, cwd=tmp_path)
    assert "1  not sent because of an error in their row" in planned.stdout
    done = rig.batchgen("run", shop.manifest, cwd=tmp_path, code=1)
    assert shop.jobs() == {"S1": "done", "S2": "failed", "S3": "done"}
    assert "(such as S2)" in done.stdout
    assert shop.jobs("reason")["S2"].startswith(
        "row: p.csv:3: images[0]: reference image not found"
    )
    assert "p.csv:3 (S2)" in rig.batchgen("report", "cat", cwd=tmp_path).stdout
    assert "the next run tries them again" in done.stdout
    rig.batchgen("run", shop.manifest, cwd=tmp_path, code=1)
    assert len(served.bill()) - before == 2
    rig.batchgen("retry", "cat", cwd=tmp_path)
    rig.batchgen("resume", "cat", cwd=tmp_path, code=1)
    assert len(served.bill()) - before == 2
    shop.products("S1", "S2", "S3", photos=["S2"])
    rig.batchgen("run", shop.manifest, cwd=tmp_path)
    assert set(shop.jobs().values()) == {"done"}
    bill = served.bill()[before:]
    assert len(bill) == 3
    rig.judge(tmp_path, bill, finished=True)


@pytest.mark.fault("K27")
def test_done_job_keeps_its_image_when_its_row_breaks(tmp_path: Path, served: rig.Endpoint) -> None:
    shop = Shop(tmp_path, served.base_url)
    shop.products("S1", "S2", "S3", photos=["S1", "S2", "S3"])
    rig.batchgen("run", shop.manifest, cwd=tmp_path)
    made, bill = shop.jobs("fingerprint"), len(served.bill())
    (tmp_path / "photos/S2.png").unlink()
    done = rig.batchgen("run", shop.manifest, cwd=tmp_path, code=1)
    assert "1  done, kept; their row has an error now" in done.stderr
    assert "p.csv:3: images[0]" in done.stderr
    assert shop.jobs("fingerprint") == made
    assert set(shop.jobs().values()) == {"done"}
    rig.image(tmp_path / "photos/S2.png")
    rig.batchgen("run", shop.manifest, cwd=tmp_path)
    assert len(served.bill()) == bill


def test_most_rows_at_fault_change_nothing(shop: Shop) -> None:
    shop.products("S1", "S2", "S3", photos=["S1", "S2", "S3"])
    shop.enroll()
    shop.finish()
    before = rig.query(shop.directory / "batchgen.db", "SELECT * FROM jobs")
    for photo in ("S1", "S2"):
        (shop.directory / f"photos/{photo}.png").unlink()
    done = rig.batchgen("run", shop.manifest, cwd=shop.directory, code=2)
    assert "cat.yaml:4:7: rows: 2 of 3 rows have errors, more than half" in done.stderr
    assert "p.csv:2: images[0]" in done.stderr
    after = rig.query(shop.directory / "batchgen.db", "SELECT * FROM jobs")
    assert [tuple(row) for row in after] == [tuple(row) for row in before]


def test_strict_rows_refuse_the_whole_manifest(shop: Shop) -> None:
    shop.products("S1", "S2", "S3", photos=["S1", "S3"])
    shop.write(PHOTOS.replace("rows: p.csv", "rows: {file: p.csv, strict: true}"))
    with pytest.raises(ManifestError, match=r"p\.csv:3: images\[0\]"):
        shop.enroll()


@pytest.mark.parametrize(
    ("prompt", "images", "bad", "reason"),
    [
        ("x {{ t }}", "photos/{{ t }}", "text.png", "p.csv:4: images[0]: reference image"),
        ("x {{ t }}", "{{ t | replace('ok.png', 'photos/ok.png') }}", " ", "is empty"),
        ("x {{ t }}", "photos/{{ t }}", "../ftp://a", "reference image not found"),
        ("{{ t }}", "", " ", "p.csv:4: prompt: the prompt is empty"),
        ("x {{ 1 // (t | int(1)) }}", "", "0", "p.csv:4: prompt: the template fails"),
    ],
)
def test_row_of_any_fault_fails_alone(
    shop: Shop, prompt: str, images: str, bad: str, reason: str
) -> None:
    rig.image(shop.directory / "photos/ok.png")
    (shop.directory / "photos/text.png").write_text("no image", encoding="utf-8")
    wanted = f'images: ["{images}"]\n' if images else ""
    shop.write(f'rows: p.csv\nprompt: "{prompt}"\n{wanted}', f"id,t\n1,ok.png\n2,ok.png\n3,{bad}\n")
    groups, warnings = shop.enroll()
    assert groups == {Group.NEW: 2, Group.AT_FAULT: 1}
    assert reason in shop.jobs("reason")["3"]
    assert any(reason in warning for warning in warnings)


def test_bad_urls_fail_their_rows_alone(shop: Shop) -> None:
    shop.write(
        'rows: p.csv\nprompt: x\nimages: ["{{ url }}"]\n',
        "id,url\n1,https://shop.example/a.png\n2,https://shop.example/b.png\n3,ftp://x/a.png\n"
        "4,https://shop.example/a b.png\n5,https://shop.example/c.png\n",
    )
    _, warnings = shop.enroll()
    failed = {key for key, reason in shop.jobs("coalesce(reason, '')").items() if reason}
    assert failed == {"3", "4"}
    assert any(
        "p.csv:4: images[0]: unsupported reference image URL: ftp://x/a.png" in one
        for one in warnings
    )


def test_duplicate_key_fails_the_later_row_with_both_lines(shop: Shop) -> None:
    shop.write("rows: p.csv\nprompt: '{{ t }}'\n", "id,t\na,1\nb,2\na,3\nc,4\n")
    groups, _ = shop.enroll()
    assert groups == {Group.NEW: 3, Group.AT_FAULT: 1}
    assert shop.jobs("prompt") == {"a": "1", "b": "2", "c": "4", "p.csv:4/a": "3"}
    assert shop.jobs("reason")["p.csv:4/a"] == (
        "row: p.csv:4: key: the key 'a' is taken already by p.csv:2 (a); each job needs its own"
    )
    shop.finish()
    shop.write("rows: p.csv\nprompt: '{{ t }}'\n", "id,t\na,1\nb,2\nd,3\nc,4\n")
    groups, _ = shop.enroll()
    assert groups == {Group.NEW: 1, Group.UNCHANGED: 3, Group.RETIRED: 1}
    assert set(shop.jobs()) == {"a", "b", "c", "d"}


def test_duplicate_path_fails_the_later_row(shop: Shop) -> None:
    body = "rows: p.csv\nprompt: '{{ t }}'\noutput: {path: '{{ t }}.{{ ext }}'}\n"
    shop.write(body, "id,t\na,Mug\nb,bag\nc,MUG\n")
    shop.enroll()
    assert shop.jobs() == {"a": "pending", "b": "pending", "c": "failed"}
    assert "the output path 'MUG.{ext}' is taken already by p.csv:2" in shop.jobs("reason")["c"]


def test_jobs_of_one_row_with_one_key_are_the_manifests_fault(shop: Shop) -> None:
    shop.write("rows: p.csv\nmatrix: {v: [1, 2]}\nkey: '{{ id }}'\nprompt: x\n", "id\na\nb\n")
    with pytest.raises(ManifestError, match="taken already by a job of the same line"):
        shop.enroll()


def test_row_without_a_readable_key_retires_no_job(shop: Shop) -> None:
    body = "rows: p.jsonl\nprompt: '{{ t }}'\n"
    lines = [f'{{"id": "{name}", "t": "{name}"}}' for name in "abcd"]
    table = shop.directory / "p.jsonl"
    shop.write(body)
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    shop.enroll()
    shop.finish()
    table.write_text("\n".join([*lines[:1], "{not JSON", *lines[2:]]) + "\n", encoding="utf-8")
    groups, warnings = shop.enroll()
    assert groups == {Group.UNCHANGED: 3, Group.AT_FAULT: 1}
    assert any("a row at fault gives no key" in warning for warning in warnings)
    assert shop.jobs() == {**dict.fromkeys("abcd", "done"), "p.jsonl:2": "failed"}
    assert "row: p.jsonl:2: not valid JSON" in shop.jobs("reason")["p.jsonl:2"]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    groups, _ = shop.enroll()
    assert groups == {Group.UNCHANGED: 4, Group.RETIRED: 1}
    assert shop.jobs() == dict.fromkeys("abcd", "done")


def test_all_jobs_of_a_matrix_row_at_fault_are_kept(shop: Shop) -> None:
    body = "count: 2\nmatrix: {v: [1, 2]}\nimages: ['photos/{{ sku }}.png']\n"
    shop.write(f"rows: p.csv\nprompt: x\n{body}")
    shop.products("S1", "S2", photos=["S1", "S2"])
    shop.enroll()
    shop.finish()
    keys = set(shop.jobs())
    (shop.directory / "photos/S2.png").unlink()
    groups, _ = shop.enroll()
    assert groups == {Group.UNCHANGED: 4, Group.KEPT: 4}
    assert shop.jobs() == dict.fromkeys(keys, "done")


def test_pending_job_whose_row_breaks_is_not_sent(shop: Shop) -> None:
    shop.products("S1", "S2", photos=["S1", "S2"])
    shop.enroll()
    (shop.directory / "photos/S2.png").unlink()
    groups, _ = shop.enroll()
    assert groups == {Group.PENDING: 1, Group.AT_FAULT: 1}
    assert shop.jobs() == {"S1": "pending", "S2": "failed"}
    rig.image(shop.directory / "photos/S2.png")
    groups, _ = shop.enroll()
    assert groups == {Group.PENDING: 1, Group.RETRIED: 1}
    assert shop.jobs() == {"S1": "pending", "S2": "pending"}


def test_exported_row_fault_is_a_comment_only(shop: Shop) -> None:
    shop.products("S1", "S2", photos=["S1"])
    shop.enroll()
    done = rig.batchgen("export", "cat", "--failed", cwd=shop.directory)
    assert "  # S2: fix its row, then run the whole manifest\n" in done.stdout
    assert 'key: "S2"' not in done.stdout


NIGHT = st.lists(st.sampled_from(["ok", "changed", "no photo", "gone", "twice"]), min_size=6)


@settings(max_examples=40, deadline=None)
@given(nights=st.lists(NIGHT, min_size=1, max_size=4))
def test_row_faults_never_retire_or_regenerate(nights: list[list[str]]) -> None:
    """Whichever rows break in a night, their known jobs keep image, fingerprint and state."""
    with TemporaryDirectory() as directory:
        shop = Shop(Path(directory))
        for night in nights:
            db = shop.directory / "batchgen.db"
            before = rig.query(db, "SELECT * FROM jobs") if db.exists() else []
            rows, bad, good = 0, set[str](), set[str]()
            table = ["sku,title"]
            for number, what in enumerate(night):
                sku = f"S{number}"
                photo = shop.directory / f"photos/{sku}.png"
                photo.unlink(missing_ok=True)
                if what == "gone":
                    continue
                table.append(f"{sku},{'new' if what == 'changed' else 'old'}")
                rows += 1
                (bad if what == "no photo" else good).add(sku)
                if what != "no photo":
                    rig.image(photo)
                if what == "twice":
                    table.append(table[-1])
                    rows += 1
            (shop.directory / "p.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
            faults = len(bad) + night.count("twice")
            if faults * 2 > rows or not rows:
                with pytest.raises(ManifestError):
                    shop.enroll()
                after = rig.query(db, "SELECT * FROM jobs") if db.exists() else []
                assert [tuple(row) for row in after] == [tuple(row) for row in before]
                continue
            shop.enroll()
            old = {row["key"]: row for row in before}
            new = {row["key"]: row for row in rig.query(db, "SELECT * FROM jobs")}
            for sku in bad:
                assert not new[sku]["retired"]
                if sku in old and old[sku]["state"] == "done":
                    kept = ("state", "fingerprint", "prompt", "path", "images")
                    assert [new[sku][name] for name in kept] == [old[sku][name] for name in kept]
                else:
                    assert new[sku]["state"] == "failed"
            assert all(new[sku]["state"] in ("pending", "done") for sku in good)
            shop.finish()
