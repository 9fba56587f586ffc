"""`sipc send`: one request and one response, with any server and any pipeline."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import threading

import pytest
from helpers.command import SIPC, Program, assert_error_line, environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import descriptors, is_in_syscall, peak_memory, stop_process, syscall_arguments
from helpers.scripted_server import endless_response, respond_with, scripted_server
from helpers.sending import EchoServer, echo, feed, start_send, write_and_close
from helpers.server import Server
from helpers.soak import soak
from helpers.sockets import stale_socket
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import MAX_PAYLOAD, connect, decode, message, packets, read_message

MIB = 1 << 20


def waits_for_input(pid: int) -> bool:
    """Whether a process waits in readv(2) for its standard input."""
    return syscall_arguments(pid, "readv")[:1] == [0]


# -- the request -----------------------------------------------------------------------


@pytest.mark.parametrize("run", [sipc, run_cli])
def test_send_writes_the_bytes_that_git_expects(endpoint, run):
    requests = []
    with scripted_server(endpoint, respond_with(message(b"pong"), requests)):
        done = run("send", endpoint, input=b"ping")
    assert requests == [b"0008ping0000"]
    assert (done.returncode, done.stdout, done.stderr) == (0, b"pong", b"")


@pytest.mark.parametrize("size", [1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD + 7, 5 * MIB])
def test_requests_are_cut_into_full_packets(endpoint, folder, size):
    payload = os.urandom(size)
    (folder / "request").write_bytes(payload)
    requests = []
    with scripted_server(endpoint, respond_with(b"0000", requests)):
        assert sipc("send", endpoint, "--data-file", folder / "request").returncode == 0
    assert requests == [message(payload)]


@pytest.mark.parametrize(
    ("options", "input_"),
    [(["-d", "päng\n"], b""), (["--data-file", "-"], "päng\n".encode()), ([], "päng\n".encode())],
    ids=["--data", "--data-file -", "standard input"],
)
def test_a_request_comes_from_an_option_or_standard_input(endpoint, options, input_):
    with EchoServer(endpoint):
        assert run_cli("send", endpoint, *options, input=input_).stdout == "päng\n".encode()


def test_two_sources_of_the_request_are_a_usage_error(endpoint):
    done = run_cli("send", endpoint, "-d", "x", "--data-file", "y")
    assert done.returncode == 2
    assert b"cannot be combined" in done.stderr


@pytest.mark.parametrize("path", ["missing", ".", "sub/dir/missing"])
def test_a_request_file_that_cannot_be_read_sends_nothing(endpoint, folder, path):
    with EchoServer(endpoint) as server:
        assert_error_line(run_cli("send", endpoint, "--data-file", path, cwd=folder), 1, path)
    assert not server.accepted


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_a_small_request_that_has_ended_takes_no_thread(endpoint, folder, kind):
    if kind == "pipe":
        given, writer = os.pipe()
        os.write(writer, b"hello")
        os.close(writer)
    else:
        (folder / "request").write_bytes(b"hello")
        given = os.open(folder / "request", os.O_RDONLY)
    trace = folder / "trace"
    strace = ["strace", "-f", "-qq", "-e", "trace=clone,clone3", "-o", trace]
    with EchoServer(endpoint), open(given, "rb") as stdin:
        command = [*strace, SIPC, "send", endpoint]
        done = subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE, env=environment())
    assert (done.returncode, done.stdout) == (0, b"hello")
    assert trace.read_text() == ""


def test_send_connects_only_when_the_first_byte_of_the_request_is_available(endpoint):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(endpoint))
        listener.listen()
        with start_send(endpoint) as client:
            wait_until(lambda: waits_for_input(client.pid), "it to wait for its input")
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
            feed(client, b"x")
            listener.settimeout(TIMEOUT)
            with listener.accept()[0] as connection:
                assert connection.recv(100) == b"0005x"
                client.stdin.close()
                assert connection.recv(100) == b"0000"
                connection.sendall(message(b"done"))
                assert connection.recv(1) == b"", "it hangs up, and did not half-close before"
            assert client.stdout.read() == b"done"


def test_send_never_half_closes_the_connection(endpoint):
    def conversation(connection):
        read_message(connection)
        wait_until(lambda: is_in_syscall(client.pid, "recvfrom"), "it to wait for the response")
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        connection.setblocking(True)
        connection.sendall(b"0000")

    with scripted_server(endpoint, conversation), start_send(endpoint) as client:
        feed(client, b"x")
        client.stdin.close()
        assert client.wait() == 0


@pytest.mark.parametrize("cut", ["stdin", "SIGTERM", "SIGINT"])
def test_a_request_whose_input_fails_is_never_completed(endpoint, cut):
    received = []

    def conversation(connection):
        while piece := connection.recv(1 << 20):
            received.append(piece)

    with scripted_server(endpoint, conversation):
        # Reading from a terminal whose other end is closed is an error (EIO), not an end.
        master, slave = pty.openpty()
        with Program([SIPC, "send", endpoint], stdin=slave, stderr=subprocess.PIPE) as client:
            os.close(slave)
            assert b"end it with Ctrl-D" in client.stderr.readline()
            os.write(master, b"hello\n")
            wait_until(lambda: received, "the first bytes")
            if cut == "stdin":
                os.close(master)
                assert client.wait() == 1
                assert b"cannot read standard input" in client.stderr.read()
            else:
                client.send_signal(getattr(signal, cut))
                assert client.wait() == 128 + getattr(signal, cut)
                assert client.stderr.read() == b""
                os.close(master)
    assert b"".join(received) == b"000ahello\n"


def test_standard_streams_that_are_non_blocking_work(endpoint):
    payload = os.urandom(2 * MIB)
    with scripted_server(endpoint, echo):
        ours, its_input = os.pipe(), os.pipe()
        os.set_blocking(its_input[0], False)
        os.set_blocking(ours[1], False)
        with Program([SIPC, "send", endpoint], stdin=its_input[0], stdout=ours[1]) as client:
            os.close(its_input[0])
            os.close(ours[1])
            wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait for its input")
            feeder = threading.Thread(target=write_and_close, args=(its_input[1], payload))
            feeder.start()
            with open(ours[0], "rb") as response:
                assert response.read() == payload
            feeder.join()
            assert client.wait() == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_standard_stream_never_becomes_the_connection(endpoint, closed):
    received = []

    def conversation(connection):
        received.append(read_message(connection))
        connection.sendall(message(b"SECRET"))
        while piece := connection.recv(100):
            received.append(piece)

    command = ["sh", "-c", f"{SIPC} send {endpoint} {closed}"]
    if closed == "<&-":
        with EchoServer(endpoint):
            done = subprocess.run(command, capture_output=True)
        assert_error_line(done, 1, "standard input")
        return
    with scripted_server(endpoint, conversation):
        done = subprocess.run(command, input=b"x", capture_output=True)
    assert received == [b"0005x0000"]
    if closed == ">&-":
        assert_error_line(done, 1, "standard output")
    else:
        assert (done.returncode, done.stdout) == (0, b"SECRET")


# -- the response ----------------------------------------------------------------------


def test_the_response_is_written_as_it_arrives(endpoint):
    go = threading.Event()

    def conversation(connection):
        read_message(connection)
        connection.sendall(packets(b"first\n"))
        assert go.wait(TIMEOUT)
        connection.sendall(message(b"second\n"))

    with scripted_server(endpoint, conversation), start_send(endpoint, "-d", "x") as client:
        assert client.stdout.readline() == b"first\n"
        go.set()
        assert client.stdout.readline() == b"second\n"
        assert client.wait() == 0


def test_send_exits_after_a_complete_response_even_while_it_sends_the_request(endpoint):
    with scripted_server(endpoint, lambda connection: connection.sendall(message(b"enough"))):
        with Program(["cat", "/dev/zero"], stdout=subprocess.PIPE) as zeros:
            done = subprocess.run([SIPC, "send", endpoint], stdin=zeros.stdout, capture_output=True)
            zeros.stdout.close()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"enough", b"")


def test_send_exits_after_a_complete_response_even_while_it_waits_for_input(endpoint):
    def conversation(connection):
        connection.recv(5)
        connection.sendall(message(b"done\n"))

    with scripted_server(endpoint, conversation), start_send(endpoint) as client:
        feed(client, b"x")
        assert client.stdout.read() == b"done\n"
        assert client.wait() == 0


def test_a_response_from_before_the_server_closed_is_read_after_a_failed_write(endpoint):
    """The server responds and closes while 5 MB of the request are not yet sent."""

    def conversation(connection):
        connection.recv(1)
        connection.sendall(message(b"a" * 100_000))

    with scripted_server(endpoint, conversation):
        done = run_cli("send", endpoint, input=bytes(5 * MIB))
    assert (done.returncode, done.stdout) == (0, b"a" * 100_000)


TRUNCATED = {
    "nothing": b"",
    "a packet": packets(b"hello"),
    "half a header": packets(b"hello") + b"00",
    "half a packet": packets(b"hello") + b"0009wo",
}


@pytest.mark.parametrize("wire", TRUNCATED.values(), ids=TRUNCATED)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_response_without_a_flush_is_never_taken_for_complete(endpoint, folder, wire, reset):
    def conversation(connection):
        if not reset:  # unread bytes make the kernel reset the connection
            read_message(connection)
        connection.sendall(wire)

    output = folder / "response"
    output.write_text("old")
    with scripted_server(endpoint, conversation):
        done = run_cli("send", endpoint, "-o", output, input=b"x")
    assert_error_line(done, 7, "cut off")
    assert output.read_text() == "old"
    assert sorted(os.listdir(folder)) == ["response", "sock"]


@pytest.mark.parametrize("wire", [b"zzzz", b"0001", b"0003", b"fff1", b"+00fhello-hello"])
def test_a_malformed_response_is_a_protocol_error(endpoint, wire):
    with scripted_server(endpoint, respond_with(packets(b"hello") + wire)):
        done = run_cli("send", endpoint, input=b"x")
    assert_error_line(done, 7, "at byte 9", "expected 0000", stdout=b"hello")
    assert done.stdout == b"hello"


def test_a_response_that_arrives_byte_by_byte_is_understood(endpoint):
    def conversation(connection):
        read_message(connection)
        for byte in b"0004" + message(b"hello"):
            connection.sendall(bytes([byte]))

    with scripted_server(endpoint, conversation):
        assert run_cli("send", endpoint, input=b"x").stdout == b"hello"


def test_a_request_is_never_sent_twice(endpoint):
    """With --wait, too, a truncated response is an error and no reason to try again."""
    requests = []
    with scripted_server(endpoint, respond_with(b"", requests)):
        assert run_cli("send", endpoint, "--wait", "1h", "-d", "x").returncode == 7
    assert requests == [b"0005x0000"]


# -- volumes ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100_000_000, soak(500_000_000)])
def test_a_large_request_and_response_are_not_held_in_memory(endpoint, size):
    with scripted_server(endpoint, echo):
        with (
            Program(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE) as head,
            start_send(endpoint, stdin=head.stdout) as client,
        ):
            head.stdout.close()
            received = 0
            while piece := client.stdout.read(MIB):
                received += len(piece)
                if received < size - 20 * MIB:  # after that the client may have ended
                    peak = peak_memory(client.pid)
            assert (received, client.wait(), head.wait()) == (size, 0, 0)
    assert peak < 64 * MIB


@pytest.mark.parametrize("size", [5 * MIB, soak(50 * MIB)])
def test_a_pipeline_that_writes_all_before_it_reads_does_not_deadlock(endpoint, size):
    """The program at both ends of send reads nothing before it has written all output."""
    payload = os.urandom(size)
    with Server(endpoint, "cat"), start_send(endpoint) as client:
        feed(client, payload)
        client.stdin.close()
        assert client.stdout.read() == payload


# -- signals ---------------------------------------------------------------------------


def test_sigpipe_ends_send_in_a_pipeline(endpoint):
    with scripted_server(endpoint, endless_response(packets(b"y\n" * 1000))):
        with start_send(endpoint, "-d", "") as client:
            assert client.stdout.readline() == b"y\n"
            client.stdout.close()
            assert client.wait() == -signal.SIGPIPE


def test_a_closed_pipe_ends_send_even_if_sigpipe_is_blocked(endpoint):
    with scripted_server(endpoint, endless_response(packets(b"y\n" * 1000))):
        command = f"env --block-signal=PIPE {SIPC} send {endpoint} -d x | head -n 1"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True)
        assert done.returncode == 128 + signal.SIGPIPE
        assert done.stdout == b"y\n"


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(endpoint):
    with scripted_server(endpoint, echo):
        with start_send(endpoint, wrapper=["env", "--ignore-signal=INT"]) as client:
            feed(client, b"hello")
            assert client.stdout.read(5) == b"hello"
            client.send_signal(signal.SIGINT)
            client.stdin.close()
            assert client.wait() == 0


def test_a_client_that_was_stopped_while_it_connected_sends_the_whole_request(endpoint):
    """A stop signal interrupts connect(2), and the time limit of the socket must be reset."""
    payload = b"x" * MIB
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(endpoint))
        busy.listen(0)
        with connect(endpoint), start_send(endpoint, "--connect-timeout", "1h") as client:
            feeder = threading.Thread(target=client.communicate, args=(payload,))
            feeder.start()
            wait_until(lambda: is_in_syscall(client.pid, "connect"), "it to wait")
            for _ in range(3):
                stop_process(client.pid)
                client.send_signal(signal.SIGCONT)
                wait_until(lambda: is_in_syscall(client.pid, "connect"), "it to wait again")
            busy.accept()[0].close()
            with busy.accept()[0] as connection:
                assert decode(read_message(connection)) == (payload, True)
                connection.sendall(b"0000")
            feeder.join()
            assert client.returncode == 0


# -- the endpoint ----------------------------------------------------------------------


def test_a_missing_server_has_a_separate_exit_status(endpoint, folder):
    """At once: --connect-timeout, here unlimited, applies only to a busy server."""

    def send(path):
        return run_cli("send", path, "-d", "x", "--connect-timeout", "0")

    assert_error_line(send(endpoint), 4, str(endpoint))
    (folder / "plain").touch()
    assert_error_line(send(folder / "plain"), 5, "a file")
    assert_error_line(send(folder), 5, "a directory")
    stale_socket(endpoint)
    assert_error_line(send(endpoint), 3, "no server is listening")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(folder / "datagram"))
        assert_error_line(send(folder / "datagram"), 5)


def test_control_characters_in_a_name_are_shown_escaped(folder):
    done = run_cli("send", f"{folder}/red\x1b[31m\n", "-d", "x")
    assert_error_line(done, 4, "red\\x1b[31m\\n")


def test_one_socket_is_open_during_an_exchange(endpoint):
    with scripted_server(endpoint, echo), start_send(endpoint) as client:
        feed(client, b"x")
        assert client.stdout.read(1) == b"x"
        kinds = [name.partition(":")[0] for name in descriptors(client.pid)]
        client.stdin.close()
    assert kinds.count("socket") == 1
    assert set(kinds) <= {"socket", "pipe", "/dev/null"} | set(standard_error())


def standard_error() -> list[str]:
    """Return the file that is standard error, which every program here inherits."""
    return [os.readlink("/proc/self/fd/2").partition(":")[0]]


def test_a_long_path_leaves_no_descriptor_open(folder):
    path = folder / ("d" * 100) / ("s" * 100)
    path.parent.mkdir()
    with Server(path, "cat"), start_send(path) as client:
        feed(client, b"x")
        assert client.stdout.read(1) == b"x"
        assert not any("dddd" in name for name in descriptors(client.pid))
        client.stdin.close()
