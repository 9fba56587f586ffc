"""`sipc send`: one request, one answer, whatever the server or the pipeline does."""

from __future__ import annotations

import os
import pty
import signal
import socket
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, assert_error_line, environment, needs_root, sipc
from helpers.procfs import descriptors, is_in_syscall, peak_memory, stop_process
from helpers.scripted_server import endless_response, scripted_server
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import MAX_PAYLOAD, connect, decode, message, packets, read_message

MIB = 1 << 20


def waits_for_input(pid: int) -> bool:
    """Whether a process waits in read(2) for its standard input."""
    return (
        is_in_syscall(pid, "readv") and Path(f"/proc/{pid}/syscall").read_text().split()[1] == "0x0"
    )


def test_the_wire_is_what_git_expects(endpoint):
    seen = []

    def conversation(connection):
        seen.append(read_message(connection))
        connection.sendall(message(b"pong"))

    with scripted_server(endpoint, conversation):
        done = sipc("send", endpoint, input=b"ping")
    assert seen == [b"0008ping0000"]
    assert (done.returncode, done.stdout, done.stderr) == (0, b"pong", b"")


@pytest.mark.parametrize("size", [1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD + 7, 20 * MIB])
def test_requests_are_cut_into_full_packets(endpoint, folder, size):
    payload = os.urandom(size)
    (folder / "request").write_bytes(payload)
    seen = []

    def conversation(connection):
        seen.append(decode(read_message(connection)))
        connection.sendall(b"0000")

    with scripted_server(endpoint, conversation):
        assert sipc("send", endpoint, "--data-file", folder / "request").returncode == 0
    assert seen == [(payload, True)]


@pytest.mark.parametrize(
    ("options", "input_"),
    [(["-d", "päng\n"], b""), (["--data-file", "-"], "päng\n".encode()), ([], "päng\n".encode())],
    ids=["--data", "--data-file -", "standard input"],
)
def test_a_request_comes_from_where_it_is_said(endpoint, options, input_):
    with Server(endpoint, "cat"):
        assert sipc("send", endpoint, *options, input=input_).stdout == "päng\n".encode()


def test_two_sources_are_a_usage_error(endpoint):
    done = sipc("send", endpoint, "-d", "x", "--data-file", "y")
    assert done.returncode == 2
    assert b"not both" in done.stderr


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
    with Server(endpoint, "cat"), open(given, "rb") as stdin:
        command = [*strace, SIPC, "send", endpoint]
        done = subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE, env=environment())
    assert (done.returncode, done.stdout) == (0, b"hello")
    assert trace.read_text() == ""


