"""Operating system errors about an endpoint: the class and the remedy that each becomes."""

from __future__ import annotations

import errno
import os

import pytest

from simpleipc_cli.errors import (
    EndpointError,
    NotASocket,
    OutOfResources,
    PathNotFound,
    PermissionDenied,
)
from simpleipc_cli.transport.unix.stream import endpoint_error, socket_hint


@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.ENOENT, PathNotFound, "check the path"),
        (errno.EACCES, PermissionDenied, "owner and mode"),
        (errno.EROFS, PermissionDenied, "choose another path"),
        (errno.ENAMETOOLONG, NotASocket, "choose another path"),
        (errno.EMFILE, OutOfResources, "ulimit -n"),
        (errno.ENOMEM, OutOfResources, "free memory"),
        (errno.EAGAIN, EndpointError, ""),  # only for connect(2) it means a full backlog
        (errno.ENOSPC, EndpointError, "free space"),
        (errno.EAFNOSUPPORT, EndpointError, "sandbox"),
        (errno.ENOSYS, EndpointError, "sandbox"),
        (errno.EIO, EndpointError, "choose another path"),
        (errno.EINTR, EndpointError, "try again later"),
    ],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) else None,
)
def test_each_error_has_a_matching_remedy(number, kind, remedy, endpoint):
    error = endpoint_error(OSError(number, os.strerror(number)), str(endpoint))
    assert type(error) is kind
    assert remedy in error.hint


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "try again later"),
        (errno.EIO, "try again later"),
        (errno.EINTR, "try again later"),
        (errno.EPERM, "sandbox"),
        (errno.ENOBUFS, "free memory"),
    ],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) else None,
)
def test_the_remedy_for_a_call_without_a_file_names_no_disk_and_no_path(number, remedy):
    hint = socket_hint(OSError(number, os.strerror(number)))
    assert remedy in hint
    assert "path" not in hint
