"""A manager that keeps a listening socket, for the tests of passed sockets.

Like systemd it makes the socket, hands it to one server after the other as descriptor 3, and
keeps it open when a server has ended.
"""

from __future__ import annotations

import socket
import subprocess

from helpers.command import SIPC, Program, environment


def descriptor_moves(numbers: list[int]) -> str:
    """For a shell: what was passed as these descriptors becomes 3, 4, ..., and runs "$@"."""
    high = range(100, 100 + len(numbers))  # out of the way first: a number may be another's place
    away = [f"{to}<&{number} {number}<&-" for to, number in zip(high, numbers, strict=True)]
    back = [f"{at}<&{moved} {moved}<&-" for at, moved in enumerate(high, 3)]
    moves = [f"exec {' '.join(moved)};" for moved in (away, back) if moved]
    return f'{" ".join(moves)} LISTEN_PID=$$ exec "$@"'


class SocketManager:
    """A listening socket, and servers that get it."""

    def __init__(self, address: str | bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(address)
        self.socket.listen(1024)

    def __enter__(self) -> SocketManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def start(self, *options, command="cat", path=(), **more) -> Program:
        """A server on it."""
        arguments = [SIPC, "serve", *path, "--exec", command, *map(str, options)]
        return start_with_sockets(arguments, self.socket, **more)


def start_with_sockets(
    arguments, *sockets, names: str | None = None, count=None, **more
) -> Program:
    """Start a program that is passed these sockets, as LISTEN_FDS says."""
    passed = {"LISTEN_FDS": str(len(sockets) if count is None else count)}
    if names is not None:
        passed["LISTEN_FDNAMES"] = names
    numbers = [given.fileno() for given in sockets]
    more = {
        "env": {**more.pop("env", environment()), **passed},
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "pass_fds": numbers,
        **more,
    }
    return Program(["bash", "-c", descriptor_moves(numbers), "bash", *map(str, arguments)], **more)