def test_it_connects_when_the_first_byte_is_there_and_not_before(endpoint):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(endpoint))
        listener.listen()
        with Program(
            [SIPC, "send", endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as client:
            wait_until(lambda: waits_for_input(client.pid), "it to wait for its input")
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
            client.stdin.write(b"x")
            client.stdin.flush()
            listener.settimeout(30)
            with listener.accept()[0] as connection:
                assert connection.recv(100) == b"0005x"
                client.stdin.close()
                assert connection.recv(100) == b"0000"
                connection.sendall(message(b"done"))
                assert connection.recv(1) == b"", "it hangs up, and did not half-close before"
            assert client.stdout.read() == b"done"


def test_it_never_half_closes(endpoint):
    def conversation(connection):
        read_message(connection)
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        connection.setblocking(True)
        connection.sendall(b"0000")

    with scripted_server(endpoint, conversation):
        assert sipc("send", endpoint, input=b"x").returncode == 0


def test_the_answer_is_passed_on_as_it_comes(endpoint):
    go = threading.Event()

    def conversation(connection):
        read_message(connection)
        connection.sendall(packets(b"first\n"))
        assert go.wait(30)
        connection.sendall(message(b"second\n"))

    with scripted_server(endpoint, conversation):
        client = Program([SIPC, "send", endpoint, "-d", "x"], stdout=subprocess.PIPE)
        assert client.stdout.readline() == b"first\n"
        go.set()
        assert client.stdout.readline() == b"second\n"
        assert client.wait() == 0
        client.stdout.close()


def test_a_complete_answer_is_the_end_even_if_the_request_still_flows(endpoint):
    with scripted_server(endpoint, lambda connection: connection.sendall(message(b"enough"))):
        with Program(["cat", "/dev/zero"], stdout=subprocess.PIPE) as zeros:
            done = subprocess.run([SIPC, "send", endpoint], stdin=zeros.stdout, capture_output=True)
            zeros.stdout.close()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"enough", b"")


def test_a_complete_answer_is_the_end_even_if_nothing_more_comes_in(endpoint):
    with Server(endpoint, "echo done"):
        with Program(
            [SIPC, "send", endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as client:
            client.stdin.write(b"x")
            client.stdin.flush()
            assert client.stdout.read() == b"done\n"
            assert client.wait() == 0


def test_what_was_answered_before_the_server_closed_is_read_after_a_failed_write(endpoint):
    """The server answers and closes while 20 MB of request are still to come."""

    def conversation(connection):
        connection.recv(1)
        connection.sendall(message(b"a" * 100_000))

    with scripted_server(endpoint, conversation):
        done = sipc("send", endpoint, input=bytes(20 * MIB))
    assert (done.returncode, done.stdout) == (0, b"a" * 100_000)


CUT_OFF = {
    "nothing": b"",
    "a packet": packets(b"hello"),
    "half a header": packets(b"hello") + b"00",
    "half a packet": packets(b"hello") + b"0009wo",
}


@pytest.mark.parametrize("wire", CUT_OFF.values(), ids=CUT_OFF)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_an_answer_without_a_flush_is_never_taken_for_complete(endpoint, folder, wire, reset):
    def conversation(connection):
        if not reset:  # unread bytes make the kernel reset the connection
            read_message(connection)
        connection.sendall(wire)

    output = folder / "answer"
    output.write_text("old")
    with scripted_server(endpoint, conversation):
        done = sipc("send", endpoint, "-o", output, input=b"x")
    assert_error_line(done, 7, "cut off")
    assert output.read_text() == "old"
    assert sorted(os.listdir(folder)) == ["answer", "sock"]


@pytest.mark.parametrize("wire", [b"zzzz", b"0001", b"0003", b"fff1", b"+00fhello-hello"])
def test_nonsense_for_an_answer_is_a_protocol_error(endpoint, wire):
    def conversation(connection):
        read_message(connection)
        connection.sendall(packets(b"hello") + wire)

    with scripted_server(endpoint, conversation):
        done = sipc("send", endpoint, input=b"x")
    assert_error_line(done, 7, "at byte 9", "expected 0000", stdout=b"hello")
    assert done.stdout == b"hello"


def test_an_answer_one_byte_at_a_time_is_understood(endpoint):
    def conversation(connection):
        read_message(connection)
        for byte in b"0004" + message(b"hello"):
            connection.sendall(bytes([byte]))

    with scripted_server(endpoint, conversation):
        assert sipc("send", endpoint, input=b"x").stdout == b"hello"


@pytest.mark.parametrize("cut", ["stdin", "SIGTERM", "SIGINT"])
def test_a_request_that_could_not_be_read_to_its_end_is_never_completed(endpoint, cut):
    seen = []

    def conversation(connection):
        while piece := connection.recv(1 << 20):
            seen.append(piece)

    with scripted_server(endpoint, conversation):
        # The terminal's end is an error (EIO) to who reads it, not an end.
        master, slave = pty.openpty()
        client = Program([SIPC, "send", endpoint], stdin=slave, stderr=subprocess.PIPE)
        os.close(slave)
        assert b"end it with Ctrl-D" in client.stderr.readline()
        os.write(master, b"hello\n")
        wait_until(lambda: seen, "the first bytes")
        if cut == "stdin":
            os.close(master)
            assert client.wait() == 1
            assert b"cannot read standard input" in client.stderr.read()
        else:
            client.send_signal(getattr(signal, cut))
            assert client.wait() == 128 + getattr(signal, cut)
            assert client.stderr.read() == b""
            os.close(master)
        client.stderr.close()
    assert b"".join(seen) == b"000ahello\n"


def test_in_a_pipeline_it_ends_by_sigpipe(endpoint):
    with Server(endpoint, "yes") as server:
        client = Program([SIPC, "send", endpoint, "-d", ""], stdout=subprocess.PIPE)
        assert client.stdout.readline() == b"y\n"
        client.stdout.close()
        assert client.wait() == -signal.SIGPIPE
        server.wait_for_log("client hung up")


def test_a_full_disk_is_said_and_is_a_failure(endpoint):
    with Server(endpoint, "cat"):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [SIPC, "send", endpoint, "-d", "x"], stdout=full, stderr=subprocess.PIPE
            )
    done.stdout = b""
    assert_error_line(done, 1, "No space left")


@pytest.mark.parametrize("path", ["missing", ".", "sub/dir/missing"])
def test_a_request_file_that_cannot_be_read_sends_nothing(endpoint, folder, path):
    with Server(endpoint, "cat") as server:
        assert_error_line(sipc("send", endpoint, "--data-file", path, cwd=folder), 1, path)
        assert "answered" not in server.log


def test_500_megabytes_both_ways_stay_out_of_memory(endpoint):
    size = 500_000_000
    with Server(endpoint, "cat"):
        with open("/dev/zero", "rb") as zeros:
            head = Program(["head", "-c", str(size)], stdin=zeros, stdout=subprocess.PIPE)
        command = [SIPC, "send", endpoint]
        client = Program(command, stdin=head.stdout, stdout=subprocess.PIPE)
        head.stdout.close()
        received = 0
        while piece := client.stdout.read(MIB):
            received += len(piece)
            if received < size - 50 * MIB:  # later it may have ended
                peak = peak_memory(client.pid)
        assert (received, client.wait(), head.wait()) == (size, 0, 0)
        client.stdout.close()
        assert peak < 64 * MIB


def test_a_pipeline_that_writes_all_before_it_reads_does_not_lock_up(endpoint):
    """The program at both ends of send reads nothing before its 50 MB are written."""
    payload = os.urandom(50 * MIB)
    with Server(endpoint, "cat"):
        with Program(
            [SIPC, "send", endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as client:
            client.stdin.write(payload)
            client.stdin.close()
            assert client.stdout.read() == payload


def test_output_to_a_file_appears_when_it_is_complete(endpoint, folder):
    go = threading.Event()

    def conversation(connection):
        read_message(connection)
        connection.sendall(packets(b"first"))
        assert go.wait(30)
        connection.sendall(message(b"second"))

    with scripted_server(endpoint, conversation):
        client = Program([SIPC, "send", endpoint, "-d", "x", "-o", folder / "answer"])
        wait_until(
            lambda: any(p.stat().st_size for p in folder.glob(".answer.sipc-*")), "the first part"
        )
        assert not (folder / "answer").exists()
        go.set()
        assert client.wait() == 0
    assert (folder / "answer").read_bytes() == b"firstsecond"
    assert sorted(os.listdir(folder)) == ["answer", "sock"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_no_half_a_file(endpoint, folder, number):
    with Server(endpoint, "cat; sleep 1000"):
        client = Program([SIPC, "send", endpoint, "-d", "x", "-o", folder / "answer"])
        wait_until(
            lambda: any(p.stat().st_size for p in folder.glob(".answer.sipc-*")), "the first part"
        )
        client.send_signal(number)
        assert client.wait() == 128 + number
        assert sorted(os.listdir(folder)) == ["sock"]


def test_output_to_a_file_has_the_mode_that_a_redirection_gives(endpoint, folder):
    (folder / "old").write_text("old")
    (folder / "old").chmod(0o604)
    (folder / "real").write_text("old")
    (folder / "link").symlink_to("real")
    with Server(endpoint, "cat"):
        for name in ("new", "old", "link"):
            assert (
                sipc("send", endpoint, "-d", "x", "-o", folder / name, umask=0o027).returncode == 0
            )
            assert (folder / name).read_text() == "x"
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE((folder / "old").stat().st_mode) == 0o604
    assert (folder / "link").is_symlink()
    assert (folder / "real").read_text() == "x"


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "-"])
def test_output_to_a_device_goes_there(endpoint, name):
    before = os.stat("/dev/null").st_ino
    with Server(endpoint, "cat"):
        done = sipc("send", endpoint, "-d", "x", "-o", name)
        assert (done.returncode, done.stdout) == (0, b"" if name == "/dev/null" else b"x")
    assert os.stat("/dev/null").st_ino == before


def test_output_that_cannot_be_made_is_said_before_anything_is_sent(endpoint, folder):
    with Server(endpoint, "cat") as server:
        assert_error_line(
            sipc("send", endpoint, "-d", "x", "-o", folder / "no" / "file"), 1, "no/file"
        )
        assert_error_line(sipc("send", endpoint, "-d", "x", "-o", folder), 1, str(folder))
        assert "answered" not in server.log


@pytest.mark.parametrize("option", ["-m", "--max-time"])
def test_max_time_ends_a_connected_send(endpoint, option):
    def conversation(connection):
        read_message(connection)
        assert connection.recv(1) == b""

    with scripted_server(endpoint, conversation):
        assert_error_line(sipc("send", endpoint, option, "200ms", "-d", "x"), 6, "in time")


def test_max_time_ends_a_send_whose_request_does_not_get_through(endpoint):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(endpoint))
        listener.listen()
        assert_error_line(sipc("send", endpoint, "-m", "200ms", input=bytes(5 * MIB)), 6)


def test_max_time_ends_a_send_that_waits_for_its_input_or_its_reader(endpoint):
    with Server(endpoint, "head -c 10000000 /dev/zero"):
        reader, writer = os.pipe()
        command = [SIPC, "send", endpoint, "-m", "300ms"]
        done = subprocess.run(command, stdin=reader, capture_output=True)
        assert_error_line(done, 6, "standard input")
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE
        )
        done.stdout = b""
        assert_error_line(done, 6, "standard output")
        os.close(reader)
        os.close(writer)


def test_nobody_there_has_a_status_of_its_own(endpoint, folder):
    assert_error_line(sipc("send", endpoint, "-d", "x"), 4, str(endpoint))
    (folder / "plain").touch()
    assert_error_line(sipc("send", folder / "plain", "-d", "x"), 5, "a file")
    assert_error_line(sipc("send", folder, "-d", "x"), 5, "a directory")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(endpoint))
        assert_error_line(sipc("send", endpoint, "-d", "x"), 3, "nobody is listening")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(folder / "datagram"))
        assert_error_line(sipc("send", folder / "datagram", "-d", "x"), 5)


