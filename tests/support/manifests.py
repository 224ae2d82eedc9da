"""Provide manifests for the loader and the fuzz targets."""

from __future__ import annotations

from typing import Final

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
