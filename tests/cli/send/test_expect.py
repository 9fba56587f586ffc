"""`sipc send --expect` and `--expect-regex`: the answer is held against what it should be."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest
from helpers.command import SIPC, Program, environment, sipc
from helpers.procfs import peak_memory
from helpers.scripted_server import served_by
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import packets, read_message
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.cli.expect import FixedText
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import ExpectationFailed

MIB = 1 << 20
DIFFERS = "sipc send: the answer is not as expected: "
REMEDY = ": check the server's response, or change what is expected\n"


@pytest.fixture
def echo(endpoint):
    with Server(endpoint, "cat") as server:
        yield server


def asked(endpoint, answer: bytes, *options, **more):
    return sipc("send", endpoint, *options, input=answer, **more)


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
def test_it_holds_with_one_newline_ignored_at_either_end(echo, endpoint, answer, text):
    done = asked(endpoint, answer, "--expect", text)
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


@pytest.mark.parametrize(("answer", "text", "told"), DIFFERENT.values(), ids=DIFFERENT)
def test_it_says_in_a_line_where_an_answer_differs_and_passes_it_on(
    echo, endpoint, answer, text, told
):
    done = asked(endpoint, answer, "--expect", text)
    assert done.stderr.decode() == DIFFERS + told + REMEDY
    assert (done.returncode, done.stdout) == (10, answer)


@given(st.binary(max_size=30), st.binary(max_size=30), st.lists(st.integers(1, 5)), st.booleans())
def test_slices_make_no_difference(text, answer, cuts, equal):
    """Held against the plain definition of the whole."""
    if equal:
        answer = text + answer[:2]
    expected = FixedText(text)
    rest = answer
    for cut in cuts:
        if piece := rest[:cut]:
            expected.feed(memoryview(bytearray(piece)))
        rest = rest[cut:]
    if rest:
        expected.feed(memoryview(rest))
    holds = answer.removesuffix(b"\n") == text.removesuffix(b"\n")
    if holds:
        expected.check(Deadline(None))
        return
    with pytest.raises(ExpectationFailed) as raised:
        expected.check(Deadline(None))
    at = int(re.search(r"at byte (\d+) ", str(raised.value))[1])
    assert answer[:at] == (text.removesuffix(b"\n") + b"\n")[:at]


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
def test_an_expression_is_searched_in_the_bytes(echo, endpoint, answer, pattern):
    done = asked(endpoint, answer, "--expect-regex", pattern)
    assert (done.returncode, done.stdout, done.stderr) == (0, answer, b"")


MISSES = {
    "another word": (b"pang\n", "po.g", r'nothing matches "po.g" in its 5 bytes "pang\n"'),
    "a line end is no any": (b"a\nb", "a.b", r'nothing matches "a.b" in its 3 bytes "a\nb"'),
    "case": (b"PONG", "pong", 'nothing matches "pong" in its 4 bytes "PONG"'),
    "nothing": (b"", "x", 'nothing matches "x" in its 0 bytes ""'),
    "escapes": (
        b"\x1b[2J",
        '"\n',
        r'nothing matches "\"\n" in its 4 bytes "\x1b[2J"',
    ),
    "long": (
        b"x" * 1000,
        "y" * 60,
        f'nothing matches "{"y" * 48}"... in its 1000 bytes "{"x" * 48}"...',
    ),
}


@pytest.mark.parametrize(("answer", "pattern", "told"), MISSES.values(), ids=MISSES)
def test_it_says_in_a_line_that_nothing_matches(echo, endpoint, answer, pattern, told):
    done = asked(endpoint, answer, "--expect-regex", pattern)
    assert done.stderr.decode() == DIFFERS + told + REMEDY
    assert (done.returncode, done.stdout) == (10, answer)


@pytest.mark.parametrize("pattern", ["[[a", "(", "*", "(?P<a>x)(?P<a>y)", "(?s\x1b)", "(" * 9999])
def test_no_expression_is_a_usage_error_before_anything_is_sent(echo, endpoint, pattern):
    done = sipc("send", endpoint, "-d", "x", "--expect-regex", pattern)
    assert done.returncode == 2
    assert b"--expect-regex" in done.stderr
    assert b"is no regular expression" in done.stderr
    assert b"\x1b" not in done.stderr
    assert b"Traceback" not in done.stderr
    assert "answered" not in echo.log


def test_an_odd_expression_is_taken_without_a_word(echo, endpoint):
    """Python would print a warning."""
    done = sipc("send", endpoint, "-d", "[x", "--expect-regex", "[[x]")
    assert (done.returncode, done.stderr) == (0, b"")


def test_two_expectations_are_a_usage_error(endpoint):
    done = sipc("send", endpoint, "-d", "x", "--expect", "x", "--expect-regex", "x")
    assert done.returncode == 2
    assert b"not both" in done.stderr


@pytest.mark.parametrize("option", ["--expect", "--expect-regex"])
def test_the_file_of_output_is_replaced_only_if_it_holds(echo, endpoint, folder, option):
    output = folder / "answer"
    output.write_text("old")
    done = asked(endpoint, b"new", option, "other", "-o", output)
    assert done.returncode == 10
    assert output.read_text() == "old"
    assert asked(endpoint, b"new", option, "new", "-o", output).returncode == 0
    assert output.read_text() == "new"
    assert sorted(os.listdir(folder)) == ["answer", "sock"]


@pytest.mark.parametrize("option", ["--expect", "--expect-regex"])
def test_half_an_answer_is_cut_off_whatever_was_expected(endpoint, option):
    def conversation(connection):
        read_message(connection)
        connection.sendall(packets(b"pong"))

    with served_by(endpoint, conversation):
        done = sipc("send", endpoint, "-d", "x", option, "pong")
    assert (done.returncode, done.stdout) == (7, b"pong")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("option", ["--expect", "--expect-regex"])
def test_the_answer_is_passed_on_before_it_is_complete(endpoint, option):
    with Server(endpoint, "cat"):
        command = [SIPC, "send", endpoint, option, "hello"]
        with Program(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            client.stdin.write(b"hel")
            client.stdin.flush()
            assert client.stdout.read(3) == b"hel"
            client.stdin.write(b"lo")
            client.stdin.close()
            assert client.stdout.read() == b"lo"
            assert client.wait() == 0


def test_a_gigabyte_against_a_text_stays_out_of_memory(endpoint):
    size = 1 << 30
    with Server(endpoint, f"head -c {size} /dev/zero"):
        client = Program(
            [SIPC, "send", endpoint, "-d", "", "--expect", "pong"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        received = 0
        while piece := client.stdout.read(MIB):
            received += len(piece)
            if received < size - 50 * MIB:  # later it may have ended
                peak = peak_memory(client.pid)
        assert (received, client.wait()) == (size, 10)
        assert b'at byte 0 expected "pong" but got "\\x00' in client.stderr.read()
        client.stdout.close()
        client.stderr.close()
    assert peak < 64 * MIB


@pytest.mark.parametrize(("pattern", "status"), [("x$", 0), ("y", 10)])
def test_a_large_answer_against_an_expression_stays_out_of_memory(
    endpoint, folder, pattern, status
):
    """Memory of its own is limited; the pages of the file are the system's to take back."""
    size = 300 * MIB
    with Server(endpoint, f"head -c {size} /dev/zero; echo x"):
        command = ["prlimit", f"--data={100 * MIB}", SIPC, "send", endpoint, "-d", ""]
        done = subprocess.run(
            [*command, "--expect-regex", pattern],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(TMPDIR=str(folder)),
        )
    assert done.returncode == status, done.stderr
    if status:
        assert f"in its {size + 2} bytes".encode() in done.stderr


