"""Mount points and file systems, as the kernel lists them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from batchgen.system.mounts import is_local, mount_points

LINES = b"""\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 35 98:0 /mnt1 /my\\040shop rw master:1 - nfs4 host:/shop rw
37 36 0:50 / /my\\040shop/fast rw - tmpfs tmpfs rw
38 22 0:51 / /mnt/c rw - 9p drvfs rw
39 22 0:52 / /again rw - ext4 /dev/sdb1 rw
40 22 0:53 / /again rw - cifs //host/share rw
36 35
"""


def test_mount_points_are_read_with_their_spaces() -> None:
    found = mount_points(LINES)
    assert found[b"/my shop"] == b"nfs4"
    assert found[b"/again"] == b"cifs", "the last mount covers the others"
    assert len(found) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX paths")
@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/srv/shop", True),
        ("/my shop/images", False),
        ("/my shop/fast/images", True),
        ("/my shopping", True),
        ("/mnt/c/Users", False),
        ("/again/x", False),
    ],
)
def test_a_directory_is_on_the_innermost_file_system(directory: str, expected: bool) -> None:
    assert is_local(Path(directory), LINES) is expected


def test_a_file_system_that_is_not_listed_is_not_local() -> None:
    assert not is_local(Path("/srv"), b"")
