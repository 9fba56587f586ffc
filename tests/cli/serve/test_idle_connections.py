"""`sipc serve` and a crowd that says nothing: held by another process, and as if it were not."""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from helpers.command import Program, environment, needs_root
from helpers.paths import ROOT
from helpers.procfs import children, descriptors, processes, stop_process
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, message, receive_all

CROWD = 400
KEPT = 127
"""Silent connections at most that a server keeps itself."""


@pytest.fixture(autouse=True)
def _many_descriptors():
    """For both ends' sake: tests and server."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def allowed(soft: int, hard: int) -> list[str]:
    return ["prlimit", f"--nofile={soft}:{hard}"]


def counters(server: Server) -> dict[str, int]:
    """What SIGUSR1 makes a server say; connections have to add up at any time."""
    before = len(re.findall("^counters:", server.log, re.MULTILINE))
    server.signal(signal.SIGUSR1)
    line = server.wait_for_log("^counters:", count=before + 1)
    found = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)}
    assert found["accepted"] == sum(
        found[name] for name in ("requests", "looked", "refused", "closed_silent", "silent")
    )
    return found


@contextmanager
def silent(server: Server, size: int = CROWD):
    """So many connections that say nothing, all of them accepted."""
    there = counters(server)["accepted"]
    with ExitStack() as stack:
        clients = []
        while len(clients) < size:
            portion = min(100, size - len(clients))
            clients += [stack.enter_context(connect(server.path)) for _ in range(portion)]
            now = there + len(clients)
            wait_until(lambda: counters(server)["accepted"] == now, "all to be accepted")  # noqa: B023
        yield clients


def holder(server: Server) -> int:
    """The process that holds silent connections."""
    for pid in children(server.pid):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except FileNotFoundError:
            continue  # a handler that has just ended
        if b"silent connections" in line:
            return pid
    return 0


def connections(pid: int) -> int:
    return sum(name.startswith("socket:") for name in descriptors(pid))


def settled(server: Server) -> int:
    """Wait until a crowd is held by another process; its number."""
    wait_until(lambda: holder(server), "a holder")
    wait_until(lambda: connections(server.pid) < KEPT + 10, "only few to be left here")
    pid = holder(server)
    ours = 3  # the listener, and what the two speak over
    wait_until(
        lambda: connections(server.pid) + connections(pid) - ours == counters(server)["silent"],
        "nobody to be on the way",
    )
    return pid


def test_a_crowd_is_held_elsewhere_and_answered_as_if_it_were_not(endpoint):
    script = 'echo "$UNIXREMOTEPID $UNIXREMOTEEUID $(cat)"'
    with Server(endpoint, script) as server:
        with silent(server) as clients:
            pid = settled(server)
            assert connections(pid) > CROWD - KEPT
            assert counters(server)["silent"] == CROWD
            for number, client in enumerate(clients):
                client.sendall(message(b"%d" % number))
                expected = b"%d %d %d\n" % (os.getpid(), os.geteuid(), number)
                assert decode(receive_all(client)) == (expected, True)
        server.wait_until_idle()
        assert counters(server)["answered"] == CROWD


def test_few_who_are_silent_need_no_other_process(endpoint):
    with Server(endpoint, "cat") as server:
        with silent(server, KEPT - 20):
            for _ in range(20):
                assert ask(endpoint, b"hello") == (b"hello", True)
            assert not holder(server)


def test_who_goes_without_a_word_has_looked_and_the_process_goes_with_the_last(endpoint):
    with Server(endpoint, "cat", "-v") as server:
        with silent(server):
            pid = settled(server)
        server.wait_for_log("^somebody looked", count=CROWD)
        server.wait_until_idle()
        assert not Path(f"/proc/{pid}").exists()
        assert counters(server)["looked"] == CROWD


def test_a_half_close_without_a_word_is_the_end_of_it(endpoint):
    with Server(endpoint, "cat") as server, silent(server) as clients:
        settled(server)
        clients[0].shutdown(1)
        assert receive_all(clients[0]) == b""
        wait_until(lambda: counters(server)["looked"] == 1, "it to be counted")


def test_half_a_word_comes_back_too(endpoint):
    with Server(endpoint, "cat", "--read-timeout", "300ms") as server, silent(server) as clients:
        settled(server)
        clients[0].sendall(b"0")
        assert receive_all(clients[0]) == b""
        server.wait_for_log("too slow to write")


def test_crowds_come_and_go(endpoint):
    with Server(endpoint, "cat") as server:
        for _ in range(3):
            with silent(server, 200) as clients:
                settled(server)
                clients[0].sendall(message(b"hello"))
                assert decode(receive_all(clients[0])) == (b"hello", True)
            server.wait_until_idle()


def test_handlers_know_nothing_of_it(endpoint):
    """Neither its socket nor a connection nor a limit comes to a handler."""
    with Server(endpoint, "ulimit -n; ls -l /proc/self/fd", wrapper=allowed(256, 4096)) as server:
        alone = ask(endpoint, b"")[0]
        with silent(server):
            settled(server)
            crowded = ask(endpoint, b"")[0]
    assert alone.startswith(b"256\n")
    assert crowded.startswith(b"256\n")
    assert alone.count(b"\n") == crowded.count(b"\n")
    assert b"socket:" not in crowded


def test_the_limit_is_no_longer_raised_than_needed(endpoint):
    with Server(endpoint, "cat", wrapper=allowed(600, 4096)) as server:
        with silent(server, 1000):
            settled(server)
            limits = Path(f"/proc/{server.pid}/limits")
            wait_until(
                lambda: re.search(r"open files +600 +4096", limits.read_text()), "the old limit"
            )
        assert "descriptors" not in server.log


# The process that holds them


def test_when_it_is_killed_its_connections_are_closed_and_the_server_goes_on(endpoint):
    with Server(endpoint, "cat") as server:
        with silent(server) as clients:
            pid = settled(server)
            held = connections(pid) - 1
            os.kill(pid, signal.SIGKILL)
            assert receive_all(clients[0]) == b""
            line = server.wait_for_log("silent connections were closed")
            assert line.startswith(
                f"{held} silent connections were closed: process {pid} has ended"
            )
            assert counters(server)["closed_silent"] == held
            clients[-1].sendall(message(b"still there"))
            assert decode(receive_all(clients[-1])) == (b"still there", True)
            with silent(server) as others:
                assert settled(server) != pid
                others[0].sendall(message(b"hello"))
                assert decode(receive_all(others[0])) == (b"hello", True)


def test_signals_to_everybody_do_not_end_it(endpoint):
    """A terminal's reach the whole group, a service manager's every process."""
    with Server(endpoint, "cat") as server, silent(server) as clients:
        pid = settled(server)
        assert os.getpgid(pid) == pid
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            os.kill(pid, number)
        clients[0].sendall(message(b"hello"))
        assert decode(receive_all(clients[0])) == (b"hello", True)
        assert holder(server) == pid


def test_it_has_nothing_open_but_what_it_holds(endpoint, folder):
    (folder / "log").touch()
    with open(folder / "log") as extra:
        with Server(endpoint, "cat", pass_fds=[extra.fileno()]) as server, silent(server):
            opened = descriptors(settled(server))
    others = {name for name in opened if not name.startswith("socket:")}
    assert others == {"/dev/null", "anon_inode:[eventpoll]"}


class Interpreter:
    """A server's interpreter, which can be taken away while it runs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "python"
        self.path.symlink_to(os.path.realpath(sys.executable))
        where = [path for path in sys.path if path.endswith("site-packages")]
        where.append(str(ROOT))
        self.env = environment(PYTHONPATH=":".join(where))

    def start(self, endpoint, *options) -> Server:
        code = "import sys; sys.argv[0] = 'sipc'; from simpleipc_cli.cli import main; main()"
        wrapper = [str(self.path), "-c", code]
        return Server(endpoint, "cat", *options, wrapper=wrapper, program=(), env=self.env)


