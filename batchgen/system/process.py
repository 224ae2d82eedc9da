"""What a run sets for its whole process, and no program that embeds one would want set for it."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_KEPT_FREE_BYTES: Final = 32 * 1024 * 1024
_FROM_THE_HEAP_BYTES: Final = 4 * 1024 * 1024
_YOUNG_OBJECTS: Final = 20_000
_TURN_S: Final = 0.001

if sys.platform == "win32":

    def keep_memory_off_the_disk() -> None:
        """Windows writes no memory of a process to a file unless it is told to."""

else:
    import resource

    def keep_memory_off_the_disk() -> None:
        """Have no core dump of this process written: the key would be in it."""
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def reuse_memory() -> None:
    """Have the pages of one image serve the next.

    Of itself the GNU allocator gives large blocks back to the kernel and has them cleared anew,
    which is a third of what an image of a megabyte costs. Other allocators are left alone.
    """
    with suppress(OSError, AttributeError, TypeError):  # no C library that knows of it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _FROM_THE_HEAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)


def take_turns() -> None:
    """Have a thread that wants to go on wait for the interpreter's lock a fifth as long as usual.

    The ledger asks for it after each statement; at 5 ms each, a busy event loop would hold up what
    64 requests wait for.
    """
    sys.setswitchinterval(_TURN_S)


def collect_seldom() -> None:
    """Look for reference cycles less often, and never again among what is here to stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)