def test_what_waits_to_be_searched_has_no_name_and_is_where_it_is_said(endpoint, folder):
    spool = folder / "spool"
    spool.mkdir()
    with Server(endpoint, "cat"):
        client = Program(
            [SIPC, "send", endpoint, "--expect-regex", "hello"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(TMPDIR=str(spool)),
        )
        client.stdin.write(b"hello")
        client.stdin.flush()
        assert client.stdout.read(5) == b"hello"
        links = [
            os.readlink(f"/proc/{client.pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{client.pid}/fd")
        ]
        assert any(link.startswith(f"{spool}/") and link.endswith("(deleted)") for link in links)
        assert os.listdir(spool) == []
        client.stdin.close()
        assert client.wait() == 0
        client.stdout.close()


def test_no_room_for_what_is_to_be_searched_is_said(endpoint, folder):
    with Server(endpoint, "cat"):
        env = environment(TMPDIR=str(folder / "missing"))
        done = sipc("send", endpoint, "-d", "x", "--expect-regex", "x", env=env)
        assert done.returncode == 1
        assert re.fullmatch(rb"sipc send: [^\n]+missing[^\n]+TMPDIR[^\n]+\n", done.stderr)
        assert sipc("send", endpoint, "-d", "x", "--expect", "x", env=env).returncode == 0


HARD = ("a" * 60 + "b", "(a|a)*$c")  # takes 2 to the power of 60 steps


def test_the_time_limit_holds_against_an_expression_that_takes_for_ever(echo, endpoint):
    done = asked(endpoint, HARD[0].encode(), "-m", "1s", "--expect-regex", HARD[1], timeout=60)
    assert done.returncode == 6
    assert b"not searched in time" in done.stderr


def test_a_signal_ends_an_expression_that_takes_for_ever(echo, endpoint):
    client = Program(
        [SIPC, "send", endpoint, "-d", HARD[0], "--expect-regex", HARD[1]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert client.stdout.read(61) == HARD[0].encode()
    echo.wait_for_log("answered")
    wait_until(lambda: not_waiting(client.pid), "it to search")
    client.send_signal(signal.SIGTERM)
    assert client.wait(30) == 143
    assert client.stderr.read() == b""
    client.stdout.close()
    client.stderr.close()


def not_waiting(pid: int) -> bool:
    with open(f"/proc/{pid}/syscall") as file:
        return file.read().startswith("running")