@pytest.mark.parametrize(
    "limit",
    [
        ["--connect-timeout", "100ms"],
        ["-m", "100ms"],
        ["--wait", "100ms", "--connect-timeout", "0"],
    ],
)
def test_a_busy_server_is_not_listening_once_the_time_is_up(endpoint, limit):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(endpoint))
        busy.listen(0)
        with connect(endpoint):
            assert_error_line(sipc("send", endpoint, "-d", "x", *limit), 3, "busy")


def test_a_busy_server_is_waited_for(endpoint):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(endpoint))
        busy.listen(0)
        with connect(endpoint):
            command = [SIPC, "send", endpoint, "-d", "x", "--connect-timeout", "0"]
            client = Program(command, stdout=subprocess.PIPE)
            wait_until(lambda: is_in_syscall(client.pid, "connect"), "it to wait")
            busy.accept()[0].close()
            with busy.accept()[0] as connection:
                read_message(connection)
                connection.sendall(message(b"done"))
            assert client.communicate()[0] == b"done"


def test_wait_sends_once_a_server_is_there(endpoint):
    client = Program([SIPC, "send", endpoint, "--wait", "30s", "-d", "x"], stdout=subprocess.PIPE)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(endpoint))
    with Server(endpoint, "cat", "--count", 1) as server:
        assert client.communicate()[0] == b"x"
        assert server.wait() == 0
        assert server.log.count("in=1") == 1