@pytest.mark.parametrize("what", ["nothing", "something that ends at once", "another program"])
def test_where_no_process_can_be_started_all_stay(endpoint, folder, what):
    interpreter = Interpreter(folder)
    with interpreter.start(endpoint) as server:
        interpreter.path.unlink()
        if what != "nothing":
            line = "exit 1" if what.startswith("something") else "echo what do you want >&0"
            interpreter.path.write_text(f"#!/bin/sh\n{line}\n")
            interpreter.path.chmod(0o755)
        with silent(server) as clients:
            server.wait_for_log(r"silent connections cannot be held by another process \(.*\): ")
            for client in clients:
                client.sendall(message(b"hello"))
                assert decode(receive_all(client)) == (b"hello", True)
        assert server.log.count("cannot be held") == 1
        server.wait_until_idle()


def test_a_package_on_pythonpath_alone_is_found(endpoint, folder):
    with Interpreter(folder).start(endpoint) as server, silent(server) as clients:
        settled(server)
        clients[0].sendall(message(b"hello"))
        assert decode(receive_all(clients[0])) == (b"hello", True)


HOG = """
import os, socket, struct, sys
ours, theirs = socket.socketpair()
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=250i", *[0] * 250))]
for _ in range(8): ours.sendmsg([b"x"], rights)
print("there", flush=True)
sys.stdin.read()
"""


