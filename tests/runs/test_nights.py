"""Twelve nights of a catalogue that changes: what is bought, what is on disk, and what it cost."""

from __future__ import annotations

import csv
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.support import rig

NIGHTS = 12
KILLED, POOR, TOPPED_UP, OVERLAPPING, DEARER = 3, 5, 6, 8, 10
"""The nights on which something else happens."""
COLORS = ("red", "green", "blue", "yellow", "grey", "black", "white")
MANIFEST = """\
name: nightly
provider: {{name: local, base_url: {base_url}}}
rows: products.csv
key: "{{{{ handle }}}}"
prompt: "{{{{ handle }}}} is {{{{ title }}}}"
images: ["photos/{{{{ handle }}}}.png"]
options: {{size: 1024x640}}
limits: {{concurrency: 4}}
output: {{path: "{{{{ key }}}}.{{{{ ext }}}}"}}
"""


@dataclass
class Shop:
    """A catalogue that somebody edits by day."""

    directory: Path
    dice: random.Random
    products: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By handle: title, and the color of the photo."""
    number: int = 0

    def add(self) -> None:
        self.number += 1
        handle = f"product-{self.number:03d}"
        self.products[handle] = (f"edition {self.number}", self.dice.choice(COLORS))

    def edit(self) -> None:
        """A day's changes: some new, some changed, a photo swapped, one gone; some days nothing."""
        for _ in range(self.dice.randrange(3)):
            self.add()
        for handle in self.dice.sample(sorted(self.products), self.dice.randrange(3)):
            self.products[handle] = (f"{self.products[handle][0]}, again", "red")
        if self.dice.random() < 0.5:
            handle = self.dice.choice(sorted(self.products))
            title, color = self.products[handle]
            others = [other for other in COLORS if other != color]
            self.products[handle] = (title, self.dice.choice(others))
        if self.dice.random() < 0.3 and len(self.products) > 4:
            del self.products[self.dice.choice(sorted(self.products))]

    def write(self) -> None:
        """Export it, in an order of the shop's own."""
        photos = self.directory / "photos"
        photos.mkdir(exist_ok=True)
        rows = sorted(self.products.items())
        self.dice.shuffle(rows)
        with (self.directory / "products.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["handle", "title"])
            for handle, (title, color) in rows:
                table.writerow([handle, title])
                rig.image(photos / f"{handle}.png", color)


@contextmanager
def endpoint(directory: Path, port: int, *switches: str) -> Iterator[rig.Endpoint]:
    """The provider of one night; its bill and its URL stay."""
    with rig.endpoint(
        directory / "state", "--fast-images", "--port", str(port), *switches
    ) as running:
        yield running


def bought(bill: list[dict[str, Any]]) -> Counter[str]:
    """How often each product was paid for."""
    return Counter(row["prompt"].partition(" is ")[0] for row in bill)


def kill_after(directory: Path, path: Path, events: int) -> None:
    with rig.start("run", path, "--json", cwd=directory) as process:
        for number, _ in enumerate(rig.events(process), start=1):
            if number == events:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()


@pytest.mark.fault("P15", "Q18")
def test_twelve_nights_buy_only_what_changed(tmp_path: Path) -> None:
    shop = Shop(tmp_path, random.Random(30))
    for _ in range(8):
        shop.add()
    path = tmp_path / "nightly.yaml"
    made: dict[str, tuple[str, str]] = {}
    price, port, spent = "0.0377", 0, 0
    for night in range(1, NIGHTS + 1):
        if night > 1:
            shop.edit()
        if night in (KILLED, POOR, OVERLAPPING):
            for _ in range(5):
                shop.add()
        shop.write()
        price = "0.05" if night >= DEARER else price
        switches = ["--price", price]
        if night == POOR:
            # Two images are left, of at least five.
            switches += ["--balance", f"{spent / 1_000_000 + 2.5 * float(price):.6f}"]
        if night in (KILLED, OVERLAPPING):
            switches += ["--latency", "0.4"]
        with endpoint(tmp_path, port, *switches) as served:
            port = int(served.base_url.rpartition(":")[2].partition("/")[0])
            path.write_text(MANIFEST.format(base_url=served.base_url), encoding="utf-8")
            before = len(served.bill())
            wanted = {
                handle for handle, made_of in shop.products.items() if made.get(handle) != made_of
            }
            uncertain = 0
            if night == KILLED:
                kill_after(tmp_path, path, 6)
                served.wait_until_idle()
                rig.judge(tmp_path, served.bill(), finished=False)
                (row,) = rig.query(
                    tmp_path / "batchgen.db",
                    "SELECT count(*) AS n FROM attempts WHERE outcome = 'sending'",
                )
                uncertain = row["n"]
            if night == POOR:
                stopped = rig.batchgen("run", path, cwd=tmp_path, code=3)
                assert "top up" in stopped.stdout
            elif night == OVERLAPPING:
                with rig.start("run", path, "--json", cwd=tmp_path) as first:
                    next(rig.events(first))
                    first.send_signal(signal.SIGSTOP)  # it must not be over before the second
                    rig.batchgen("run", path, cwd=tmp_path, code=75)
                    first.send_signal(signal.SIGCONT)
                    first.communicate(timeout=rig.TIMEOUT_S)
                assert first.returncode == 0
            elif night == DEARER:
                refused = rig.batchgen("run", path, cwd=tmp_path, code=3)
                assert "prices have risen" in refused.stderr
                assert len(served.bill()) == before
                rig.batchgen("run", path, "--yes", cwd=tmp_path)
            else:
                rig.batchgen("run", path, "--max-waste", "100%", cwd=tmp_path)
            tonight = served.bill()[before:]
            rig.judge(tmp_path, served.bill(), finished=night != POOR)
        paid = bought(tonight)
        if night == POOR:
            assert len(tonight) == 2
            assert set(paid) <= wanted
            made |= {handle: shop.products[handle] for handle in paid}
        else:
            assert set(paid) == wanted, night
            assert sum(paid.values()) <= len(wanted) + uncertain, night
            made |= {handle: shop.products[handle] for handle in wanted}
            check_images(tmp_path, set(shop.products))
        spent += sum(row["micros"] for row in tonight)
    (row,) = rig.query(
        tmp_path / "batchgen.db", "SELECT sum(charged) AS charged, sum(maybe) AS maybe FROM runs"
    )
    # A request that the kill kept from leaving is uncertain too, and on no bill.
    assert row["charged"] <= spent <= row["charged"] + row["maybe"]
    found = rig.status(tmp_path, "nightly")
    assert found["jobs"]["done"] == len(shop.products)
    assert found["retired"] == shop.number - len(shop.products) > 0


def check_images(directory: Path, products: set[str]) -> None:
    """Every product has its one image, the one that the ledger knows."""
    rows = rig.query(
        directory / "batchgen.db",
        "SELECT key, images.root AS root, images.path AS path, sha256 FROM jobs"
        " JOIN images ON job_id = jobs.id AND images.state = 'saved' WHERE retired = 0",
    )
    assert Counter(row["key"] for row in rows) == Counter(products)
    for row in rows:
        content = (directory / row["root"] / row["path"]).read_bytes()
        assert sha256(content).hexdigest() == row["sha256"]