@pytest.mark.parametrize(("wait", "status"), [("100ms", 4), ("0.1", 4)])
def test_wait_has_an_end(endpoint, wait, status):
    assert_error_line(sipc("send", endpoint, "--wait", wait, "-d", "x"), status)


def test_a_request_is_never_sent_twice(endpoint):
    """With --wait, too, a cut-off answer is an error and no reason to try again."""
    accepted = []

    def conversation(connection):
        accepted.append(read_message(connection))

    with scripted_server(endpoint, conversation):
        assert sipc("send", endpoint, "--wait", "1s", "-d", "x").returncode == 7
    assert len(accepted) == 1


def test_nothing_is_left_open(endpoint):
    with Server(endpoint, "sleep 1000"):
        client = Program([SIPC, "send", endpoint, "-d", "x"], env=environment())
        wait_until(
            lambda: any("socket:" in name for name in descriptors(client.pid)), "a connection"
        )
        opened = [name for name in descriptors(client.pid) if not name.startswith(("/dev", "pipe"))]
        assert len([name for name in opened if name.startswith("socket:")]) == 1
        client.kill()
        client.wait()


@pytest.mark.parametrize("wire", [packets(bytes(4 * MIB)), b"0004" * MIB], ids=["data", "empty"])
@pytest.mark.parametrize("output", [[], ["-o", "answer"]], ids=["stdout", "file"])
def test_max_time_ends_an_endless_answer(endpoint, folder, wire, output):
    with scripted_server(endpoint, endless_response(wire)):
        with open("/dev/null", "wb") as null:
            done = subprocess.run(
                [SIPC, "send", endpoint, "-d", "x", "-m", "500ms", *output],
                stdout=null,
                stderr=subprocess.PIPE,
                cwd=folder,
            )
    done.stdout = b""
    assert_error_line(done, 6, "in time")
    assert os.listdir(folder) == ["sock"]


