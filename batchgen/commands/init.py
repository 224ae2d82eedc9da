"""`batchgen init` and `schema`: write a first manifest, and the JSON Schema for editors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, SettingsError

_FIRST_MANIFEST: Final = """\
# Run it:          batchgen run {file}
# What would it do: batchgen plan {file}
provider: local              # the embedded endpoint: no key, no cost; then: crazyrouter
model: gpt-image-2
options: {{size: 1024x1024, quality: high, output_format: png}}
limits: {{max_cost: 5.00}}     # dollars
jobs:
  - A clean product photo of a ceramic coffee mug on a white background
  - key: tote
    prompt: A linen tote bag on a wooden hook, morning light
"""


def init(path: Path) -> ExitCode:
    """Write a first manifest. Raises SettingsError if the file exists."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_FIRST_MANIFEST.format(file=path))
    except FileExistsError:
        raise SettingsError(f"{path}: exists already, and is not overwritten") from None
    except OSError as exc:
        raise SettingsError(f"{path}: can't be written: {exc}") from exc
    write_line(sys.stdout, f"{path} is written\nnext: batchgen run {path}")
    return ExitCode.DONE


def schema() -> ExitCode:
    """Print the JSON Schema of a manifest."""
    from batchgen.manifest.loader import json_schema

    write_line(sys.stdout, json.dumps(json_schema(), indent=2))
    return ExitCode.DONE
