"""Users of a local directory load nothing of the extras, also where these are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import rig
from tests.support.extras import require

require("obstore", "pyarrow")

CHECK = (
    "assert not {'obstore', 'pyarrow', 'ray'} & set(sys.modules)\n"
    "assert not [name for name in sys.modules if name.startswith('batchgen.cluster')]"
)


@pytest.mark.parametrize("module", ["batchgen", "batchgen.api", "batchgen.cli.main"])
def test_an_import_loads_no_extra(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import sys, {module}\n{CHECK}"], check=True)


def test_a_plain_run_loads_no_extra(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    script = (
        # sqlite-utils imports pandas where it is installed, and that imports pyarrow.
        "import sys\nsys.modules['pandas'] = None\nfrom batchgen.cli.main import main\n"
        f"assert main(['run', {path.name!r}]) == 0\n"
        f"assert main(['verify', 'batch']) == 0\n{CHECK}\n"
    )
    rig.python(script, cwd=tmp_path)