def test_max_time_covers_a_named_pipe_that_nobody_opens(endpoint, folder):
    os.mkfifo(folder / "pipe")
    with Server(endpoint, "cat"):
        assert_error_line(
            sipc("send", endpoint, "-d", "x", "-m", "100ms", "-o", folder / "pipe"), 6
        )


def test_a_named_pipe_takes_the_answer(endpoint, folder):
    os.mkfifo(folder / "pipe")
    with Server(endpoint, "cat"):
        for limit in ([], ["-m", "30s"]):
            command = [SIPC, "send", endpoint, "-d", "x", *limit, "-o", folder / "pipe"]
            with Program(command) as client:
                assert (folder / "pipe").read_bytes() == b"x"
                assert client.wait() == 0


def test_silent_input_and_nobody_there_is_nobody_there(endpoint):
    reader, writer = os.pipe()
    done = subprocess.run(
        [SIPC, "send", endpoint, "-m", "100ms"], stdin=reader, capture_output=True
    )
    assert_error_line(done, 4)
    os.close(reader)
    os.close(writer)


def test_very_long_limits_are_just_long(endpoint):
    with Server(endpoint, "cat"):
        done = sipc("send", endpoint, "-m", "9999h", "--connect-timeout", "9999h", input=b"x")
        assert (done.returncode, done.stdout) == (0, b"x")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_standard_stream_never_becomes_the_connection(endpoint, closed):
    seen = []

    def conversation(connection):
        seen.append(read_message(connection))
        connection.sendall(message(b"SECRET"))
        while piece := connection.recv(100):
            seen.append(piece)

    command = f"{SIPC} send {endpoint} {closed}"
    if closed == "<&-":
        with Server(endpoint, "cat"):
            done = subprocess.run(["sh", "-c", command], capture_output=True)
        assert_error_line(done, 1, "standard input")
        return
    with scripted_server(endpoint, conversation):
        done = subprocess.run(["sh", "-c", command], input=b"x", capture_output=True)
    assert seen == [b"0005x0000"]
    if closed == ">&-":
        assert_error_line(done, 1, "standard output")
    else:
        assert (done.returncode, done.stdout) == (0, b"SECRET")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_output_to_a_descriptor_adds_to_what_is_open_there(endpoint, folder, name):
    with Server(endpoint, "cat"):
        command = f"{{ echo one; {SIPC} send {endpoint} -d 'two\n' -o {name}; echo three; }} >out"
        assert subprocess.run(["sh", "-c", command], cwd=folder).returncode == 0
    assert (folder / "out").read_text() == "one\ntwo\nthree\n"


@pytest.mark.parametrize("limit", [[], ["-m", "30s"]], ids=["without -m", "with -m"])
@pytest.mark.parametrize("name", ["sock", "/dev/fd/77", f"/dev/fd/{'9' * 20}"])
def test_output_to_what_cannot_be_opened_is_refused_at_once(endpoint, folder, name, limit):
    with Server(endpoint, "cat"):
        assert_error_line(
            sipc("send", endpoint, "-d", "x", *limit, "-o", name, cwd=folder), 1, name
        )


@pytest.mark.parametrize("name", ["", "new/", "plain/", "loop"])
def test_output_to_what_is_no_name_is_refused_before_anything_is_sent(endpoint, folder, name):
    (folder / "plain").write_text("precious")
    (folder / "loop").symlink_to("loop")
    with Server(endpoint, "cat") as server:
        assert_error_line(sipc("send", endpoint, "-d", "x", "-o", name, cwd=folder), 1)
        assert "answered" not in server.log
    assert sorted(os.listdir(folder)) == ["loop", "plain"]
    assert (folder / "plain").read_text() == "precious"


@needs_root
def test_output_keeps_no_set_uid_bits_and_the_owner(endpoint, folder):
    answer = folder / "answer"
    answer.touch()
    os.chown(answer, 1234, 1234)
    answer.chmod(0o4751)
    with Server(endpoint, "cat"):
        assert sipc("send", endpoint, "-d", "x", "-o", answer).returncode == 0
    found = answer.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 1234, 0o751)


