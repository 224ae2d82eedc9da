"""The images and responses that nginx serves: whole PNGs of noise, made once.

``python -m tests.bench.images DIRECTORY URL TLS_URL`` is a process of its own: the memory of the
suite would count in the peak memory of every client that it starts.
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


def make(directory: Path, url: str, tls_url: str) -> None:
    """Write ``images/SIZE.png``, and the responses that name or hold them."""
    images, responses = directory / "images", directory / "responses"
    images.mkdir(parents=True)
    responses.mkdir()
    for size, edge in SIZES.items():
        image = images / f"{size}.png"
        noise = Image.frombytes("RGB", (edge, edge), os.urandom(edge * edge * 3))
        noise.save(image, compress_level=0)
        inline = base64.b64encode(image.read_bytes()).decode()
        _response(responses / f"url-{size}.json", {"url": f"{url}/images/{size}.png"})
        _response(responses / f"url-{size}-tls.json", {"url": f"{tls_url}/images/{size}.png"})
        _response(responses / f"inline-{size}.json", {"b64_json": inline})


def _response(path: Path, image: dict[str, str]) -> None:
    path.write_text(json.dumps({"created": 1_764_000_000, "data": [image]}))


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