@needs_root
def test_while_too_much_is_on_the_way_they_stay_and_go_later(endpoint):
    """The system counts descriptors on the way of all of a user's processes (unix(7))."""
    humble = ["setpriv", "--bounding-set", "-sys_resource,-sys_admin"]
    with Server(endpoint, "cat", wrapper=[*humble, *allowed(700, 2000)]) as server:
        hog = [*humble, *allowed(4096, 4096), sys.executable, "-c", HOG]
        with Program(hog, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hogging:
            assert hogging.stdout.readline() == b"there\n"
            with silent(server) as clients:
                wait_until(lambda: holder(server), "a holder")
                for client in clients[:50]:
                    client.sendall(message(b"hello"))
                    assert decode(receive_all(client)) == (b"hello", True)
                assert connections(server.pid) > CROWD - 60
                hogging.stdin.close()
                assert hogging.wait() == 0
                settled(server)
                for client in clients[50:]:
                    client.sendall(message(b"hello"))
                    assert decode(receive_all(client)) == (b"hello", True)
        server.wait_until_idle()


def test_when_it_is_full_the_longest_silent_are_closed(endpoint):
    with Server(endpoint, "cat", "--threads", "1", wrapper=allowed(300, 300)) as server:
        with silent(server, 700) as clients:
            there = counters(server)
            assert 400 < there["silent"] < 600
            assert there["closed_silent"] == 700 - there["silent"]
            first = there["closed_silent"]
            assert [receive_all(client) for client in clients[:first]] == [b""] * first
            for client in (clients[first], clients[-1]):
                client.sendall(message(b"hello"))
                assert decode(receive_all(client)) == (b"hello", True)
        assert server.log.count("descriptors run short") == 1
        server.wait_until_idle()


def test_one_that_hangs_does_not_hold_up_the_others(endpoint):
    with Server(endpoint, "cat", wrapper=allowed(300, 300)) as server:
        with silent(server, 300):
            pid = settled(server)
            stop_process(pid)
            with silent(server, 600) as others:
                assert ask(endpoint, b"hello") == (b"hello", True)
                others[-1].sendall(message(b"hello"))
                assert decode(receive_all(others[-1])) == (b"hello", True)
            os.kill(pid, signal.SIGCONT)
        server.wait_until_idle()


# Ends


def test_who_speaks_within_a_second_of_the_stop_is_answered_the_others_closed(endpoint):
    with Server(endpoint, "cat", "-v") as server, silent(server) as clients:
        settled(server)
        server.signal()
        wait_until(lambda: not endpoint.exists(), "the stop to begin")
        for client in clients[:20]:
            client.sendall(message(b"hello"))
        for client in clients[:20]:
            assert decode(receive_all(client)) == (b"hello", True)
        assert [receive_all(client) for client in clients[20:]] == [b""] * (CROWD - 20)
        assert server.wait() == 0
        server.check_nothing_left()


def test_a_second_signal_ends_it_at_once(endpoint):
    with Server(endpoint, "cat", "--drain-timeout", "0") as server, silent(server) as clients:
        stop_process(settled(server))
        server.signal()
        wait_until(lambda: not endpoint.exists(), "the stop to begin")
        server.signal()
        assert server.wait() == 0
        assert receive_all(clients[0]) == b""
        server.check_nothing_left()


def test_one_that_hangs_does_not_hold_up_the_end(endpoint):
    with Server(endpoint, "cat", "--drain-timeout", "0") as server, silent(server) as clients:
        stop_process(settled(server))
        server.signal()
        assert [receive_all(client) for client in clients] == [b""] * CROWD
        assert server.wait() == 0
        server.check_nothing_left()


def test_sigkill_of_the_server_leaves_no_process_and_no_connection(endpoint):
    with Server(endpoint, "cat") as server, silent(server) as clients:
        pid = settled(server)
        server.signal(signal.SIGKILL)
        assert [receive_all(client) for client in clients] == [b""] * CROWD
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "it to be gone")
        server.process.wait()
    wait_until(lambda: not processes(server.mark), "nobody to be left")


