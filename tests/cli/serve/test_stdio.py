"""`sipc serve --stdio`: one connection, on standard input and output."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, environment, sipc
from helpers.procfs import state
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import accepted, decode, message, packets, receive_all
from helpers.workers import WORKER


def serve(*options, command="cat", stdin, stdout, **more) -> Program:
    """Start the command on this input and output."""
    handler = () if command is None else ("--exec", command)
    arguments = [SIPC, "serve", "--stdio", *handler, *map(str, options)]
    more = {"stderr": subprocess.PIPE, "env": environment(), **more}
    return Program(arguments, stdin=stdin, stdout=stdout, **more)


@contextmanager
def on_socket(*options, **more):
    """Start the command on one end of a socket pair; yield it and the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs, serve(*options, stdin=theirs, stdout=theirs, **more) as program:
        theirs.close()
        ours.settimeout(TIMEOUT)
        yield program, ours


@contextmanager
def on_pipes(*options, **more):
    with serve(*options, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more) as program:
        yield program, _Pipes(program)


class _Pipes:
    """Both ends of the client, used like a socket."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def sendall(self, data: bytes) -> None:
        self._program.stdin.write(data)
        self._program.stdin.flush()

    def shutdown(self, _how: int) -> None:
        self._program.stdin.close()

    def recv(self, size: int) -> bytes:
        return self._program.stdout.read1(size)

    def close(self) -> None:
        for stream in (self._program.stdin, self._program.stdout):
            stream.close()


def end(program: Program) -> tuple[int, str]:
    """Wait for its end; return its status and log."""
    log = program.stderr.read().decode()
    return program.wait(TIMEOUT), log


ENDS = pytest.mark.parametrize("on", [on_socket, on_pipes], ids=["socket", "pipes"])


@ENDS
def test_one_request_is_answered_and_logged(on):
    with on() as (program, client):
        client.sendall(message(b"hello"))
        assert receive_all(client) == message(b"hello")
        status, log = end(program)
    assert status == 0
    assert re.fullmatch(r"\d+-1 pid=\S+ in=5 out=5 status=0 time=\S+: answered\n", log)


@ENDS
def test_a_large_request_is_written_before_any_of_its_response_is_read(on):
    request = os.urandom(1 << 23)
    with on() as (program, client):
        client.sendall(message(request))
        assert decode(receive_all(client)) == (request, True)
        assert end(program)[0] == 0


@ENDS
@pytest.mark.parametrize(
    ("sent", "options", "status", "reason"),
    [
        (message(b""), ("--exec", "echo half; exit 3"), 7, "handler failed: exit status 3"),
        (message(b""), ("--exec", "sleep 1000", "--timeout", "10ms"), 6, "handler timeout"),
        (b"zzzz", (), 7, "malformed"),
        (packets(b"cut off"), ("--read-timeout", "10ms"), 6, "read timeout"),
        (message(b"hello"), ("--max-request", "4"), 1, "too large"),
    ],
    ids=["failed", "timeout", "malformed", "read-timeout", "too-large"],
)
def test_the_exit_status_is_that_of_the_request(on, sent, options, status, reason):
    more = {"command": None} if "--exec" in options else {}
    with on(*options, **more) as (program, client):
        client.sendall(sent)
        assert not decode(receive_all(client))[1]
        ended, log = end(program)
    assert ended == status
    assert reason in log


@ENDS
def test_a_request_that_ends_early_is_cut_off_and_gets_no_response(on):
    with on() as (program, client):
        client.sendall(packets(b"half"))
        client.shutdown(socket.SHUT_WR)
        assert not decode(receive_all(client))[1]
        status, log = end(program)
    assert (status, "request incomplete" in log) == (7, True)


@ENDS
def test_a_connection_without_a_byte_is_no_failure(on, folder):
    with on(command=f": >{folder}/ran") as (program, client):
        client.close()
        assert end(program) == (0, "")
    assert not (folder / "ran").exists()


@ENDS
def test_a_silent_connection_is_closed_after_the_idle_timeout(on):
    with on("--idle-timeout", "10ms") as (program, client):
        assert receive_all(client) == b""
        assert end(program) == (0, "")


@ENDS
def test_a_client_that_closes_takes_its_handler_with_it(on, folder):
    with on(command=f"echo $$ >{folder}/pid; sleep 1000") as (program, client):
        client.sendall(message(b""))
        pid = int(wait_until(lambda: _read(folder / "pid"), "the handler to start"))
        client.close()
        status, log = end(program)
    assert (status, "client closed" in log) == (7, True)
    assert state(pid) == "X"


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@ENDS
def test_a_half_close_is_no_hang_up(on, gate, folder):
    with on(command=f"touch {folder}/started; {gate.wait}; cat") as (program, client):
        client.sendall(message(b"hello"))
        client.shutdown(socket.SHUT_WR)
        wait_until((folder / "started").exists, "the handler to start")
        gate.open()
        assert receive_all(client) == message(b"hello")
        assert end(program)[0] == 0


@ENDS
def test_a_client_that_does_not_read_is_given_up(on):
    with on("--write-timeout", "100ms", command="yes") as (program, client):
        client.sendall(message(b""))
        status, log = end(program)
    assert (status, "write timeout" in log) == (6, True)


def full_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    return reader, writer


@pytest.mark.parametrize("command", ["cat", "cat; exit 3"])
def test_a_small_response_that_a_full_pipe_does_not_take_is_a_timeout(command):
    """Also if the handler has failed: its client gets what it has written."""
    reader, writer = full_pipe()
    options = ("--write-timeout", "100ms")
    with serve(*options, command=command, stdin=subprocess.PIPE, stdout=writer) as program:
        os.close(writer)
        program.stdin.write(message(b"hello"))
        program.stdin.flush()
        status, log = end(program)
        program.stdin.close()
    os.close(reader)
    assert (status, "did not read the response" in log) == (6, True)


CUT_OFF = "sipc serve: the response was cut off: cannot write standard output: "


def test_a_response_that_cannot_be_written_is_cut_off():
    with open("/dev/full", "wb") as full, serve(stdin=subprocess.PIPE, stdout=full) as program:
        program.stdin.write(message(b"hello"))
        program.stdin.close()
        status, log = end(program)
    assert (status, f"{CUT_OFF}No space left on device: " in log) == (7, True)


def test_a_client_that_closes_before_it_has_read_the_whole_response_is_noticed():
    reader, writer = full_pipe()
    with serve(stdin=subprocess.PIPE, stdout=writer) as program:
        os.close(writer)
        program.stdin.write(message(b"hello"))
        program.stdin.close()
        assert b"answered" in program.stderr.readline()
        os.close(reader)
        status, log = end(program)
    assert (status, f"{CUT_OFF}Broken pipe: " in log) == (7, True)


def test_a_closed_standard_input_is_an_error():
    with serve(stdin=None, stdout=subprocess.PIPE, preexec_fn=partial(os.close, 0)) as program:
        status, log = end(program)
    what = "cannot read standard input: Bad file descriptor: check how this server was started"
    assert (status, log) == (1, f"sipc serve: {what}\n")


@ENDS
@pytest.mark.parametrize("stops", [1, 2])
def test_the_first_signal_lets_the_request_finish_and_the_second_ends_it(on, gate, stops, folder):
    command = f"touch {folder}/started; {gate.wait}; cat"
    with on("--drain-timeout", "0", "-v", command=command) as (program, client):
        client.sendall(message(b"hello"))
        wait_until((folder / "started").exists, "the handler to start")
        program.send_signal(signal.SIGTERM)
        log = b""
        while b"stopping" not in log:
            log += program.stderr.readline()
        if stops == 2:
            program.send_signal(signal.SIGTERM)
            assert not decode(receive_all(client))[1]
        else:
            gate.open()
            assert receive_all(client) == message(b"hello")
        status, log = end(program)
        assert status == (0 if stops == 1 else 128 + signal.SIGTERM), log


# -- who the client is

SHOW = "env | grep -E '^(PROTO|UNIX[A-Z]*|SIPC_REQUEST_ID)=' | sort"


def shown(wire: bytes) -> dict[str, str]:
    payload, is_whole = decode(wire)
    assert is_whole
    return dict(line.split("=", 1) for line in payload.decode().splitlines())


def test_handlers_get_the_process_at_the_other_end_of_the_socket(endpoint):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(endpoint))
        listener.listen()
        client, theirs = accepted(listener)
    with client, theirs, serve(command=SHOW, stdin=theirs, stdout=theirs) as program:
        theirs.close()
        client.sendall(message(b""))
        assert shown(receive_all(client)) == {
            "PROTO": "UNIX",
            "UNIXLOCALPATH": str(endpoint),
            "UNIXREMOTEPID": str(os.getpid()),
            "UNIXREMOTEEUID": str(os.getuid()),
            "UNIXREMOTEEGID": str(os.getgid()),
            "SIPC_REQUEST_ID": f"{program.pid}-1",
        }
        assert end(program)[0] == 0


@pytest.mark.parametrize("has_client", [True, False])
def test_on_pipes_handlers_get_the_client_that_the_environment_names(has_client):
    names = {"PROTO": "IPC", "IPCLOCALPATH": "/a/path", "IPCREMOTEEUID": "7", "IPCREMOTEEGID": "8"}
    env = environment(**names) if has_client else environment(UNIXREMOTEPID="9")
    with on_pipes(command=SHOW, env=env) as (program, client):
        client.sendall(message(b""))
        found = shown(receive_all(client))
        assert end(program)[0] == 0
    assert found.pop("PROTO") == "UNIX"
    assert found.pop("SIPC_REQUEST_ID") == f"{program.pid}-1"
    names = ("UNIXLOCALPATH", "UNIXREMOTEEUID", "UNIXREMOTEEGID")
    assert found == (dict(zip(names, ("/a/path", "7", "8"), strict=True)) if has_client else {})


def test_a_client_that_is_unknown_is_refused_if_only_some_users_are_allowed():
    with on_pipes("--allow-user", os.getuid()) as (program, client):
        assert receive_all(client) == b""
        assert end(program) == (8, "refused a connection: its user is unknown\n")


def test_a_client_that_is_unknown_is_null_in_the_json_log():
    with on_pipes("--log-format", "json") as (program, client):
        client.sendall(message(b"hello"))
        assert receive_all(client) == message(b"hello")
        record = json.loads(end(program)[1])
    assert [record[name] for name in ("pid", "uid", "gid")] == [None, None, None]


def test_a_tcp_connection_is_answered_and_has_no_process():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client, theirs = accepted(listener)
    with client, theirs, serve(command=SHOW, stdin=theirs, stdout=theirs) as program:
        theirs.close()
        client.sendall(message(b""))
        assert set(shown(receive_all(client))) == {"PROTO", "SIPC_REQUEST_ID"}
        assert end(program)[0] == 0


@pytest.mark.parametrize(("user", "status"), [(os.getuid(), 0), (os.getuid() + 12345, 8)])
def test_only_allowed_users_are_answered(user, status):
    with on_socket("--allow-user", user) as (program, client):
        client.sendall(message(b"hello"))
        wire = receive_all(client) if status == 0 else b""
        ended, log = end(program)
    assert (ended, wire) == (status, message(b"hello") if status == 0 else b"")
    assert ("refused" in log) == (status != 0)


# -- the process


def test_the_log_never_becomes_part_of_the_response():
    """inetd makes standard error the connection, too."""
    ours, theirs = socket.socketpair()
    with ours, theirs, serve("-v", stdin=theirs, stdout=theirs, stderr=theirs) as program:
        theirs.close()
        ours.settimeout(TIMEOUT)
        ours.sendall(message(b"hello"))
        assert receive_all(ours) == message(b"hello")
        assert program.wait(TIMEOUT) == 0


def test_the_connection_ends_with_the_response_although_a_child_of_the_handler_runs_on(gate):
    """No process but the server's has it."""
    child = f"setsid sh -c '{gate.wait}' >/dev/null 2>&1 </dev/null &"
    with on_socket(command=f"cat; {child}") as (program, client):
        client.sendall(message(b"hello"))
        assert receive_all(client) == message(b"hello")
        assert end(program)[0] == 0
        gate.open()


