"""`sipc send --expect` and `--expect-regex`: the response is compared with an expectation."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess

import pytest
from helpers.command import environment, sipc
from helpers.inprocess_cli import run_cli, signals_kept
from helpers.procfs import descriptors, is_on_processor, peak_memory
from helpers.scripted_server import respond_with, scripted_server
from helpers.sending import EchoServer, echo, feed, start_send
from helpers.soak import soak
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import packets, read_message
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.cli.expect import FixedText, regex_match
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import ExpectationFailed, TimedOut

MIB = 1 << 20
DIFFERS = "sipc send: the response is not as expected: "
REMEDY = ": check the server's response, or change the expectation\n"

each_option = pytest.mark.parametrize("option", ["--expect", "--expect-regex"])


def send(server, payload: bytes, *options, **more):
    return run_cli("send", server.path, *options, input=payload, **more)


HOLDS = [
    (b"pong", "pong"),
    (b"pong\n", "pong"),
    (b"pong", "pong\n"),
    (b"pong\n", "pong\n"),
    (b"pong\n\n", "pong\n\n"),
    (b"pong\n", "pong\n\n"),
    (b"", ""),
    (b"\n", ""),
    (b"", "\n"),
    ("pöng".encode(), "pöng"),
    (b"\xff\xfe", os.fsdecode(b"\xff\xfe")),
]


@pytest.mark.parametrize(("answer", "text"), HOLDS, ids=map(repr, HOLDS))
def test_one_newline_at_the_end_of_response_or_text_is_ignored(server, answer, text):
    done = send(server, answer, "--expect", text)
    assert (done.returncode, done.stdout, done.stderr) == (0, answer, b"")


LONG = bytes(range(65, 91)) * 40  # 1040 bytes

DIFFERENT = {
    "another word": (b"pang\0", "pong", r'at byte 1 expected "pong" but got "pang\x00"'),
    "too short": (b"po", "pong", 'at byte 2 expected "pong" but got "po"'),
    "nothing": (b"", "pong", 'at byte 0 expected "pong" but got ""'),
    "too long": (b"pong!", "pong", 'at byte 4 expected "pong" but got "pong!"'),
    "two newlines": (b"pong\n\n", "pong", r'at byte 5 expected "pong" but got "pong\n\n"'),
    "a newline in the middle": (
        b"pong\nx",
        "pong",
        r'at byte 5 expected "pong" but got "pong\nx"',
    ),
    "something for nothing": (b"x", "", 'at byte 0 expected "" but got "x"'),
    "newlines for nothing": (b"\n\n", "", r'at byte 1 expected "" but got "\n\n"'),
    "escapes": (
        b"\x1b[2J\xe2\x80\xae\r\n",
        'a "quoted" text\\',
        r'at byte 0 expected "a \"quoted\" text\\" but got "\x1b[2J\xe2\x80\xae\r\n"',
    ),
    "far behind": (
        LONG[:500] + b"!" + LONG[501:],
        LONG.decode(),
        'at byte 500 expected ..."{0}{1}"... but got ..."{0}!{2}"...'.format(
            LONG[484:500].decode(), LONG[500:532].decode(), LONG[501:532].decode()
        ),
    ),
    "far too long": (
        LONG * 100,
        LONG.decode(),
        'at byte 1040 expected ..."{0}" but got ..."{0}{1}"...'.format(
            LONG[-16:].decode(), LONG[:32].decode()
        ),
    ),
}


@pytest.mark.parametrize(("answer", "text", "difference"), DIFFERENT.values(), ids=DIFFERENT)
def test_one_line_names_the_first_difference_and_the_response_is_still_written(
    server, answer, text, difference
):
    done = send(server, answer, "--expect", text)
    assert done.stderr.decode() == DIFFERS + difference + REMEDY
    assert (done.returncode, done.stdout) == (10, answer)


@given(
    st.binary(max_size=30), st.integers(0, 30), st.binary(max_size=3), st.lists(st.integers(1, 5))
)
def test_the_result_does_not_depend_on_the_packets_of_the_response(text, kept, end, cuts):
    """A comparison of the whole response gives the same result."""
    response = text[:kept] + end
    expected = FixedText(text)
    left = response
    for cut in [*cuts, len(response)]:
        if piece := left[:cut]:
            expected.feed(memoryview(bytearray(piece)))
        left = left[cut:]
    allowed = text.removesuffix(b"\n") + b"\n"
    if response in {allowed, allowed.removesuffix(b"\n")}:
        expected.check(Deadline(None))
        return
    same = max(at for at in range(len(response) + 1) if allowed.startswith(response[:at]))
    with pytest.raises(ExpectationFailed, match=f"at byte {same} expected"):
        expected.check(Deadline(None))


MATCHES = [
    (b"pong", "po.g"),
    (b"say pong now", "pong"),
    (b"a\nb", "(?s)^a.b$"),
    (b"a\nb", "(?m)^b$"),
    (b"PONG", "(?i)pong"),
    (b"", "^$"),
    (b"\0\xff", r"\x00\xff"),
    ("ö".encode(), "ö"),
    (b"\xff", os.fsdecode(b"[\xff]")),
    (b"anything", ""),
]


@pytest.mark.parametrize(("answer", "pattern"), MATCHES, ids=map(repr, MATCHES))
def test_an_expression_is_searched_for_in_the_bytes_of_the_response(server, answer, pattern):
    done = send(server, answer, "--expect-regex", pattern)
    assert (done.returncode, done.stdout, done.stderr) == (0, answer, b"")


MISSES = {
    "another word": (b"pang\n", "po.g", r'no match for "po.g" in its 5 bytes "pang\n"'),
    "a line end is no any": (b"a\nb", "a.b", r'no match for "a.b" in its 3 bytes "a\nb"'),
    "case": (b"PONG", "pong", 'no match for "pong" in its 4 bytes "PONG"'),
    "nothing": (b"", "x", 'no match for "x" in its 0 bytes ""'),
    "escapes": (
        b"\x1b[2J",
        '"\n',
        r'no match for "\"\n" in its 4 bytes "\x1b[2J"',
    ),
    "long": (
        b"x" * 1000,
        "y" * 60,
        f'no match for "{"y" * 48}"... in its 1000 bytes "{"x" * 48}"...',
    ),
}


@pytest.mark.parametrize(("answer", "pattern", "difference"), MISSES.values(), ids=MISSES)
def test_one_line_reports_that_the_expression_does_not_match(server, answer, pattern, difference):
    done = send(server, answer, "--expect-regex", pattern)
    assert done.stderr.decode() == DIFFERS + difference + REMEDY
    assert (done.returncode, done.stdout) == (10, answer)


@pytest.mark.parametrize("pattern", ["[[a", "(", "*", "(?P<a>x)(?P<a>y)", "(?s\x1b)", "(" * 9999])
def test_a_malformed_expression_is_a_usage_error_before_anything_is_sent(endpoint, pattern):
    with EchoServer(endpoint) as server:
        done = run_cli("send", endpoint, "-d", "x", "--expect-regex", pattern)
    assert done.returncode == 2
    assert b"--expect-regex" in done.stderr
    assert b"is not a regular expression" in done.stderr
    assert b"\x1b" not in done.stderr
    assert b"Traceback" not in done.stderr
    assert not server.accepted


def test_an_unusual_expression_is_accepted_without_a_warning_of_python(server):
    done = send(server, b"[x", "--expect-regex", "[[x]")
    assert (done.returncode, done.stderr) == (0, b"")


def test_two_expectations_are_a_usage_error(endpoint):
    done = run_cli("send", endpoint, "-d", "x", "--expect", "x", "--expect-regex", "x")
    assert done.returncode == 2
    assert b"cannot be combined" in done.stderr


@each_option
def test_the_output_file_is_replaced_only_by_an_expected_response(server, folder, option):
    output = folder / "response"
    output.write_text("old")
    done = send(server, b"new", option, "other", "-o", output)
    assert done.returncode == 10
    assert output.read_text() == "old"
    assert send(server, b"new", option, "new", "-o", output).returncode == 0
    assert output.read_text() == "new"
    assert os.listdir(folder) == ["response"]


@each_option
def test_a_truncated_response_is_a_protocol_error_with_any_expectation(endpoint, option):
    with scripted_server(endpoint, respond_with(packets(b"pong"))):
        done = run_cli("send", endpoint, "-d", "x", option, "pong")
    assert (done.returncode, done.stdout) == (7, b"pong")
    assert done.stderr.count(b"\n") == 1


@each_option
def test_the_response_is_written_before_it_is_complete(endpoint, option):
    with scripted_server(endpoint, echo), start_send(endpoint, option, "hello") as client:
        feed(client, b"hel")
        assert client.stdout.read(3) == b"hel"
        feed(client, b"lo")
        client.stdin.close()
        assert client.stdout.read() == b"lo"
        assert client.wait() == 0


def zeros(size: int, end: bytes):
    """Run a server whose responses have this length and are complete."""

    def conversation(connection):
        read_message(connection)
        piece = packets(bytes(1_000_000))
        for _ in range(size // 1_000_000):
            connection.sendall(piece)
        connection.sendall(packets(end) + b"0000")

    return conversation


@pytest.mark.parametrize("size", [150_000_000, soak(10**9)])
def test_a_large_response_that_is_compared_with_a_text_is_not_held_in_memory(endpoint, size):
    with scripted_server(endpoint, zeros(size, b"")):
        options = ["-d", "", "--expect", "pong"]
        with start_send(endpoint, *options, stderr=subprocess.PIPE) as client:
            received = 0
            while piece := client.stdout.read(MIB):
                received += len(piece)
                if received < size - 20 * MIB:  # after that the client may have ended
                    peak = peak_memory(client.pid)
            assert (received, client.wait()) == (size, 10)
            assert b'at byte 0 expected "pong" but got "\\x00' in client.stderr.read()
    assert peak < 64 * MIB


@pytest.mark.parametrize(("pattern", "status"), [("x$", 0), ("y", 10)])
@pytest.mark.parametrize("size", [100_000_000, soak(300_000_000)])
def test_a_large_response_that_is_searched_is_not_held_in_memory(
    endpoint, folder, pattern, status, size
):
    """Only private memory is limited: the system can reclaim the pages of the file."""
    with scripted_server(endpoint, zeros(size, b"x\n")):
        with start_send(
            *(endpoint, "-d", "", "--expect-regex", pattern),
            wrapper=["prlimit", f"--data={64 * MIB}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(TMPDIR=str(folder)),
        ) as client:
            errors = client.stderr.read()
            assert client.wait() == status, errors
    if status:
        assert f"in its {size + 2} bytes".encode() in errors


def test_send_stores_a_response_for_its_search_in_an_unnamed_file_in_tmpdir(endpoint, folder):
    spool = folder / "spool"
    spool.mkdir()
    env = environment(TMPDIR=str(spool))
    with (
        scripted_server(endpoint, echo),
        start_send(endpoint, "--expect-regex", "hello", env=env) as client,
    ):
        feed(client, b"hello")
        assert client.stdout.read(5) == b"hello"
        opened = descriptors(client.pid)
        assert any(name.startswith(f"{spool}/") and name.endswith("(deleted)") for name in opened)
        assert os.listdir(spool) == []
        client.stdin.close()
        assert client.wait() == 0


def test_a_response_is_stored_in_another_folder_if_tmpdir_does_not_exist(server, folder):
    env = environment(TMPDIR=str(folder / "missing"))
    done = send(server, b"x", "--expect-regex", "x", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x", b"")


def test_send_reports_that_it_cannot_store_a_response_for_its_search(server, folder):
    limited = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))}
    env = environment(TMPDIR=str(folder))
    done = sipc("send", server.path, "-d", "x", "--expect-regex", "x", env=env, **limited)
    assert done.returncode == 1
    assert re.fullmatch(rb"sipc send: [^\n]+%b[^\n]+TMPDIR[^\n]+\n" % bytes(folder), done.stderr)
    assert sipc("send", server.path, "-d", "x", "--expect", "x", **limited).returncode == 0


HARD = ("a" * 60 + "b", "(a|a)*$c")  # takes 2 to the power of 60 steps


def test_the_deadline_ends_an_endless_search_of_the_response():
    expected = regex_match(HARD[1])
    expected.feed(memoryview(HARD[0].encode()))
    with signals_kept(), pytest.raises(TimedOut, match="not finished in time"):
        expected.check(Deadline(0.01))
    expected.close()


def test_max_time_ends_an_endless_search_of_the_response(endpoint):
    with EchoServer(endpoint):
        options = ["-d", HARD[0], "-m", "300ms", "--expect-regex", HARD[1]]
        with start_send(endpoint, *options, stderr=subprocess.PIPE) as client:
            assert client.wait() == 6
            assert b"in time" in client.stderr.read()


def test_a_signal_ends_an_endless_search_of_the_response(endpoint):
    with EchoServer(endpoint):
        options = ["-d", HARD[0], "--expect-regex", HARD[1]]
        with start_send(endpoint, *options, stderr=subprocess.PIPE) as client:
            assert client.stdout.read(61) == HARD[0].encode()
            wait_until(lambda: is_on_processor(client.pid), "it to search")
            client.send_signal(signal.SIGTERM)
            assert client.wait(TIMEOUT) == 143
            assert client.stderr.read() == b""
