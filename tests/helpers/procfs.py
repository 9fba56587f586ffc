"""Read the state of processes and sockets from /proc."""

from __future__ import annotations

import os
import re
import select
import signal
from pathlib import Path

from helpers.waiting import wait_until

MARK = "SIPC_TEST_MARK"
ACCEPTS = 1 << 16  # the flag of a listening socket in /proc/net/unix (proc_net(5))


def processes(mark: str) -> dict[int, str]:
    """Find processes that inherited a mark, zombies too; their state by process id."""
    found = {}
    wanted = f"{MARK}={mark}".encode()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if wanted in _content(f"/proc/{name}/environ"):
                    stat = _content(f"/proc/{name}/stat").decode(errors="replace")
                    found[int(name)] = stat.rpartition(")")[2]
            except OSError:
                pass  # it has ended, or is another user's
    return found


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def children(pid: int) -> list[int]:
    """The children of a process, zombies included."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            found += _content(f"/proc/{pid}/task/{task}/children").split()
        except FileNotFoundError:
            pass  # a thread that has just ended; its children are another's now
    return [int(child) for child in found]


def state(pid: int) -> str:
    """Return the state of a process, as in proc_pid_stat(5): S sleeps, Z is a zombie."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


_SEQPACKET = "0005"


def _unix_sockets(pid: int | str) -> list[list[str]]:
    """The fields of all sockets in a process's network namespace; names may be any bytes."""
    text = Path(f"/proc/{pid}/net/unix").read_text(errors="replace")
    rows = [line.split(maxsplit=7) for line in text.split("\n")[1:]]
    return [row for row in rows if len(row) >= 7]  # a name may have a newline


def descriptors(pid: int) -> list[str]:
    """What a process has open.

    Leaves out libffi's own file: from version 3.8 on, libffi opens it for the first callback that
    ctypes makes, which may be before or after a test looks, and keeps it open. Also leaves out the
    connection to the guardian of handlers' input, which is opened for the first long request.
    """
    guardians = {f"socket:[{row[6]}]" for row in _unix_sockets(pid) if row[4] == _SEQPACKET}
    links = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except OSError:
            pass
    return sorted(link for link in links if "/libffi.so." not in link and link not in guardians)


# The numbers of each call, and of the calls that Python or its C library makes in its place:
# select.poll() is ppoll(2) since Python 3.15, musl's epoll_wait() is epoll_pwait(2).
_CALLS = {
    "x86_64": {
        "read": {0},
        "write": {1},
        "poll": {7, 271},
        "readv": {19},
        "connect": {42},
        "recvfrom": {45},
        "recvmsg": {47},
        "futex": {202},
        "rt_sigtimedwait": {128},
        "epoll_wait": {232, 281},
        "clock_nanosleep": {230},
    },
    "aarch64": {
        "read": {63},
        "write": {64},
        "poll": {73},
        "readv": {65},
        "futex": {98},
        "rt_sigtimedwait": {137},
        "epoll_wait": {22},
        "connect": {203},
        "recvfrom": {207},
        "recvmsg": {212},
        "clock_nanosleep": {115},
    },
}


def is_in_syscall(pid: int, call: str) -> bool:
    """Whether a process waits in a system call."""
    try:
        number = Path(f"/proc/{pid}/syscall").read_text().partition(" ")[0]  # may be empty
    except OSError:
        return False
    return number.isdecimal() and int(number) in _CALLS[os.uname().machine][call]


def is_waiting(pid: int) -> bool:
    """Whether all threads of a process wait for something to happen, or for each other."""
    tasks = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    waits = ("epoll_wait", "poll", "futex", "rt_sigtimedwait")
    return all(any(is_in_syscall(task, call) for call in waits) for task in tasks)


def waits_to_write(pid: int) -> bool:
    """Whether a process waits, with epoll(7), until it can write something."""
    return any(
        int(found[1], 16) & select.EPOLLOUT
        for file in Path(f"/proc/{pid}/fdinfo").iterdir()
        for found in re.finditer(r"^tfd:.* events: *([0-9a-f]+)", file.read_text(), re.M)
    )


def waits_for_ever(pid: int) -> bool:
    """Whether a process waits in epoll_wait(2) without a timeout."""
    if not is_in_syscall(pid, "epoll_wait"):
        return False
    timeout = Path(f"/proc/{pid}/syscall").read_text().split()[4:5]
    return timeout != [] and int(timeout[0], 16) & 0xFFFFFFFF == 0xFFFFFFFF


def wakeups(pid: int) -> int:
    """Return how often a process has gone to sleep."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M)[1])


def stop_process(pid: int) -> None:
    """Stop a process, and wait until it stands still: a signal takes its time."""
    os.kill(pid, signal.SIGSTOP)

    def stands_still():
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return all(
            (task / "stat").read_text().rpartition(")")[2].split()[0] in "Tt" for task in tasks
        )

    wait_until(stands_still, "it to stand still")


def peak_memory(pid: int) -> int:
    """The most memory a process has used so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def has_listener(path) -> bool:
    """Return whether a socket listens on a path, without connecting to it."""
    rows = _unix_sockets("self")
    return any(int(row[3], 16) & ACCEPTS for row in rows if row[7:] == [str(path)])