def test_who_has_spoken_is_answered_however_late_there_is_room_for_him(endpoint, folder):
    """More than the server has descriptors for: they wait where they are, also behind the stop."""
    script = f"until test -e {folder}/go; do sleep 0.1; done; cat"
    options = ["--threads", "2", "--drain-timeout", "0"]
    with Server(endpoint, script, *options, wrapper=allowed(256, 300)) as server:
        with silent(server, 340) as clients:
            settled(server)
            for client in clients[:-1]:
                client.sendall(message(b"hello"))
            wait_until(lambda: counters(server)["waiting"] > 150, "the server to be full")
            server.signal()
            assert receive_all(clients[-1]) == b""  # who said nothing is closed after a second
            with pytest.raises(subprocess.TimeoutExpired):
                server.process.wait(3)  # longer than a process that says nothing is waited for
            (folder / "go").touch()
            for client in clients[:-1]:
                assert decode(receive_all(client)) == (b"hello", True)
        assert server.wait() == 0
        server.check_nothing_left()


# Everybody is answered once


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.2], ids=["at once", "soon", "late"])
def test_whoever_speaks_whenever_is_answered_once(endpoint, folder, pause):
    """As connections come, are handed over, speak, go, and come back, all at the same time."""
    script = f'read -r n; echo "$n" >>{folder}/seen; echo "$n"'
    chance = random.Random(str(pause))  # the same each time
    wrong = []

    def client(first: int) -> None:
        waiting = []
        ticks = threading.Event()
        for number in range(first, 2000, 4):
            waiting.append((number, connect(endpoint)))
            if number % 100 == first:
                ticks.wait(pause)
            if len(waiting) > 150 or chance.random() < 0.5:
                speak(*waiting.pop(chance.randrange(len(waiting))))
        for one in waiting:
            speak(*one)

    def speak(number: int, connection) -> None:
        with connection:
            if number % 10:
                connection.sendall(message(b"%d\n" % number))
                answer = decode(receive_all(connection))
                if answer != (b"%d\n" % number, True):
                    wrong.append((number, answer))

    with Server(endpoint, script, wrapper=allowed(400, 4096)) as server:
        clients = [threading.Thread(target=client, args=[first]) for first in range(4)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        server.wait_until_idle()
        found = counters(server)
    assert wrong == []
    assert sorted(map(int, (folder / "seen").read_text().split())) == [
        number for number in range(2000) if number % 10
    ]
    assert (found["answered"], found["looked"], found["closed_silent"]) == (1800, 200, 0)
