"""Stops a program at its system calls: to kill it there, to let the call fail, or to write it down.

strace counts per call and per thread, so that of two threads that sync files only the busier one is
ever stopped at its last calls. Here every call of every thread has one number, in the order they
are made. Linux on x86-64 only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_TRACEME, _POKEUSER, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 6, 24, 0x4200, 0x420E
_OPTIONS: Final = 0x1 | 0x2 | 0x4 | 0x8 | 0x100000
"""Separate system calls from signals, follow forks and threads, let nothing outlive the tracer."""
_ALL_THREADS: Final = 0x40000000
_CALL_STOP: Final = signal.SIGTRAP | 0x80
_RAX, _ORIG_RAX = 10 * 8, 15 * 8
_AT_FDCWD: Final = -100

SECONDS: Final = 60.0
"""No run of a trial takes longer, unless it hangs."""

CALLS: Final = {
    0: "read",
    1: "write",
    2: "open",
    3: "close",
    17: "pread64",
    18: "pwrite64",
    19: "readv",
    20: "writev",
    41: "socket",
    42: "connect",
    44: "sendto",
    45: "recvfrom",
    46: "sendmsg",
    47: "recvmsg",
    72: "fcntl",
    74: "fsync",
    75: "fdatasync",
    76: "truncate",
    77: "ftruncate",
    82: "rename",
    83: "mkdir",
    84: "rmdir",
    86: "link",
    87: "unlink",
    257: "openat",
    258: "mkdirat",
    263: "unlinkat",
    264: "renameat",
    265: "linkat",
    316: "renameat2",
}
"""The calls of files and of the network that are counted, by their numbers on x86-64."""

_KEY_SENT: Final = re.compile(rb"(?i)idempotency-key: *([0-9a-f]{32})")


class Refused(Exception):
    """This machine does not allow tracing."""


@dataclass(slots=True)
class Call:
    """One counted call, as it begins."""

    number: int
    """From 1, over all threads."""
    name: str
    thread: int
    args: tuple[int, ...]
    paths: tuple[str, ...] = ()
    """What its arguments name: paths as they are, descriptors as what they lead to."""
    result: int = 0

    @property
    def is_local(self) -> bool:
        """Whether it is about a file of a disk, not about a socket, a pipe or a device."""
        return any(path.startswith("/") and not path.startswith("/dev/") for path in self.paths)

    @property
    def changes(self) -> bool:
        """Whether a disk or a wire differs after it: a kill at any other call leaves the same
        state as one at the previous call of this kind.
        """
        return self.name not in _LOOKS or _creates(self)


_LOOKS: Final = {"open", "openat", "read", "pread64", "readv", "fcntl", "close", "socket"}


@dataclass(slots=True)
class End:
    """How a traced program ended."""

    code: int
    """Negative: the signal."""
    calls: int
    stopped_at: Call | None = None
    sent: list[tuple[str, int]] = field(default_factory=list)
    """Idempotency keys in the order they were sent, each with the number of its call."""


class Plan:
    """What to do at the calls; this one only counts."""

    def entering(self, call: Call) -> int | None:
        """An errno to fail it with, ``KILL`` to kill the program before it, or None."""

    def left(self, call: Call, memory: Memory) -> None:
        """The call was made."""


class Note(Plan):
    """Note every call."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def entering(self, call: Call) -> int | None:
        self.calls.append(call)
        return None


KILL: Final = -1


class KillAt(Plan):
    """Kill the program before the Nth call that changes anything."""

    def __init__(self, number: int) -> None:
        self.left_over = number

    def entering(self, call: Call) -> int | None:
        self.left_over -= call.changes
        return KILL if self.left_over == 0 else None


class FailAt(Plan):
    """Let the Nth call fail that can fail so; of files only those below a directory."""

    def __init__(self, number: int, error: int, directory: Path) -> None:
        self.left_over = number
        self.error = error
        self.below = f"{directory}/"

    def entering(self, call: Call) -> int | None:
        self.left_over -= self.can_fail(call)
        if self.left_over:
            return None
        self.left_over = -1
        return self.error

    def can_fail(self, call: Call) -> bool:
        """Whether the call can end with this error."""
        if self.error == errno.EMFILE:
            return call.name in _TAKES_A_DESCRIPTOR
        if not call.paths[0].startswith(self.below) or call.name in ("close", "fcntl"):
            return False
        return self.error != errno.ENOSPC or call.name in _TAKES_ROOM or _creates(call)


