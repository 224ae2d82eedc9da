"""A ledger of many saved images, written without a run."""

from __future__ import annotations

import hashlib
import io
import sqlite3
from contextlib import closing
from pathlib import Path

from PIL import Image

from batchgen.ledger.database import open_for_writing
from batchgen.ledger.transaction import write_transaction

PRICE = 37_700
MODELS = ("gpt-image-2", "nano-banana")
TAGS = ('["shop"]', '["shop", "spring"]', "[]")
AT = "2026-11-28T02:00:00.000Z"


def png(number: int, side: int = 64) -> bytes:
    """Return a small PNG that differs by number."""
    buffer = io.BytesIO()
    color = (number * 37 % 256, number * 91 % 256, number // 256 % 256)
    image = Image.new("RGB", (side, side), color)
    image.putpixel((number % side, number // side % side), (255, 255, 255))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def big_matrix(directory: Path, rows: int) -> Path:
    """Write a batch of rows, each with an image of each of `MODELS`; return the ledger's path."""
    lines = (f"thing {n},k-{2 * n:05d},k-{2 * n + 1:05d}\n" for n in range(rows))
    (directory / "t.csv").write_text("title,first,second\n" + "".join(lines), encoding="utf-8")
    return big_batch(directory, 2 * rows, manifest=_MATRIX)


_MATRIX = f"""\
name: batch
provider: local
rows: t.csv
key: "{{{{ first if model == '{MODELS[0]}' else second }}}}"
matrix: {{model: [{", ".join(MODELS)}]}}
prompt: "A {{{{ title }}}}"
"""


def big_batch(
    directory: Path, images: int, *, runs: int = 1, name: str = "batch", manifest: str = ""
) -> Path:
    """Write a manifest, a ledger and its files, and return the path of the ledger.

    Image N is of job N and of run 1 + N modulo ``runs``; every seventh has a warning.
    """
    (directory / "out" / name).mkdir(parents=True, exist_ok=True)
    manifest = manifest or f"name: {name}\nprovider: local\njobs: [x]\n"
    (directory / f"{name}.yaml").write_text(manifest, encoding="utf-8")
    db = directory / "batchgen.db"
    with closing(open_for_writing(db)) as conn, write_transaction(conn):
        _batch(conn, name, manifest, runs)
        (batch,) = conn.execute("SELECT id FROM batches WHERE name = ?", (name,)).fetchone()
        first = [row[0] for row in conn.execute("SELECT id FROM runs WHERE batch_id = ?", (batch,))]
        (start,) = conn.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()
        for number in range(images):
            content = png(number)
            path = f"k-{number:05d}.png"
            (directory / "out" / name / path).write_bytes(content)
            _image(conn, (start + number + 1, batch, first[number % runs]), number, path, content)
        conn.execute("UPDATE tallies SET jobs = ? WHERE batch_id = ?", (images, batch))
        conn.execute("UPDATE tallies SET done = ? WHERE batch_id = ?", (images, batch))
    return db


def _batch(conn: sqlite3.Connection, name: str, manifest: str, runs: int) -> None:
    conn.execute(
        "INSERT INTO batches (name, provider, manifest_path, manifest_sha256, manifest, plan,"
        " created_at, planned_at) VALUES (?, 'local', ?, '', ?, 1, ?, ?)",
        (name, f"{name}.yaml", manifest, AT, AT),
    )
    for _ in range(runs):
        conn.execute(
            "INSERT INTO runs (batch_id, started_at, ended_at, estimate, max_waste, exit_code)"
            " VALUES ((SELECT id FROM batches WHERE name = ?), ?, ?, 0, 0, 0)",
            (name, AT, AT),
        )


def _image(
    conn: sqlite3.Connection, ids: tuple[int, int, int], number: int, path: str, content: bytes
) -> None:
    job, batch, run = ids
    model, tags = MODELS[number % 2], TAGS[number % 3]
    name = path.removesuffix(".png")
    conn.execute(
        "INSERT INTO jobs (id, batch_id, key, state, fingerprint, model, prompt, options, images,"
        " root, path, verify, keep_previous, keep_partials, sidecar, metadata, tags, source,"
        " estimated, plan, changed_at, done_at) VALUES (?, ?, ?, 'done', ?, ?, ?, '{}', '[]', ?,"
        " ?, 'fast', 1, 0, 0, 0, ?, ?, ?, 1, ?, ?)",
        (
            job,
            batch,
            name,
            f"f{job}",
            model,
            f"photo {number}",
            _root(conn, batch),
            path,
            tags,
            f"t.csv:{number + 2}",
            PRICE,
            AT,
            AT,
        ),
    )
    conn.execute(
        "INSERT INTO attempts (id, job_id, run_id, fingerprint, provider, model, started_at,"
        " ended_at, outcome, billed, price, cost) VALUES (?, ?, ?, ?, 'local', ?, ?, ?, 'ok',"
        " 'yes', ?, ?)",
        (f"a{job}", job, run, f"f{job}", model, AT, AT, PRICE, PRICE),
    )
    conn.execute(
        "INSERT INTO images (job_id, attempt_id, position, state, root, path, sha256, bytes,"
        " width, height, format, warnings, saved_at) VALUES (?, ?, 0, 'saved', ?, ?, ?, ?, 64, 64,"
        " 'png', ?, ?)",
        (
            job,
            f"a{job}",
            _root(conn, batch),
            path,
            hashlib.sha256(content).hexdigest(),
            len(content),
            '["size differs"]' if number % 7 == 0 else None,
            AT,
        ),
    )


def _root(conn: sqlite3.Connection, batch: int) -> str:
    (name,) = conn.execute("SELECT name FROM batches WHERE id = ?", (batch,)).fetchone()
    return f"out/{name}"
