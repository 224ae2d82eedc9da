"""Process-wide settings of a command-line run; a program that embeds batchgen keeps its own."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_TRIM_THRESHOLD_BYTES: Final = 32 * 1024 * 1024
_MMAP_THRESHOLD_BYTES: Final = 4 * 1024 * 1024
_GC_THRESHOLD: Final = 20_000
_SWITCH_INTERVAL_S: Final = 0.001

if sys.platform == "win32":

    def disable_core_dumps() -> None:
        """Do nothing: Windows writes no core dump unless configured to."""

else:
    import resource

    def disable_core_dumps() -> None:
        """Prevent core dumps of this process: they would contain the API key."""
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def tune_allocator() -> None:
    """Make the GNU allocator reuse the memory of one image for the next.

    By default it returns large blocks to the kernel, which has to zero them again. That is a third
    of the processor time of a one-megabyte image. Other allocators keep their settings.
    """
    with suppress(OSError, AttributeError, TypeError):  # a C library without mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)


def shorten_switch_interval() -> None:
    """Shorten the time a thread waits for the interpreter lock to a fifth of the default, to 1 ms.

    The ledger's thread needs the lock after each statement. At 5 ms each, a busy event loop would
    delay the writes that up to 64 requests wait for.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)


def tune_garbage_collector() -> None:
    """Collect garbage less often, and never scan the objects that exist now again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 20)
