"""A runner as most are written: call, save, record. The judge must find out."""

from __future__ import annotations

import hashlib
import json
import urllib.request
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from PIL import Image

from batchgen.job import BatchId
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.runs import start_run
from tests.support import rig


def naive(arguments: Sequence[str]) -> int:
    """Make what a manifest lists that is not on record: the base URL, then the prompts."""
    base_url, *prompts = arguments
    directory = Path.cwd()
    (directory / "batchgen.db.spool").mkdir(exist_ok=True)
    with closing(open_for_writing(directory / "batchgen.db")) as conn:
        done = {row["key"] for row in conn.execute("SELECT key FROM jobs")}
        for number, prompt in enumerate(prompts):
            key = f"job-{number:03d}"
            if key in done:
                continue
            attempt = uuid.uuid4().hex
            image = _buy(base_url, prompt, attempt)
            path = directory / "out" / f"{key}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(image)
            with Image.open(path) as opened:
                width, height = opened.size
            _record(Ledger(conn), key, prompt, attempt, image, (width, height))
    return 0


def _buy(base_url: str, prompt: str, attempt: str) -> bytes:
    body = {"model": "gpt-image-2", "prompt": prompt, "size": "1024x640"}
    request = urllib.request.Request(
        f"{base_url}/images/generations",
        data=json.dumps(body).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": "Bearer sk-naive",
            "Idempotency-Key": attempt,
        },
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        url = json.load(response)["data"][0]["url"]
    with urllib.request.urlopen(url, timeout=20) as response:
        image: bytes = response.read()
    return image


def _record(
    ledger: Ledger, key: str, prompt: str, attempt: str, image: bytes, size: tuple[int, int]
) -> None:
    conn = ledger.conn
    conn.execute("BEGIN IMMEDIATE")
    conn.execute(
        "INSERT OR IGNORE INTO batches VALUES"
        " (1, 'batch', 'local', 'm', 'm', 'm', 1, 't', 't', NULL)"
    )
    row = conn.execute("SELECT max(id) AS id FROM runs").fetchone()["id"]
    run = row or start_run(
        ledger, BatchId(1), estimate=rig.PRICE, max_cost=None, max_waste=rig.PRICE
    )
    job = conn.execute(
        "INSERT INTO jobs (batch_id, key, state, fingerprint, model, prompt, options, images, root,"
        " path, verify, keep_previous, keep_partials, sidecar, metadata, tags, source, estimated,"
        " plan, changed_at) VALUES (1, ?, 'done', ?, 'm', ?, '{}', '[]', 'out', ?, 'structure',"
        " 0, 0, 0, 0, '[]', '{}', ?, 1, 't')",
        (key, key, prompt, f"{key}.png", rig.PRICE),
    ).lastrowid
    conn.execute(
        "INSERT INTO attempts (id, job_id, run_id, fingerprint, provider, model, started_at,"
        " outcome, billed, price, cost) VALUES (?, ?, ?, ?, 'local', 'm', 't', 'ok', 'yes', ?, ?)",
        (attempt, job, run, key, rig.PRICE, rig.PRICE),
    )
    conn.execute("UPDATE runs SET charged = charged + ? WHERE id = ?", (rig.PRICE, run))
    conn.execute(
        "INSERT INTO images (job_id, attempt_id, position, state, root, path, sha256, bytes, width,"
        " height, format, saved_at)"
        " VALUES (?, ?, 0, 'saved', 'out', ?, ?, ?, ?, ?, 'png', 't')",
        (job, attempt, f"{key}.png", hashlib.sha256(image).hexdigest(), len(image), *size),
    )
    conn.execute("COMMIT")
