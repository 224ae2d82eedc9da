"""Make the data of a file durable."""

from __future__ import annotations

import os
import sys

if sys.platform == "darwin":
    from fcntl import F_FULLFSYNC, fcntl

    def sync_file(handle: int) -> None:
        """Make the written data survive a power loss. Raises OSError.

        On macOS ``fsync`` may leave data in the drive's cache (see Apple's fsync(2)). File systems
        without ``F_FULLFSYNC``, such as network shares, fall back to ``fsync``.
        """
        try:
            fcntl(handle, F_FULLFSYNC)
        except OSError:
            os.fsync(handle)

else:

    def sync_file(handle: int) -> None:
        """Make the written data survive a power loss. Raises OSError."""
        os.fsync(handle)
