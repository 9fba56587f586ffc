"""Read the state of processes and sockets from /proc.

A process may end at any time, also between two reads. One that has ended is in state X, and has no
threads, children, descriptors, arguments or system call: only status() and stop_process() fail.
"""

from __future__ import annotations

import os
import re
import select
import signal
import struct

from helpers.masked import HAS_EPOLL, SYSTEM
from helpers.waiting import wait_until

MARK = "SIPC_TEST_MARK"
ACCEPTS = 1 << 16  # the flag of a listening socket in /proc/net/unix (proc_net(5))


def _read(path: str) -> str:
    """Read a file; return no bytes if its process has ended or runs as another user."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _names(path: str) -> list[str]:
    """List a folder in the same way."""
    try:
        return os.listdir(path)
    except OSError:
        return []


def processes(mark: str, variable: str = MARK) -> dict[int, str]:
    """Find processes that inherited a mark; their state and arguments by process id.

    Leaves out zombies, which have no environment.
    """
    wanted = f"{variable}={mark}"
    return {
        pid: f"{state(pid)} {' '.join(arguments(pid))}"
        for pid in all_processes()
        if wanted in _strings(pid, "environ")
    }


def all_processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def arguments(pid: int) -> list[str]:
    """The words of a process's command line."""
    return _strings(pid, "cmdline")


def _strings(pid: int, name: str) -> list[str]:
    """Read strings from the memory of a process. It has none while execve(2) runs, or exit(2)."""
    text = _read(f"/proc/{pid}/{name}")
    if not text:
        wait_until(lambda: not _is_changing(pid), f"process {pid} to have a new program, or to end")
        text = _read(f"/proc/{pid}/{name}")
    return text.removesuffix("\0").split("\0") if text else []


_EXITING = 4  # PF_EXITING in the flags: its memory is freed before its files are closed


def _is_changing(pid: int) -> bool:
    """Whether a process has no program: that of execve(2) has no code yet, or exit(2) runs."""
    size, _, _, start_of_code = [*_stat(pid), *["0"] * 50][20:24]
    return (size != "0" and start_of_code == "0") or any(map(_is_exiting, threads(pid)))


def _is_exiting(thread: int) -> bool:
    """Whether a thread is about to end, and its files are perhaps still open."""
    state, *fields = [*_stat(thread), *["0"] * 50]
    return int(fields[5]) & _EXITING != 0 and state not in "ZX"


def threads(pid: int) -> list[int]:
    return [int(name) for name in _names(f"/proc/{pid}/task")]


def children(pid: int) -> list[int]:
    """The children of a process, zombies included."""
    lists = [_read(f"/proc/{pid}/task/{thread}/children") for thread in threads(pid)]
    return [int(child) for found in lists for child in found.split()]


def _stat(pid: int) -> list[str]:
    """The fields of proc_pid_stat(5) after the name; the first is the state."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split() or ["X"]


def state(pid: int) -> str:
    """Return the state of a process or thread: S sleeps, Z is a zombie, X has ended."""
    return _stat(pid)[0]


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return state(pid) not in "ZX"


def processor_time(pid: int, *, with_children: bool = False) -> float:
    """Return the processor time of a process and of its reaped children, in seconds."""
    times = _stat(pid)[11 : 15 if with_children else 13]
    assert times, f"process {pid} has ended"
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def status(pid: int, field: str, file: str = "status") -> str:
    """Return a field of proc_pid_status(5) of a process that runs, without its unit."""
    found = re.search(rf"^{field}:\s+(\S+)", _read(f"/proc/{pid}/{file}"), re.M)
    assert found, f"process {pid} has no {field}: it is {state(pid)}"
    return found[1]


def peak_memory(pid: int) -> int:
    """Return the maximum memory that a process has used so far, in bytes."""
    return int(status(pid, "VmHWM")) * 1024


def wakeups(pid: int) -> int:
    """Return how often a process has gone to sleep."""
    return int(status(pid, "voluntary_ctxt_switches"))


def handled_signals(pid: int) -> set[int]:
    """The signals for which a process has a handler."""
    mask = int(status(pid, "SigCgt"), 16)
    return {number for number in signal.valid_signals() if mask >> (number - 1) & 1}


_SEQPACKET = "0005"


def _unix_sockets(pid: int | str) -> list[list[str]]:
    """The fields of all sockets in a process's network namespace; names may be any bytes."""
    rows = [line.split(maxsplit=7) for line in _read(f"/proc/{pid}/net/unix").split("\n")[1:]]
    return [row for row in rows if len(row) >= 7]  # a name may have a newline


