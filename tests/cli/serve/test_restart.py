"""`sipc serve` replaced repeatedly under load: every request is answered exactly once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

import pytest
from helpers.command import Program, environment, needs_root, sipc
from helpers.mounts import mounted
from helpers.patience import DRAIN, LOCK, without_limits
from helpers.soak import SOAK
from helpers.socket_activation import SocketManager, start_with_sockets
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import connect, decode, message, receive_all

SERVERS = max(10, SOAK)
PATIENT = without_limits(*DRAIN, *LOCK)
"""A client may be suspended between its connection and its request."""
needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-socket-activate"), reason="starts servers: systemd-socket-activate"
)


class Clients:
    """Clients that ask without pause; each request is a number that no other has.

    Two of three are `sipc send --wait`, one is a socket client that sends more often.
    """

    def __init__(self, path, *, wait: bool = True, count: int = 6) -> None:
        self._path = str(path)
        self._wait = ["--wait", f"{TIMEOUT:g}s"] if wait else []
        self.count = count
        self._ended = threading.Event()
        self.answered: list[str] = []
        self.refused: list[str] = []
        self.failed: list[object] = []
        work = [self._send if which % 3 else self._ask for which in range(count)]
        self._threads = [
            threading.Thread(target=self._run, args=(which, ask)) for which, ask in enumerate(work)
        ]

    def _run(self, which: int, ask) -> None:
        at = 0
        while not self._ended.is_set():
            number = f"{which}-{at}"
            at += 1
            try:
                if ask(number):
                    self.answered.append(number)
                    continue
                self.refused.append(number)
            except BaseException as failure:  # the test checks it
                self.failed.append((number, failure))
            return

    def _send(self, number: str) -> bool:
        done = sipc("send", *self._wait, self._path, "-d", number)
        if done.returncode == 3 and not self._wait:
            return False
        assert (done.returncode, done.stdout) == (0, number.encode()), done.stderr
        return True

    def _ask(self, number: str) -> bool:
        """As `send --wait` does: try again only if the connection is refused."""
        end = monotonic() + TIMEOUT
        while True:
            try:
                connection = connect(self._path)
            except (FileNotFoundError, ConnectionRefusedError):
                if not self._wait:
                    return False
                assert monotonic() < end
                self._ended.wait(0.001)
                continue
            with connection:
                connection.sendall(message(number.encode()))
                assert decode(receive_all(connection)) == (number.encode(), True)
            return True

    def wait_for_answers(self, more: int) -> None:
        goal = len(self.answered) + more
        wait_until(lambda: self.failed or len(self.answered) >= goal, "answers")
        assert not self.failed

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def recording(folder) -> str:
    """A handler that stores its request, and answers with it."""
    return f'n=$(cat); echo "$n" >>{folder}/record; printf %s "$n"'


def check_exactly_once(folder, clients: Clients) -> None:
    assert not clients.failed
    handled = (folder / "record").read_text().split()
    assert sorted(handled) == sorted(clients.answered)
    assert len(set(handled)) == len(handled)


def replace_again_and_again(clients: Clients, servers: int, start_server, gone) -> None:
    """Some servers start after the previous one has ended, some while it still answers."""
    server = start_server()
    try:
        for at in range(servers):
            clients.wait_for_answers(clients.count)
            old = server
            old.terminate()
            if at % 2:
                assert old.wait(TIMEOUT) == 0
            else:
                wait_until(gone, "the path to go")
            server = start_server()
            assert old.wait(TIMEOUT) == 0
        clients.wait_for_answers(clients.count)
    finally:
        server.terminate()
        assert server.wait(TIMEOUT) == 0


@contextmanager
def bound(what: Path, where: Path):
    """The same file or folder, at another path."""
    with mounted("--bind", what, where):
        yield where


@contextmanager
def opened(what: Path):
    """The same file, through an open descriptor."""
    descriptor = os.open(what, os.O_PATH)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


def serving(endpoint, folder) -> Program:
    command = [*PATIENT, "serve", endpoint, "-q", "--exec", recording(folder)]
    return Program(command, env=environment())


WAYS = {"path": (), "descriptor": (), "bind mount": (needs_root,), "systemd": (needs_systemd,)}
"""By its path, by an open descriptor, by a bind mount, by its path with another manager."""


def ways(*names: str):
    """Cases: few servers and clients in the ordinary run, and many for each kind of path."""
    many = [
        pytest.param(name, SERVERS, 6, marks=[pytest.mark.soak, *WAYS[name]], id=name)
        for name in names
    ]
    few = pytest.param("path", 1, 2, id="path, few")
    return pytest.mark.parametrize(("way", "servers", "count"), [few, *many])


@ways("path", "descriptor", "bind mount")
def test_servers_that_replace_each_other_at_a_path_lose_no_request(
    folder, endpoint, way, servers, count
):
    """Clients reach the folder in several ways, and always find the new server in it."""
    with ExitStack() as stack:
        reached = folder
        if way == "descriptor":
            reached = stack.enter_context(opened(folder))
        elif way == "bind mount":
            (folder / "mount").mkdir()
            reached = stack.enter_context(bound(folder, folder / "mount"))
        with Clients(reached / "sock", count=count) as clients:
            replace_again_and_again(
                clients, servers, lambda: serving(endpoint, folder), lambda: not endpoint.exists()
            )
            # No server runs any more: clients that send now wait for one.
            last = serving(endpoint, folder)
        last.terminate()
        assert last.wait(TIMEOUT) == 0
    check_exactly_once(folder, clients)


@ways("path", "descriptor", "bind mount", "systemd")
def test_servers_that_replace_each_other_at_a_passed_socket_lose_no_request(
    folder, endpoint, way, servers, count
):
    """Clients may keep the socket open: all servers use the same one."""
    wrapper = []
    if way == "systemd":
        wrapper = ["systemd-socket-activate", *("-E", f"PATH={environment()['PATH']}")]
    with SocketManager(str(endpoint)) as manager, ExitStack() as stack:
        reached = endpoint
        if way == "descriptor":
            reached = stack.enter_context(opened(endpoint))
        elif way == "bind mount":
            (folder / "mount").touch()
            reached = stack.enter_context(bound(endpoint, folder / "mount"))
        command = [*wrapper, *PATIENT, "serve", "-q", "--exec", recording(folder)]

        def start_server() -> Program:
            nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            return start_with_sockets(command, manager.socket, **nowhere)

        with Clients(reached, count=count) as clients:
            replace_again_and_again(clients, servers, start_server, lambda: True)
            last = start_server()
        last.terminate()
        assert last.wait(TIMEOUT) == 0
    check_exactly_once(folder, clients)


@pytest.mark.soak
@pytest.mark.parametrize(
    "way", ["descriptor", pytest.param("bind mount", marks=WAYS["bind mount"])]
)
def test_clients_that_keep_the_socket_of_a_stopped_server_are_answered_or_refused(
    folder, endpoint, way
):
    """The path of the socket is removed with the server. No connection is dropped."""
    for _ in range(SOAK):
        with ExitStack() as stack:
            server = serving(endpoint, folder)
            wait_until(endpoint.exists, "the server")
            if way == "descriptor":
                reached = stack.enter_context(opened(endpoint))
            else:
                (folder / "mount").touch()
                reached = stack.enter_context(bound(endpoint, folder / "mount"))
            with Clients(reached, wait=False) as clients:
                clients.wait_for_answers(clients.count)
                server.send_signal(signal.SIGTERM)
                assert server.wait(TIMEOUT) == 0
                wait_until(
                    lambda: len(clients.refused) + len(clients.failed) == clients.count,
                    "all to be refused",
                )
            check_exactly_once(folder, clients)
            (folder / "record").unlink()
            with serving(endpoint, folder) as another:
                wait_until(endpoint.exists, "the next server")
                assert sipc("send", reached, "-d", "x").returncode == 3, "it is another socket"
                another.terminate()