_TAKES_A_DESCRIPTOR: Final = {"open", "openat", "socket"}
_TAKES_ROOM: Final = {
    "write",
    "pwrite64",
    "writev",
    "fsync",
    "fdatasync",
    "ftruncate",
    "mkdir",
    "link",
    "rename",
}


def _creates(call: Call) -> bool:
    if call.name not in ("open", "openat"):
        return False
    flags = call.args[1] if call.name == "open" else call.args[2]
    return bool(flags & os.O_CREAT)


class Memory:
    """The memory of one traced thread."""

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def read(self, pointer: int, size: int) -> bytes:
        """Return this many bytes."""
        with Path(f"/proc/{self._thread}/mem").open("rb", buffering=0) as file:
            file.seek(pointer)
            return file.read(size)

    def text(self, pointer: int) -> str:
        """A path that ends with a zero."""
        found = b""
        while b"\0" not in found:
            size = 256 - (pointer + len(found)) % 256
            found += self.read(pointer + len(found), size)
        return os.fsdecode(found.partition(b"\0")[0])

    def vector(self, pointer: int, count: int) -> bytes:
        """What an array of ``iovec`` points at."""
        pairs = struct.iter_unpack("QQ", self.read(pointer, 16 * count))
        return b"".join(self.read(base, size) for base, size in pairs)