def descriptors(pid: int | str) -> list[str]:
    """The open descriptors of a process.

    Leaves out the file of libffi: from version 3.8 on, libffi opens it for the first callback that
    ctypes makes, which may be before or after a test looks, and keeps it open. It also
    leaves out the connection to the guardian of handlers' input, opened for the first long request.
    """
    links = []
    for number in _names(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except OSError:
            pass
    # After the links, as a guardian's connection stays open.
    guardians = _guardian_connections(pid, links)
    return sorted(link for link in links if "/libffi.so." not in link and link not in guardians)


def _guardian_connections(pid: int | str, links: list[str]) -> set[str]:
    rows = [row for row in _unix_sockets(pid) if f"socket:[{row[6]}]" in links]
    if SYSTEM != "macos":
        found = [row for row in rows if row[4] == _SEQPACKET]
    elif any(int(row[3], 16) & ACCEPTS for row in rows):
        found = [row for row in rows if len(row) == 7]  # no name, as no connection of a server
    else:
        found = []
    return {f"socket:[{row[6]}]" for row in found}


def guardians(server: int) -> list[int]:
    """The guardians that hold a pipe of a server, or have held one."""
    return [
        pid
        for pid in all_processes()
        if any("/process/posix/guardian.py" in word for word in arguments(pid))
        and _shared_pipes(pid, server)
    ]


def _shared_pipes(one: int, other: int) -> list[str]:
    return [name for name in {*descriptors(one)} & {*descriptors(other)} if "pipe:" in name]


# The numbers of each call, and of the calls that Python or its C library makes in its place:
# select.poll() is ppoll(2) since Python 3.15, musl's epoll_wait() is epoll_pwait(2).
_CALLS = {
    "x86_64": {
        "read": {0},
        "write": {1},
        "poll": {7, 271},
        "ppoll": {271},
        "readv": {19},
        "connect": {42},
        "recvfrom": {45},
        "recvmsg": {47},
        "futex": {202},
        "rt_sigtimedwait": {128},
        "epoll_wait": {232, 281},
        "clock_nanosleep": {230},
        "waitid": {247},
    },
    "aarch64": {
        "read": {63},
        "write": {64},
        "poll": {73},
        "ppoll": {73},
        "readv": {65},
        "futex": {98},
        "rt_sigtimedwait": {137},
        "epoll_wait": {22},
        "connect": {203},
        "recvfrom": {207},
        "recvmsg": {212},
        "clock_nanosleep": {115},
        "waitid": {95},
    },
}


if not HAS_EPOLL:  # sockets are non-blocking then: see transport/unix/portable_stream.py
    for _calls in _CALLS.values():
        _calls["recvfrom"] |= _calls["poll"]
        _calls["connect"] |= _calls["clock_nanosleep"]


def syscall_arguments(pid: int, call: str) -> list[int]:
    """Return the six arguments of the system call in which a process waits, if it waits."""
    number, *words = _read(f"/proc/{pid}/syscall").split() or [""]
    if not number.isdecimal() or int(number) not in _CALLS[os.uname().machine][call]:
        return []
    return [int(word, 16) for word in words[:6]]


def is_in_syscall(pid: int, call: str) -> bool:
    """Whether a process or thread waits in a system call."""
    return bool(syscall_arguments(pid, call))


def is_on_processor(pid: int) -> bool:
    """Whether a process is in no system call."""
    return _read(f"/proc/{pid}/syscall").startswith("running")


def is_waiting(pid: int) -> bool:
    """Return whether all threads of a process wait for events or for each other."""
    waits = ("epoll_wait", "poll", "futex", "rt_sigtimedwait", "waitid")
    found = [any(is_in_syscall(thread, call) for call in waits) for thread in threads(pid)]
    return found != [] and all(found)


def waits_for_events(pid: int) -> bool:
    """Whether a thread waits in the event loop of a server."""
    return is_in_syscall(pid, "epoll_wait" if HAS_EPOLL else "poll")


def waits_to_write(pid: int) -> bool:
    """Whether a process waits, in its main thread, until it can write something."""
    if HAS_EPOLL:
        files = [_read(f"/proc/{pid}/fdinfo/{number}") for number in _names(f"/proc/{pid}/fdinfo")]
        found = re.findall(r"^tfd:.* events: *([0-9a-f]+)", "\n".join(files), re.M)
        events = [int(mask, 16) for mask in found]
    else:
        address, count = [*syscall_arguments(pid, "poll"), 0, 0][:2]
        events = [events for _, events, _ in _POLLFD.iter_unpack(_memory(pid, address, count))]
    return any(mask & select.POLLOUT for mask in events)


_POLLFD = struct.Struct("@iHH")


def _memory(pid: int, address: int, count: int) -> bytes:
    """Read an array of struct pollfd of another process."""
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
            file.seek(address)
            return file.read(count * _POLLFD.size) if count else b""
    except OSError:
        return b""  # it has just ended, or waits no more


def waits_for_ever(pid: int) -> bool:
    """Whether a process waits for events without a timeout."""
    if HAS_EPOLL:
        timeout = syscall_arguments(pid, "epoll_wait")[3:4]
    else:
        timeout = syscall_arguments(pid, "poll")[2:3]
        if is_in_syscall(pid, "ppoll"):
            return timeout == [0]  # no struct timespec
    return timeout != [] and timeout[0] & 0xFFFFFFFF == 0xFFFFFFFF


def wait_channel(pid: int) -> str:
    """The function of the kernel in which a process or thread waits."""
    return _read(f"/proc/{pid}/wchan")


def stop_process(pid: int) -> None:
    """Stop a process, and wait until all its threads have stopped."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(
        # A thread that has just ended is in state X.
        lambda: all(state(thread) in "TtX" for thread in threads(pid)),
        "it to stand still",
    )


def has_listener(path) -> bool:
    """Return whether a socket listens on a path, without connecting to it."""
    rows = _unix_sockets("self")
    return any(int(row[3], 16) & ACCEPTS for row in rows if row[7:] == [str(path)])
