"""The guardian, on sockets of both types. See also cli/serve/test_killed.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest
from helpers.command import environment
from helpers.procfs import MARK, is_in_syscall, processes
from helpers.waiting import TIMEOUT, wait_until

from simpleipc_cli.process.posix import guardian
from simpleipc_cli.process.posix.guardian import Guardian

TYPES = {"linux": socket.SOCK_SEQPACKET, "darwin": socket.SOCK_STREAM}

# Starts handlers, and is killed while they have a part of their request.
SERVER = """
import os
import signal
import subprocess
import sys

platform, sys.platform = sys.platform, sys.argv[1]
from simpleipc_cli.process.posix.guardian import Guardian
sys.platform = platform

guardian = Guardian()
for name in "assigned", "starting", "released":
    reader, writer = os.pipe()
    number = guardian.hold(writer)
    assert number
    command = f"cat >/dev/null; touch {name}"
    handler = subprocess.Popen(["sh", "-c", command], stdin=reader, start_new_session=True)
    os.close(reader)
    if name != "starting":
        guardian.assign(number, handler.pid)
    if name == "released":
        guardian.release(number)
        os.close(writer)
        handler.wait()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=TYPES.values(), ids=TYPES)
def socket_type(request, monkeypatch):
    monkeypatch.setattr(guardian, "_SOCKET_TYPE", request.param)


@pytest.mark.parametrize("platform", TYPES)
def test_the_handlers_of_a_killed_server_are_killed(platform, folder):
    mark = f"guardian-{platform}-{os.getpid()}"
    subprocess.run(
        [sys.executable, "-c", SERVER, platform], cwd=folder, env=environment(**{MARK: mark})
    )
    wait_until(lambda: not processes(mark), "the handlers to end")
    assert [entry.name for entry in folder.iterdir()] == ["released"]


@pytest.mark.usefixtures("socket_type")
def test_messages_of_several_threads_are_kept_apart():
    watched = Guardian()

    def use() -> None:
        for _ in range(100):
            reader, writer = os.pipe()
            number = watched.hold(writer)
            os.close(writer)
            watched.assign(number, 0)
            watched.release(number)
            assert os.read(reader, 1) == b"", "the guardian has closed its end"
            os.close(reader)
            done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=use, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    watched.close()
    assert sorted(done) == list(range(1, 401))


# Runs as the guardian, on a system without /proc.
WITHOUT_PROC = """
import os

def refuse(path):
    raise FileNotFoundError(path)

os.listdir = refuse
from simpleipc_cli.process.posix import guardian
guardian.main()
"""


def test_without_proc_the_guardian_ends_with_the_handler_that_it_cannot_find():
    ours, theirs = socket.socketpair()
    program = subprocess.Popen([sys.executable, "-c", WITHOUT_PROC], stdout=theirs)
    theirs.close()
    reader, writer = os.pipe()
    socket.send_fds(ours, [guardian._MESSAGE.pack(guardian._HOLD, 1, 0)], [writer])
    os.close(writer)
    ours.close()
    wait_until(lambda: is_in_syscall(program.pid, "clock_nanosleep"), "it to look for the handler")
    os.close(reader)
    assert program.wait(TIMEOUT) == 0