def run(program: Callable[[], int]) -> End:
    """Run a function in a child of its own, and leave it alone unless it hangs."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = program()
        finally:
            os._exit(code)
    with _limited(child, SECONDS) as late:
        _, status = os.waitpid(child, 0)
    return End(code=-signal.SIGALRM if late else os.waitstatus_to_exitcode(status), calls=0)


@contextmanager
def _limited(child: int, seconds: float) -> Iterator[list[int]]:
    """Kill the child after this many seconds; the yielded list is empty until then."""
    late: list[int] = []

    def end(*_: object) -> None:
        late.append(child)
        os.kill(child, signal.SIGKILL)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield late
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def trace(
    program: Callable[[], int], plan: Plan, *, counted_from: str, seconds: float = SECONDS
) -> End:
    """Run a function in a child process and count its calls.

    Counting begins with the first call that names ``counted_from`` in a path. After the timeout it
    is killed, and its code is ``-SIGALRM``. Raises Refused.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise Refused("tracing needs Linux on x86-64")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _ptrace(_TRACEME, 0, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            code = program()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        raise Refused("this machine does not allow tracing")
    _ptrace(_SETOPTIONS, child, 0, _OPTIONS)
    return _Tracing(child, plan, counted_from).follow(seconds)


class _Tracing:
    def __init__(self, leader: int, plan: Plan, counted_from: str) -> None:
        self._leader = leader
        self._plan = plan
        self._counted_from = counted_from
        self._counting = False
        self._open: dict[int, tuple[Call, int | None] | None] = {leader: None}
        """Of each thread the call that it is in, and the error it is to end with."""
        self._end = End(code=0, calls=0)
        self._info = ctypes.create_string_buffer(96)

    def follow(self, seconds: float) -> End:
        with _limited(self._leader, seconds) as late:
            self._go_on(self._leader)
            while self._open:
                self._wait()
        if late:
            self._end.code = -signal.SIGALRM
        return self._end

    def _wait(self) -> None:
        thread, status = os.waitpid(-1, _ALL_THREADS)
        if not os.WIFSTOPPED(status):
            self._open.pop(thread, None)
            if thread == self._leader:
                self._end.code = os.waitstatus_to_exitcode(status)
            return
        is_new = thread not in self._open
        self._open.setdefault(thread, None)
        stop = os.WSTOPSIG(status)
        if stop == _CALL_STOP:
            self._call_stop(thread)
        elif status >> 16 or (is_new and stop == signal.SIGSTOP):
            self._go_on(thread)
        else:
            self._go_on(thread, stop)

    def _call_stop(self, thread: int) -> None:
        try:
            _ptrace(_GET_SYSCALL_INFO, thread, len(self._info), ctypes.addressof(self._info))
            if self._info.raw[0] == 1:
                nr, *args = struct.unpack_from("7Q", self._info.raw, 24)
                self._entered(thread, nr, tuple(args))
            else:
                (result,) = struct.unpack_from("q", self._info.raw, 24)
                self._left(thread, result)
        except (ProcessLookupError, FileNotFoundError):
            return  # killed meanwhile
        self._go_on(thread)

    def _entered(self, thread: int, nr: int, args: tuple[int, ...]) -> None:
        self._open[thread] = None
        name = CALLS.get(nr)
        if name is None:
            return
        memory = Memory(thread)
        if not self._counting and name not in _PATHS:
            return
        paths = self._paths(name, args, memory)
        if not self._counting and self._counted_from not in paths[0]:
            return
        self._counting = True
        self._end.calls += 1
        call = Call(self._end.calls, name, thread, args, paths)
        what = self._plan.entering(call)
        if what is not None:
            self._end.stopped_at = call
        if what == KILL:
            os.kill(self._leader, signal.SIGKILL)
            raise ProcessLookupError
        if what is not None:
            _ptrace(_POKEUSER, thread, _ORIG_RAX, -1)
        elif name in ("write", "sendto", "sendmsg", "writev") and not call.is_local:
            for key in _KEY_SENT.findall(data_of(call, memory)):
                self._end.sent.append((key.decode(), call.number))
        self._open[thread] = (call, what)

    def _left(self, thread: int, result: int) -> None:
        entered = self._open.get(thread)
        self._open[thread] = None
        if entered is None:
            return
        call, error = entered
        if error is not None:
            _ptrace(_POKEUSER, thread, _RAX, -error)
            return
        call.result = result
        self._plan.left(call, Memory(thread))

    def _paths(self, name: str, args: tuple[int, ...], memory: Memory) -> tuple[str, ...]:
        """What the arguments of a call name, as absolute paths where they are files."""
        if name == "socket":
            return ("socket",)
        process = Path(f"/proc/{self._leader}")
        places = _PATHS.get(name)
        if places is None:
            with suppress(FileNotFoundError):
                return (str((process / "fd" / str(args[0])).readlink()),)
            return ("closed",)
        found = []
        for directory_at, path_at in places:
            directory = process / "cwd"
            if directory_at is not None:
                handle = ctypes.c_int(args[directory_at] & 0xFFFFFFFF).value
                if handle != _AT_FDCWD:
                    directory = process / "fd" / str(handle)
            found.append(os.path.normpath(directory.readlink() / memory.text(args[path_at])))
        return tuple(found)

    def _go_on(self, thread: int, stop: int = 0) -> None:
        with suppress(ProcessLookupError):  # killed meanwhile; its end is still to be waited for
            _ptrace(_SYSCALL, thread, 0, stop)


_PATHS: Final[dict[str, tuple[tuple[int | None, int], ...]]] = {
    "open": ((None, 0),),
    "openat": ((0, 1),),
    "truncate": ((None, 0),),
    "mkdir": ((None, 0),),
    "mkdirat": ((0, 1),),
    "rmdir": ((None, 0),),
    "unlink": ((None, 0),),
    "unlinkat": ((0, 1),),
    "rename": ((None, 0), (None, 1)),
    "renameat": ((0, 1), (2, 3)),
    "renameat2": ((0, 1), (2, 3)),
    "link": ((None, 0), (None, 1)),
    "linkat": ((0, 1), (2, 3)),
}
"""Positions of paths among the arguments, each after its directory."""


def data_of(call: Call, memory: Memory) -> bytes:
    """The bytes that a writing call hands over."""
    if call.name in ("write", "pwrite64", "sendto"):
        return memory.read(call.args[1], call.args[2])
    if call.name == "writev":
        return memory.vector(call.args[1], call.args[2])
    assert call.name == "sendmsg"
    base, count = struct.unpack("QQ", memory.read(call.args[1] + 16, 16))
    return memory.vector(base, count)


_libc: Any = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, thread: int, pointer: int, data: int) -> None:
    ctypes.set_errno(0)
    if _libc.ptrace(request, thread, pointer, data) == -1 and ctypes.get_errno():
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
