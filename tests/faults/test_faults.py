"""If any system call fails: no traceback, no hang, no half message, no process or file left.

A sample that is always the same. With `SIPC_SOAK=N`, N above 3, also N cases of each scenario,
and all of them where it has fewer; `faults.hunt` runs them by hand.
"""

from __future__ import annotations

import random
import re
import sys

import pytest
from faults import asking
from faults.hunt import SCENARIOS, hunt
from helpers.injection import Fault, needs_strace
from helpers.scripted_server import ScriptedServer
from helpers.soak import SOAK

from simpleipc_cli.bench.generator import LoadPlan
from simpleipc_cli.bench.processes import GeneratorProcesses
from simpleipc_cli.errors import SipcError

pytestmark = [pytest.mark.soak, *needs_strace]

SAMPLE = """
exec accept4:EMFILE:1:main
exec accept4:EPERM:1:main
exec clone3:EAGAIN:1:all
exec execve:ENOMEM:1:all
exec dup2:EIO:2:all
exec fcntl:ENOMEM:4:main
exec getsockname:EIO:1:main
exec ioctl:EPERM:1:main
exec kill:EPERM:1:main
exec mmap:ENOMEM:1:main
exec pidfd_open:EMFILE:1:main
exec pipe2:ENFILE:1:main
exec epoll_wait:EINTR:1:main
exec poll:EINTR:1:main
exec readv:EAGAIN:1:main
exec recvfrom:EINTR:1:main
exec sendmsg:EAGAIN:1:main
exec setsid:EPERM:1:all
exec recvfrom:EPERM:1:main
exec getsockopt:ENOMEM:1:main
exec vfork:ENOSYS:1:all
exec waitid:EINTR:1:main
exec write:ENOSPC:1:main
exec writev:EAGAIN:1:main
exec kill:EIO:1:main
exec waitid:EIO:1:main
exec readv:EIO:1:main
exec writev:EMFILE:1:main
exec epoll_ctl:ENOSPC:1:main
exec poll:ENOMEM:1:main
exec sendmsg:EIO:1:main
exec sendto:ENOMEM:1:main
exec recvfrom:EPERM:2:main
worker accept4:ENFILE:1:main
worker readv:EINTR:1:main
worker sendmsg:EAGAIN:1:main
worker writev:EAGAIN:1:main
worker ioctl:EPERM:1:main
prestart accept4:ENOMEM:1:main
prestart sendto:EINTR:1:main
prestart recvfrom:EAGAIN:1:main
prestart kill:EIO:1:main
prestart write:EPERM:1:main
whole accept4:EIO:1:main
whole poll:ENOMEM:1:threads
whole kill:EAGAIN:1:threads
whole wait4:EPERM:1:threads
whole lseek:EIO:1:threads
send connect:EMFILE:1:all
send socket:ENFILE:1:all
send readv:EIO:1:all
send sendmsg:ENOMEM:1:all
send recvfrom:EINTR:1:all
send write:ENOSPC:1:all
send preadv2:ENOSYS:1:all
send recvfrom:EIO:1:all
send setitimer:EPERM:1:all
lines connect:EAGAIN:1:all
lines sendto:EINTR:1:all
lines recvfrom:EAGAIN:1:all
lines recvfrom:EIO:1:all
probe connect:ENOMEM:1:all
exec-stop setitimer:ENOSYS:1:all
bench-json execve:EPERM:1:all
bench-json pipe2:EMFILE:1:all
bench-json getsockopt:EPERM:1:all
bench-json vfork:EAGAIN:1:all
bench-json clone3:EAGAIN:1:all
"""


def fault_of(text: str) -> Fault:
    call, error, when, where = text.split(":")
    return Fault(call, error, int(when), where)


@pytest.mark.parametrize("row", SAMPLE.strip().splitlines())
def test_a_failing_call_breaks_no_rule(row):
    scenario, text = row.split()
    hunting = hunt(scenario)
    try:
        case = hunting.run(fault_of(text))
    finally:
        broken = hunting.end()
    assert not case.broken + broken, str(case)
    assert case.injected, "the call was not made"


def test_the_error_names_the_call_without_which_the_server_cannot_start():
    case = hunt("exec-start").run(fault_of("eventfd2:ENOMEM:1:all"))
    assert not case.broken, str(case)
    (line,) = case.said
    error = r"sipc serve: cannot start: \w+ failed: Cannot allocate memory: free"
    assert re.match(error, line), line


def test_a_server_listens_even_if_its_own_process_cannot_be_identified():
    case = hunt("probe").run(fault_of("getsockopt:EPERM:1:all"))
    assert case.injected, "the call was not made"
    assert not case.broken, str(case)
    assert case.status == 0


def test_the_log_names_a_path_that_cannot_be_removed_at_the_stop():
    case = hunt("exec-stop").run(fault_of("unlink:EPERM:1:all"))
    assert case.broken == ["files left: ['sock']"], str(case)
    warnings = [line for line in case.said if re.match(r"cannot remove /.*/sock: Operation", line)]
    assert len(warnings) == 1, str(case)


@pytest.mark.parametrize("when", [1, 2, 6, 30, 150])
@pytest.mark.parametrize(
    "fault",
    ["openat:EMFILE", "read:EIO", "mmap:ENOMEM", "getdents64:EPERM", "newfstatat:ENOMEM"],
)
def test_a_load_generator_that_fails_while_it_starts_causes_one_error(
    folder, monkeypatch, capfd, fault, when
):
    call, error = fault.split(":")
    program = folder / "python"
    traced = f"exec strace -o {folder}/trace -e trace={call} -e inject={call}:error={error}"
    program.write_text(f'#!/bin/sh\n{traced}:when={when} "{sys.executable}" "$@"\n')
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    with ScriptedServer(folder / "sock", asking.echo), GeneratorProcesses() as running:
        running.start([LoadPlan(str(folder / "sock"), requests=2)], lambda _progress: False)
        said = ""
        try:
            running.run(lambda _progress: False)
        except SipcError as caught:
            said = caught.text
    assert said or running.results.started == 2
    assert re.fullmatch("(a load generator process died, [^\n]+: [^\n]+)?", said)
    assert capfd.readouterr() == ("", "")
    assert "INJECTED" in (folder / "trace").read_text() or when > 1


if SOAK > 3:

    @pytest.mark.timeout(7200)
    @pytest.mark.parametrize("scenario", SCENARIOS)
    def test_no_failing_call_breaks_a_rule(scenario):
        hunting = hunt(scenario)
        every = hunting.faults(5)
        chosen = random.Random(0).sample(every, min(SOAK, len(every)))
        try:
            cases = [hunting.run(fault) for fault in chosen]
        finally:
            broken = hunting.end()
        broken += [str(case) for case in cases if case.broken]
        assert not broken, "\n".join(broken)
