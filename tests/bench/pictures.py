"""The pictures and answers that nginx serves: whole PNGs of noise, made once.

``python -m tests.bench.pictures FOLDER URL`` is a process of its own, since the memory of the suite
counts in the peak memory of every client that it starts.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Final

from PIL import Image

SIZES: Final = {
    "tiny": 8,
    "20k": 82,
    "64k": 147,
    "1500k": 708,
    "12m": 2_000,
}
"""The edge of a square of noise, whose PNG has about that many bytes."""


def make(folder: Path, url: str) -> None:
    """Write ``pictures/SIZE.png``, and the answers that name or hold them, for nginx at ``url``."""
    pictures, answers = folder / "pictures", folder / "answers"
    pictures.mkdir(parents=True)
    answers.mkdir()
    for size, edge in SIZES.items():
        picture = pictures / f"{size}.png"
        noise = Image.frombytes("RGB", (edge, edge), os.urandom(edge * edge * 3))
        noise.save(picture, compress_level=0)
        inline = base64.b64encode(picture.read_bytes()).decode()
        _answer(answers / f"url-{size}.json", {"url": f"{url}/pictures/{size}.png"})
        _answer(answers / f"inline-{size}.json", {"b64_json": inline})


def _answer(path: Path, picture: dict[str, str]) -> None:
    path.write_text(json.dumps({"created": 1_764_000_000, "data": [picture]}))


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2])
