"""Provide manifests for the loader and the fuzz targets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from batchgen.errors import Fault, ManifestError
from batchgen.manifest.loader import (
    LoadedManifest,
    parse_manifest,
)

SHORT: Final = """\
jobs:
  - A clean product photo of a ceramic coffee mug on a white background
  - A linen tote bag on a wooden hook, morning light
"""
NIGHTLY: Final = """\
name: catalog
provider: crazyrouter            # crazyrouter | openai | local | {base_url, api_key_env, ...}
model: gpt-image-2
rows: products.csv               # csv, tsv, jsonl, json
key: "{{ handle }}/{{ view }}"
matrix:
  view: [front, lifestyle]
prompt: >
  Studio photo of {{ title }}, {{ view }} view, soft light.
  {{ description | striptags | truncate(200) }}
options: {size: 1024x1024, quality: high, output_format: webp}   # named as the API names them
images: ["photos/{{ handle }}.jpg"]      # reference images
count: 1
output: {dir: out/catalog, path: "{{ handle }}/{{ view }}.{{ ext }}"}
refresh: changed                         # changed | always | 30d
tags: [winter]
limits: {concurrency: 16, requests_per_minute: 120, max_cost: 25.00, max_waste: 5%, deadline: 300}
jobs:
  - {key: hero, prompt: "The shop window in winter", options: {size: 1536x1024}, count: 3}
"""


def parse(text: str | bytes, file: str = "m.yaml") -> LoadedManifest:
    data = text.encode() if isinstance(text, str) else text
    return parse_manifest(data, file=file, path=Path(file))


def faults_of(text: str | bytes, file: str = "m.yaml") -> tuple[Fault, ...]:
    with pytest.raises(ManifestError) as caught:
        parse(text, file)
    return caught.value.faults


CHILD: Final = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
if sys.argv[1] == "pure":
    sys.modules["yaml._yaml"] = None
from pathlib import Path
from batchgen.errors import ManifestError
from batchgen.manifest.loader import parse_manifest

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for line in sys.stdin:
    data = json.loads(line).encode("latin-1")
    before = peak()
    try:
        parse_manifest(data, file="m.yaml", path=Path("m.yaml"))
        faults = []
    except ManifestError as error:
        faults = [str(fault) for fault in error.faults]
    print(json.dumps({"faults": faults, "kib": peak() - before}))
"""


def in_a_child(*documents: bytes, scanner: str = "fastest") -> list[dict[str, Any]]:
    lines = "".join(json.dumps(document.decode("latin-1")) + "\n" for document in documents)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, scanner],
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines()]