def test_a_worker_and_a_python_function_answer_too(folder):
    with on_socket("--worker", f"{WORKER} echo", command=None) as (program, client):
        client.sendall(message(b"hello"))
        assert receive_all(client) == message(b"hello")
        assert end(program)[0] == 0
    (folder / "shout.py").write_text("def answer(request):\n    return request.upper()\n")
    with on_pipes("--call", "shout:answer", command=None, cwd=folder) as (program, client):
        client.sendall(message(b"hello"))
        assert receive_all(client) == message(b"HELLO")
        assert end(program)[0] == 0


# -- programs that accept connections


ON_S6 = ["s6-ipcserver", "PATH", "sipc", "serve", "--stdio", "--exec", SHOW]
ON_SOCAT = ["socat", "UNIX-LISTEN:PATH,fork", "EXEC:sipc serve --stdio --exec cat"]


@contextmanager
def super_server(command: list[str], path: Path):
    """Run a program that accepts connections at a path and starts sipc for each."""
    name = command[0]
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}: apt-get install {'s6' if name[:2] == 's6' else name}")
    words = [word.replace("PATH", str(path)) for word in command]
    with Program(words, stderr=subprocess.PIPE, env=environment()) as running:
        yield
        running.terminate()
        running.stderr.read()


def test_s6_ipcserver_runs_it_for_each_connection(endpoint):
    with super_server(ON_S6, endpoint):
        for _ in range(2):
            done = sipc("send", "--wait", f"{TIMEOUT}s", endpoint, "-d", "hello")
            assert done.returncode == 0, done.stderr
            found = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
            assert found["UNIXLOCALPATH"] == str(endpoint)
            assert found["UNIXREMOTEEUID"] == str(os.getuid())
            assert int(found["UNIXREMOTEPID"]) > 0


@pytest.mark.parametrize("more", ["", ",pipes"], ids=["sockets", "pipes"])
def test_socat_runs_it_for_each_connection(endpoint, more):
    request = os.urandom(1 << 21)
    with super_server([*ON_SOCAT[:-1], ON_SOCAT[-1] + more], endpoint):
        for data in (b"", b"hello", request):
            done = sipc("send", "--wait", f"{TIMEOUT}s", endpoint, input=data)
            assert (done.returncode, done.stdout == data) == (0, True), done.stderr
