"""Run the command line as `python -m batchgen`."""

from __future__ import annotations

from batchgen.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
