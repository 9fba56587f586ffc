"""Make system calls fail one at a time, and print the broken rules: all cases, by hand.

In `tests`: `../.venv/bin/python -m faults.hunt [-s SCENARIO] [-c CALL] [-e ERRNO] [-m MOST] [-v]`.
It needs strace. Each option can be given more than once; MOST is how many of a scenario's calls of
one name fail, each on its own.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults import asking, judge, serving
from faults.judge import Case
from helpers import leftovers
from helpers.injection import ERRNOS, Fault, spread

NOT_MADE_TO_FAIL = {
    # Linux closes the descriptor even if it returns an error; strace would leave it open.
    "close",
    # Reports a failure in another way than other calls; strace makes the C library misread it.
    "brk",
    # These do not fail, or the C library ends the process if they do.
    *("exit", "exit_group", "rt_sigreturn", "rt_sigprocmask", "rt_sigaction", "futex", "munmap"),
    *("madvise", "set_robust_list", "set_tid_address", "rseq", "arch_prctl", "getpid", "gettid"),
    *("getuid", "geteuid", "getgid", "getegid", "restart_syscall", "sigaltstack", "sched_yield"),
}

CHILDS = set("clone3 clone vfork execve dup2 setpgid setsid close_range prlimit64".split())
"""Calls to test in a child of a server before it executes its program."""


def names(calls: list[str]) -> list[str]:
    """Return the names of the calls that are made to fail."""
    found = {match[0] for call in calls if (match := re.match(r"\w+(?=\()", call))}
    return sorted(found - NOT_MADE_TO_FAIL)


def is_import(call: str) -> bool:
    """Whether Python makes a call to load a module."""
    return bool(re.search(r"python3|simpleipc_cli|pyvenv|\.so\b|/lib/|bin/sipc", call))


def faults_in(calls: list[str], most: int, where: str = "all") -> list[Fault]:
    """Return faults of a recorded run: one while modules are loaded, up to `most` of the rest."""
    found = []
    for call in names(calls):
        same = [line for line in calls if re.match(rf"{call}\(", line)]
        ours = [when for when, line in enumerate(same, 1) if not is_import(line)]
        loads = [when for when, line in enumerate(same, 1) if is_import(line)]
        picked = [ours[number - 1] for number in spread(len(ours), most)] + loads[-1:]
        found += [Fault(call, error, when, where) for error in ERRNOS for when in picked]
    return found


class Running:
    """Calls fail while a server serves. The next server starts where a fault ends the last one."""

    def __init__(self, scenario: str) -> None:
        self._scenario = scenario
        self._server: serving.Served | None = None

    def _started(self) -> serving.Served:
        if self._server is None:
            self._server = serving.start(new_folder(), self._scenario)
        return self._server

    def faults(self, most: int) -> list[Fault]:
        found = []
        for where in "main", "threads", "all":
            calls = serving.count_running(self._started(), Fault("all", "EIO", 1, where))
            if where == "all":
                calls = [call for call in calls if re.match(r"\w*", call)[0] in CHILDS]
            found += faults_in(calls, min(most, 2) if where == "all" else most, where)
        return found

    def run(self, fault: Fault) -> Case:
        case = serving.fail_running(self._started(), fault)
        if case.broken:
            case.broken += [f"then: {what}" for what in self.end()]
        return case

    def end(self) -> list[str]:
        """End the server; return the rules that it breaks while it ends."""
        if self._server is None:
            return []
        server, self._server = self._server, None
        case = Case(f"{self._scenario} afterwards", Fault("none", "none"))
        server.stop(case)
        shutil.rmtree(server.folder)
        return case.broken


class Once:
    """Calls fail while a server starts or stops, or in a client: a process for each fault."""

    def __init__(self, scenario: str) -> None:
        self._scenario = scenario
        self._name, _, self._phase = scenario.partition("-")
        self._serves = self._name in serving.SERVERS

    def faults(self, most: int) -> list[Fault]:
        with temporary() as folder:
            if self._serves:
                return faults_in(serving.calls_at(folder, self._name, self._phase), most)
            return faults_in(asking.calls_of(folder, self._scenario), most)

    def run(self, fault: Fault) -> Case:
        with temporary() as folder:
            if self._serves:
                return serving.fail_at(folder, self._name, fault, self._phase)
            return asking.fail(folder, self._scenario, fault)

    def end(self) -> list[str]:
        return []


def new_folder() -> Path:
    """Make a folder with a short path: socket addresses are short."""
    parent = leftovers.folder() if leftovers.MARK in os.environ else None
    return Path(tempfile.mkdtemp(prefix="sipc-", dir=parent))


@contextmanager
def temporary() -> Iterator[Path]:
    folder = new_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def hunt(scenario: str) -> Running | Once:
    """Return the object that finds and runs the faults of a scenario."""
    return Running(scenario) if scenario in serving.SERVERS else Once(scenario)


SCENARIOS = [
    *serving.SERVERS,
    *(f"{name}-{phase}" for name in serving.SERVERS for phase in ("start", "stop")),
    *asking.CLIENTS,
]


def main() -> None:
    """Run the cases that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-s", dest="scenarios", action="append", choices=SCENARIOS)
    parser.add_argument("-c", dest="calls", action="append")
    parser.add_argument("-e", dest="errors", action="append")
    parser.add_argument("-m", dest="most", type=int, default=3)
    parser.add_argument("-l", dest="limit", type=float, default=judge.LIMIT)
    parser.add_argument("-v", dest="verbose", action="store_true")
    chosen = parser.parse_args()
    judge.LIMIT = chosen.limit
    chosen.scenarios = chosen.scenarios or SCENARIOS
    chosen.errors = chosen.errors or ERRNOS
    tried, bad = 0, 0
    for scenario in chosen.scenarios:
        hunting = hunt(scenario)
        for fault in hunting.faults(chosen.most):
            if fault.error in chosen.errors and fault.call in (chosen.calls or [fault.call]):
                case = hunting.run(fault)
                tried += 1
                bad += bool(case.broken)
                if case.broken or chosen.verbose:
                    print(case, flush=True)  # noqa: T201
        if broken := hunting.end():
            bad += 1
            print(f"{scenario} at the end: {broken}")  # noqa: T201
    print(f"{tried} cases, in {bad} of them a rule does not hold")  # noqa: T201
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
