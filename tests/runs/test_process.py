"""What a run sets for its process, seen in a process of its own."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

BLOCK_BYTES = 512 * 1024
ROUNDS = 100

_FAULTS = f"""
import resource, sys
if sys.argv[1] == "reuse":
    from batchgen.system.process import tune_allocator
    tune_allocator()
def fill():
    blocks = [bytearray({BLOCK_BYTES}) for _ in range(8)]
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", _FAULTS, how], check=True, capture_output=True, text=True
    )
    return int(ran.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the GNU allocator")
def test_large_blocks_of_memory_are_kept_for_reuse() -> None:
    as_ever = page_faults("as ever")
    if as_ever < ROUNDS:
        pytest.skip("this allocator keeps its pages by itself")
    assert page_faults("reuse") < as_ever / 10


def test_what_the_start_made_is_not_looked_at_for_cycles_again() -> None:
    code = (
        "import gc; from batchgen.system.process import tune_garbage_collector;"
        "tune_garbage_collector();"
        "print(gc.get_freeze_count(), gc.get_threshold()[0])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    frozen, young = map(int, ran.stdout.split())
    assert frozen > 1000
    assert young > gc.get_threshold()[0]
