"""The README's units under a real systemd, in a container."""

from __future__ import annotations

import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, packets, receive_all

WATCHDOG = 4
"""Seconds: longer than any process waits for a processor on a busy machine."""


@contextmanager
def request_in_progress(service, then: str = ""):
    """A client that has sent a part of its request, which the handler has sent back.

    `then` is what the handler does after the request, however that ends.
    """
    service.answer_with(f"cat; {then}")
    part = packets(b"first part")
    with connect(service.path) as client:
        client.sendall(part)
        assert client.recv(len(part), socket.MSG_WAITALL) == part
        wait_until(service.is_active, "the service to be active")
        yield client


def test_systemd_starts_the_server_for_the_first_client(service):
    assert service.show("ActiveState") == "inactive"
    asked = service.container.run("sipc", "send", "/run/demo.sock", "-d", "good morning")
    assert re.fullmatch(r"client \d+ sent: good morning\n", asked.stdout)
    wait_until(service.is_active, "the service to be active")
    assert service.show("StatusText") == "listening on /run/demo.sock"
    assert service.show("WatchdogUSec") not in ("0", "infinity")
    server = service.show("MainPID")
    assert ask(service.path, b"again")[1]
    assert service.show("MainPID") == server


def test_the_server_runs_as_the_user_that_the_unit_names(service):
    service.answer_with("id -un")
    assert ask(service.path, b"") == (b"demo\n", True)


def test_four_restarts_under_load_lose_no_request(service):
    service.be_patient()
    service.answer_with("tr a-z A-Z")
    right, wrong, over = [], [], threading.Event()

    def send_until_over(name: str) -> None:
        while not over.is_set():
            request = f"{name} {len(right)} ".encode() * 1000
            try:
                answer = ask(service.path, request)
            except OSError as error:
                answer = error
            (right if answer == (request.upper(), True) else wrong).append(answer)

    def more_answers() -> None:
        enough = len(right) + 50
        wait_until(lambda: wrong or len(right) > enough, "more answers")

    servers = []
    with ThreadPoolExecutor(4) as clients:
        running = [
            clients.submit(send_until_over, name) for name in ("one", "two", "three", "four")
        ]
        try:
            for restarts in range(5):
                if restarts:
                    service.systemctl("restart", "demo.service")
                more_answers()
                servers.append(service.show("MainPID"))
        finally:
            over.set()
    assert [client.result() for client in running] == [None] * 4
    assert wrong == []
    assert len(set(servers)) == 5
    assert service.show("NRestarts") == "0"  # no request but those of this test


def test_the_watchdog_does_not_end_a_server_that_works(service):
    service.change(f"WatchdogSec={WATCHDOG}s")
    ask(service.path, b"")
    wait_until(service.is_active, "the service to be active")
    server = service.show("MainPID")

    def last_sign_of_life() -> int:
        return int(service.show("WatchdogTimestampMonotonic"))  # microseconds

    long_after = last_sign_of_life() + WATCHDOG * 1_250_000
    wait_until(lambda: last_sign_of_life() > long_after, "signs of life")
    assert (service.show("MainPID"), service.show("NRestarts")) == (server, "0")


@pytest.mark.parametrize("how", ["STOP", "KILL"], ids=["frozen", "killed"])
def test_systemd_replaces_a_server_that_fails_and_its_handlers(service, how):
    """The watchdog notices a frozen server, whose handlers would not end by themselves."""
    if how == "STOP":
        service.change(f"WatchdogSec={WATCHDOG}s")
    with request_in_progress(service, then="exec sleep infinity") as client:
        failed = service.processes()
        service.systemctl("kill", "--kill-whom=main", f"--signal={how}", "demo.service")
        assert not decode(receive_all(client))[1]
    wait_until(lambda: service.show("NRestarts") == "1" and service.is_active(), "another server")
    assert len(failed) > 1
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in failed), "all to be gone")
    service.answer_with("cat")
    assert ask(service.path, b"again") == (b"again", True)
    assert service.show("NRestarts") == "1"


def test_a_stop_answers_requests_and_leaves_no_process(service):
    service.be_patient()
    with request_in_progress(service) as client:
        service.systemctl("stop", "--no-block", "demo.service")
        wait_until(lambda: service.show("StatusText").startswith("stopping"), "it to stop")
        client.sendall(packets(b", last part") + b"0000")
        assert decode(receive_all(client)) == (b", last part", True)
    wait_until(lambda: service.show("ActiveState") == "inactive", "it to have stopped")
    names = ("Result", "ExecMainCode", "ExecMainStatus", "NRestarts")
    assert [service.show(name) for name in names] == ["success", "1", "0", "0"]  # 1: CLD_EXITED
    assert service.processes() == []


def test_journalctl_finds_failures_by_their_priority(service):
    service.answer_with('read -r what; [ "$what" != fail ]')
    for lines, request in enumerate((b"good\n", b"fail\n", b"good\n"), 2):
        ask(service.path, request)
        wait_until(lambda: len(service.journal()) == lines, "it in the journal")  # noqa: B023
    listening, first, failed, second = service.journal()
    assert listening == "listening on /run/demo.sock"
    assert (first.endswith(": answered"), second.endswith(": answered")) == (True, True)
    assert re.fullmatch(r"\d+-2 .* status=1 .*: handler failed: exit status 1", failed)
    assert service.journal("-p", "err") == [failed]


def test_journalctl_finds_the_error_that_ended_the_server(service):
    service.change("LimitNOFILE=16", "Restart=no")
    service.systemctl("start", "demo.service", status=1)
    (error,) = service.journal("-p", "err")
    assert error.startswith("sipc serve: the limit of 16 file descriptors is too low: ")


def test_systemd_starts_a_server_for_each_connection(service_for_each):
    container = service_for_each
    for text in ("good morning", "good evening"):
        done = container.run("sipc", "send", "/run/each.sock", "-d", text)
        assert done.stdout == f"got {text}\n"
    container.run("touch", "/run/fail")
    container.run("sipc", "send", "/run/each.sock", "-d", "hello", status=7)

    def lines() -> list[str]:
        container.run("journalctl", "--sync")
        command = ("journalctl", "-t", "sipc", "-o", "cat", "-u", "each@*")
        found = container.run(*command).stdout.splitlines()
        return found if len(found) == 3 else []

    ends = [line.rpartition(": ")[2] for line in wait_until(lines, "three requests in the journal")]
    assert ends == ["answered", "answered", "exit status 1"]