@pytest.mark.soak
def test_many_signals_are_one_end_and_no_traceback(endpoint, folder):
    with Server(endpoint, "cat; sleep 1000"):
        for _ in range(5):
            client = Program(
                [SIPC, "send", endpoint, "-d", "x", "-o", folder / "answer"],
                stderr=subprocess.PIPE,
            )
            wait_until(lambda: list(folder.glob(".answer.sipc-*")), "it to have begun")
            while client.poll() is None:
                client.send_signal(signal.SIGTERM)
            assert client.stderr.read() == b""
            client.stderr.close()
            assert client.returncode == 143
            assert sorted(os.listdir(folder)) == ["sock"]


def test_a_lost_terminal_leaves_no_half_a_file(endpoint, folder):
    with Server(endpoint, "cat; sleep 1000"):
        client = Program([SIPC, "send", endpoint, "-d", "x", "-o", folder / "answer"])
        wait_until(lambda: list(folder.glob(".answer.sipc-*")), "it to have begun")
        client.send_signal(signal.SIGHUP)
        assert client.wait() == 129
        assert sorted(os.listdir(folder)) == ["sock"]


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(endpoint):
    with Server(endpoint, "cat") as server:
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", SIPC, "send", endpoint]
        with Program(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            client.stdin.write(b"hello")
            client.stdin.flush()
            assert client.stdout.read(5) == b"hello"
            client.send_signal(signal.SIGINT)
            client.stdin.close()
            assert client.wait() == 0
        server.wait_for_log("answered")


def test_a_blocked_sigpipe_is_no_endless_loop(endpoint):
    with Server(endpoint, "yes"):
        command = f"env --block-signal=PIPE {SIPC} send {endpoint} -d x | head -n 1"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True)
        assert done.returncode == 128 + signal.SIGPIPE
        assert done.stdout == b"y\n"


def test_a_long_path_leaves_no_descriptor_open(folder):
    path = folder / ("d" * 100) / ("s" * 100)
    path.parent.mkdir()
    with Server(path, "sleep 1000"):
        with Program([SIPC, "send", path, "-d", "x"]) as client:
            wait_until(
                lambda: any("socket:" in name for name in descriptors(client.pid)), "a connection"
            )
            wait_until(
                lambda: not any("dddd" in name for name in descriptors(client.pid)),
                "the path to be closed",
            )
            client.kill()


def test_stopped_while_it_connects_it_goes_on_and_sends_all(endpoint):
    """A stop signal interrupts connect(2), and the kernel's time limit must not stay."""
    payload = b"x" * (20 * MIB)
    seen = []
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(endpoint))
        busy.listen(0)
        with connect(endpoint):
            client = Program(
                [SIPC, "send", endpoint, "--connect-timeout", "20s"], stdin=subprocess.PIPE
            )
            feeder = threading.Thread(target=client.communicate, args=(payload,))
            feeder.start()
            wait_until(lambda: is_in_syscall(client.pid, "connect"), "it to wait")
            for _ in range(3):
                stop_process(client.pid)
                wait_until(lambda: is_stopped(client.pid), "it to stop")
                client.send_signal(signal.SIGCONT)
                wait_until(lambda: is_in_syscall(client.pid, "connect"), "it to wait again")
            busy.accept()[0].close()
            with busy.accept()[0] as connection:
                seen.append(decode(read_message(connection)))
                connection.sendall(b"0000")
            feeder.join()
            assert client.returncode == 0
    assert seen == [(payload, True)]


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_standard_streams_that_somebody_made_non_blocking_work(endpoint):
    payload = os.urandom(5 * MIB)
    with Server(endpoint, "cat"):
        ours, its_input = os.pipe(), os.pipe()
        os.set_blocking(its_input[0], False)
        os.set_blocking(ours[1], False)
        client = Program([SIPC, "send", endpoint], stdin=its_input[0], stdout=ours[1])
        os.close(its_input[0])
        os.close(ours[1])
        feeder = threading.Thread(target=write_and_close, args=(its_input[1], payload))
        wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait for its input")
        feeder.start()
        with open(ours[0], "rb") as answer:
            assert answer.read() == payload
        feeder.join()
        assert client.wait() == 0


def write_and_close(descriptor: int, payload: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(payload)


def test_control_characters_in_a_name_are_shown_escaped(folder):
    done = sipc("send", f"{folder}/red\x1b[31m\n", "-d", "x")
    assert_error_line(done, 4, "red\\x1b[31m\\n")
