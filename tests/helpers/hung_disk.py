"""A file system that never answers: a process that uses it hangs until it is killed."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from helpers.procfs import children, threads, wait_channel
from helpers.waiting import TIMEOUT

_MNT_DETACH = 2
_MAX_REQUEST = 1 << 17
_INIT_ANSWER = struct.Struct("<4I2H2I2H8I")  # struct fuse_init_out (fuse(4))
_HEADER = struct.Struct("<IiQ")  # struct fuse_out_header

needs_fuse = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK),
    reason="mounts a file system: root and /dev/fuse",
)


@contextmanager
def hung_disk(folder: Path) -> Iterator[Callable[..., bool]]:
    """Mount it on `folder`; yield a function that waits until a process hangs.

    The function takes the process, or the parent of the process, and the seconds to wait, and
    returns whether it does. Others may look at what is mounted.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kernel = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={kernel},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"hung", os.fsencode(folder), b"fuse", 0, options):
            pytest.skip(f"cannot mount: {os.strerror(ctypes.get_errno())}")
        try:
            _answer_init(kernel)
            yield partial(_is_used, kernel)
        finally:
            libc.umount2(os.fsencode(folder), _MNT_DETACH)
    finally:
        os.close(kernel)


def _answer_init(kernel: int) -> None:
    request = os.read(kernel, _MAX_REQUEST)
    (unique,) = struct.unpack_from("<Q", request, 8)
    body = _INIT_ANSWER.pack(7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, *[0] * 8)
    os.write(kernel, _HEADER.pack(_HEADER.size + len(body), 0, unique) + body)


def _is_used(kernel: int, pid: int, seconds: float = TIMEOUT) -> bool:
    if not select.select([kernel], [], [], seconds)[0]:
        return False
    # Other users may access the file system.
    waiting = map(wait_channel, [*threads(pid), *children(pid)])
    return "request_wait_answer" in waiting
