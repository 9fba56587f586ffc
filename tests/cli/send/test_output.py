"""`sipc send -o FILE`: all of the answer or the old file, with the rights a redirection gives."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.command import SIPC, Program, environment, needs_root, sipc
from helpers.scripted_server import scripted_server
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import message, packets, read_message

MIB = 1 << 20


@pytest.fixture
def answer(folder):
    """A file with something in it that must not be lost."""
    path = folder / "answer"
    path.write_text("old")
    return path


def is_as_before(answer) -> bool:
    left = [name for name in os.listdir(answer.parent) if ".sipc-" in name]
    return answer.read_text() == "old" and not left


def unprivileged(*groups: int) -> list[str]:
    """Runs a command without root's right to pass over modes and owners."""
    if os.geteuid() != 0:
        return []
    member = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
    lost = "-dac_override,-dac_read_search,-chown,-fowner,-fsetid"
    return ["setpriv", *member, "--bounding-set", lost]


def run(*command, **options) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*map(str, command)], capture_output=True, env=environment(), timeout=60, **options
    )


FAILURES = {
    "cut off": (packets(b"half"), 7),
    "nonsense": (packets(b"half") + b"zzzz", 7),
    "too late": (packets(b"half") + b"0005", 6),
    "not as expected": (message(b"other"), 10),
}


@pytest.mark.parametrize(("wire", "status"), FAILURES.values(), ids=FAILURES)
def test_a_failed_exchange_leaves_the_old_file(endpoint, answer, wire, status):
    def conversation(connection):
        read_message(connection)
        connection.sendall(wire)
        if status == 6:
            connection.recv(1)

    before = answer.stat()
    with scripted_server(endpoint, conversation):
        done = sipc("send", endpoint, "-d", "x", "-o", answer, "-m", "2s", "--expect", "this")
    assert done.returncode == status
    assert (done.stdout, done.stderr.count(b"\n")) == (b"", 1)
    assert is_as_before(answer)
    assert answer.stat().st_ino == before.st_ino


def test_nobody_there_leaves_the_old_file(endpoint, answer):
    assert sipc("send", endpoint, "-d", "x", "-o", answer).returncode == 4
    assert is_as_before(answer)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_the_old_file(endpoint, answer, number):
    with Server(endpoint, "cat; sleep 1000"):
        client = Program([SIPC, "send", endpoint, "-d", "x", "-o", answer])
        wait_until(
            lambda: any(p.stat().st_size for p in answer.parent.glob(".answer.sipc-*")), "a part"
        )
        client.send_signal(number)
        assert client.wait() == 128 + number
    assert is_as_before(answer)


def test_an_answer_that_does_not_fit_leaves_the_old_file(endpoint, answer):
    with Server(endpoint, "head -c 100000 /dev/zero"):
        limit = ["prlimit", "--fsize=50000"]
        done = run(*limit, SIPC, "send", endpoint, "-d", "x", "-o", answer)
    assert done.returncode == 1
    assert b"cannot write to" in done.stderr
    assert is_as_before(answer)


@needs_root
def test_a_full_disk_leaves_the_old_file(endpoint, folder):
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=True)
    try:
        (small / "answer").write_text("old")
        with Server(endpoint, "head -c 3000000 /dev/zero"):
            done = sipc("send", endpoint, "-d", "x", "-o", small / "answer")
        assert done.returncode == 1
        assert b"No space left on device: make room" in done.stderr
        assert is_as_before(small / "answer")
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_file_that_may_not_be_written_to_is_not_replaced(endpoint, answer):
    """A rename could, as the folder may be written to; a redirection could not."""
    answer.chmod(0o444)
    with Server(endpoint, "cat") as server:
        done = run(*unprivileged(), SIPC, "send", endpoint, "-d", "x", "-o", answer)
        assert done.returncode == 1
        assert b"Permission denied" in done.stderr
        assert done.stderr.count(b"\n") == 1
        assert "answered" not in server.log
    assert is_as_before(answer)


def test_a_folder_that_may_not_be_written_to_is_said_before_anything_is_sent(endpoint, folder):
    (folder / "closed").mkdir(0o555)
    with Server(endpoint, "cat") as server:
        output = folder / "closed" / "answer"
        done = run(*unprivileged(), SIPC, "send", endpoint, "-d", "x", "-o", output)
        assert done.returncode == 1
        assert b"Permission denied" in done.stderr
        assert "answered" not in server.log


@needs_root
@pytest.mark.parametrize(
    ("groups", "group", "mode"),
    [((4321,), 4321, 0o666), ((), os.getegid(), 0o606)],
    ids=["a member of its group", "no member of its group"],
)
def test_without_the_right_to_give_a_file_away_as_much_stays_as_may(
    endpoint, answer, groups, group, mode
):
    """What the old group was allowed is not passed on to another."""
    os.chown(answer, 1234, 4321)
    answer.chmod(0o666)
    with Server(endpoint, "cat"):
        done = run(*unprivileged(*groups), SIPC, "send", endpoint, "-d", "x", "-o", answer)
    assert (done.returncode, done.stderr) == (0, b"")
    found = answer.stat()
    assert answer.read_text() == "x"
    assert (found.st_uid, found.st_gid) == (os.geteuid(), group)
    assert stat.S_IMODE(found.st_mode) == mode


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o177])
def test_a_new_file_has_what_the_umask_leaves(endpoint, folder, mask):
    with Server(endpoint, "cat"):
        assert sipc("send", endpoint, "-d", "x", "-o", folder / "new", umask=mask).returncode == 0
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o666 & ~mask


NAMES = {
    "as long as can be": "n" * 255,
    "long, not ASCII": "ü" * 127,
    "not UTF-8": "\udcff\udcfe",
    "like an option": "-o",
    "with a newline": "a\nb",
    "hidden": ".answer",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_any_name_that_a_file_can_have(endpoint, folder, name):
    with Server(endpoint, "cat"):
        for text in ("first", "second"):
            done = sipc("send", endpoint, "-d", text, f"--output={name}", cwd=folder)
            assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(os.listdir(folder)) == [name]
    assert (folder / name).read_text() == "second"


def test_of_many_at_once_one_is_there_in_the_end_and_whole(endpoint, answer):
    payloads = [bytes([letter]) * MIB for letter in b"abcdef"]

    def one(payload: bytes) -> None:
        done = sipc("send", endpoint, "-o", answer, input=payload)
        assert (done.returncode, done.stderr) == (0, b"")

    with Server(endpoint, "cat"):
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(one, payloads))
    assert answer.read_bytes() in payloads
    assert os.listdir(answer.parent) == ["answer"]


def test_the_old_file_can_be_read_until_the_new_one_is_complete(endpoint, answer):
    with Server(endpoint, "cat"):
        command = [SIPC, "send", endpoint, "-o", answer]
        with Program(command, stdin=subprocess.PIPE) as client, open(answer) as old:
            client.stdin.write(b"new")
            client.stdin.flush()
            wait_until(
                lambda: any(p.stat().st_size for p in answer.parent.glob(".answer.sipc-*")),
                "a part of the new one",
            )
            assert answer.read_text() == "old"
            client.stdin.close()
            assert client.wait() == 0
            assert old.read() == "old"
    assert answer.read_text() == "new"
