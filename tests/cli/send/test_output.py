"""`sipc send -o FILE`: the whole response or the old file, with the mode of a redirection."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.command import SIPC, assert_error_line, environment, needs_root, sipc
from helpers.inprocess_cli import run_cli
from helpers.mounts import small_disk
from helpers.scripted_server import scripted_server, wait_for_close
from helpers.sending import EchoServer, echo, feed, is_partly_written, start_send, umask
from helpers.soak import soak
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message, packets, read_message

MIB = 1 << 20


@pytest.fixture
def response(folder):
    """A file whose content must not be lost."""
    path = folder / "response"
    path.write_text("old")
    return path


def is_as_before(response) -> bool:
    left = [name for name in os.listdir(response.parent) if ".sipc-" in name]
    return response.read_text() == "old" and not left


def unprivileged(*groups: int) -> list[str]:
    """Runs a command without root's right to ignore modes and owners."""
    if os.geteuid() != 0:
        return []
    member = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
    lost = "-dac_override,-dac_read_search,-chown,-fowner,-fsetid"
    return ["setpriv", *member, "--bounding-set", lost]


def run(*command, **options) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*map(str, command)], capture_output=True, env=environment(), **options)


# -- the old file stays ----------------------------------------------------------------


FAILURES = {
    "cut off": (packets(b"half"), 7),
    "malformed": (packets(b"half") + b"zzzz", 7),
    "too late": (packets(b"half") + b"0005", 6),
    "not as expected": (message(b"other"), 10),
}


@pytest.mark.parametrize(("wire", "status"), FAILURES.values(), ids=FAILURES)
def test_a_failed_exchange_leaves_the_old_file(endpoint, response, max_time, wire, status):
    sent = threading.Event()

    def conversation(connection):
        read_message(connection)
        connection.sendall(wire)
        sent.set()
        if status == 6:
            wait_for_close(connection)

    before = response.stat()
    limit = ["-m", "1h"] if status == 6 else []
    max_time.is_over = sent.is_set
    with scripted_server(endpoint, conversation):
        done = run_cli("send", endpoint, "-d", "x", "-o", response, *limit, "--expect", "this")
    assert done.returncode == status
    assert (done.stdout, done.stderr.count(b"\n")) == (b"", 1)
    assert is_as_before(response)
    assert response.stat().st_ino == before.st_ino


def test_a_missing_server_leaves_the_old_file(endpoint, response):
    assert run_cli("send", endpoint, "-d", "x", "-o", response).returncode == 4
    assert is_as_before(response)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_the_old_file(endpoint, response, number):
    with (
        scripted_server(endpoint, echo),
        start_send(endpoint, "-o", response, stderr=subprocess.PIPE) as client,
    ):
        feed(client, b"x")
        wait_until(lambda: is_partly_written(response.parent), "a part")
        client.send_signal(number)
        assert client.wait() == 128 + number
        assert client.stderr.read() == b""
    assert is_as_before(response)


@pytest.mark.parametrize("rounds", [1, soak(5)])
def test_many_signals_end_send_without_a_file_or_a_traceback(endpoint, folder, rounds):
    with scripted_server(endpoint, echo):
        for _ in range(rounds):
            client = start_send(endpoint, "-o", folder / "response", stderr=subprocess.PIPE)
            with client:
                feed(client, b"x")
                wait_until(lambda: is_partly_written(folder), "a part")
                while client.poll() is None:
                    client.send_signal(signal.SIGTERM)
                assert client.stderr.read() == b""
                assert client.returncode == 143
            assert os.listdir(folder) == ["sock"]


def test_a_response_that_does_not_fit_leaves_the_old_file(server, response):
    limit = ["prlimit", "--fsize=50000"]
    done = run(*limit, SIPC, "send", server.path, "-o", response, input=bytes(100_000))
    assert done.returncode == 1
    assert b"cannot write to" in done.stderr
    assert is_as_before(response)


@needs_root
def test_a_full_disk_leaves_the_old_file(server, folder):
    with small_disk(folder / "small") as small:
        (small / "response").write_text("old")
        done = sipc("send", server.path, "-o", small / "response", input=bytes(3_000_000))
        assert done.returncode == 1
        assert b"No space left on device: free space" in done.stderr
        assert is_as_before(small / "response")


def test_a_file_that_may_not_be_written_to_is_not_replaced(endpoint, response):
    """A rename could replace it, as the folder is writable; a redirection could not."""
    response.chmod(0o444)
    with EchoServer(endpoint) as server:
        done = run(*unprivileged(), SIPC, "send", endpoint, "-d", "x", "-o", response)
    assert not server.accepted
    assert_error_line(done, 1, "Permission denied")
    assert is_as_before(response)


def test_a_folder_that_may_not_be_written_to_is_reported_before_anything_is_sent(endpoint, folder):
    (folder / "closed").mkdir(0o555)
    with EchoServer(endpoint) as server:
        output = folder / "closed" / "response"
        done = run(*unprivileged(), SIPC, "send", endpoint, "-d", "x", "-o", output)
    assert not server.accepted
    assert_error_line(done, 1, "Permission denied")


def test_an_output_file_that_cannot_be_created_is_reported_before_anything_is_sent(
    endpoint, folder
):
    with EchoServer(endpoint) as server:
        done = run_cli("send", endpoint, "-d", "x", "-o", folder / "no" / "file")
        assert_error_line(done, 1, "no/file")
        assert_error_line(run_cli("send", endpoint, "-d", "x", "-o", folder), 1, str(folder))
    assert not server.accepted


@pytest.mark.parametrize("limit", [[], ["-m", "1h"]], ids=["without -m", "with -m"])
@pytest.mark.parametrize("name", ["sock", "/dev/fd/77", f"/dev/fd/{'9' * 20}"])
def test_an_output_file_that_cannot_be_opened_is_refused_at_once(endpoint, folder, name, limit):
    with EchoServer(endpoint) as server:
        done = run_cli("send", endpoint, "-d", "x", *limit, "-o", name, cwd=folder)
        assert_error_line(done, 1, name)
    assert not server.accepted


@pytest.mark.parametrize("name", ["", "new/", "plain/", "loop"])
def test_an_invalid_name_for_the_output_is_refused_before_anything_is_sent(endpoint, folder, name):
    (folder / "plain").write_text("precious")
    (folder / "loop").symlink_to("loop")
    with EchoServer(endpoint) as server:
        assert_error_line(run_cli("send", endpoint, "-d", "x", "-o", name, cwd=folder), 1)
    assert not server.accepted
    assert sorted(os.listdir(folder)) == ["loop", "plain", "sock"]
    assert (folder / "plain").read_text() == "precious"


def test_standard_output_on_a_full_disk_is_an_error(server):
    with open("/dev/full", "wb") as full:
        command = [SIPC, "send", server.path, "-d", "x"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE)
    assert_error_line(done, 1, "No space left")


# -- the new file ----------------------------------------------------------------------


def test_the_output_file_appears_when_the_response_is_complete(endpoint, folder):
    go = threading.Event()

    def conversation(connection):
        read_message(connection)
        connection.sendall(packets(b"first"))
        assert go.wait(TIMEOUT)
        connection.sendall(message(b"second"))

    with (
        scripted_server(endpoint, conversation),
        start_send(endpoint, "-d", "x", "-o", folder / "response") as client,
    ):
        wait_until(lambda: is_partly_written(folder), "the first part")
        assert not (folder / "response").exists()
        go.set()
        assert client.wait() == 0
    assert (folder / "response").read_bytes() == b"firstsecond"
    assert sorted(os.listdir(folder)) == ["response", "sock"]


def test_the_old_file_can_be_read_until_the_new_one_is_complete(endpoint, response):
    with (
        scripted_server(endpoint, echo),
        start_send(endpoint, "-o", response) as client,
        open(response) as old,
    ):
        feed(client, b"new")
        wait_until(lambda: is_partly_written(response.parent), "a part of the new one")
        assert response.read_text() == "old"
        client.stdin.close()
        assert client.wait() == 0
        assert old.read() == "old"
    assert response.read_text() == "new"


def test_the_output_file_of_many_clients_holds_one_whole_response(server, response):
    payloads = [bytes([letter]) * MIB for letter in b"abcdef"]

    def one(payload: bytes) -> None:
        done = sipc("send", server.path, "-o", response, input=payload)
        assert (done.returncode, done.stderr) == (0, b"")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, payloads))
    assert response.read_bytes() in payloads
    assert os.listdir(response.parent) == ["response"]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o177])
def test_a_new_file_has_the_mode_that_the_umask_leaves(server, folder, mask):
    with umask(mask):
        done = run_cli("send", server.path, "-d", "x", "-o", folder / "new")
    assert done.returncode == 0
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o666 & ~mask


def test_an_old_file_keeps_its_mode_and_a_link_stays_a_link(server, folder):
    (folder / "old").write_text("old")
    (folder / "old").chmod(0o604)
    (folder / "real").write_text("old")
    (folder / "link").symlink_to("real")
    for name in ("old", "link"):
        with umask(0o027):
            done = run_cli("send", server.path, "-d", "x", "-o", folder / name)
        assert done.returncode == 0
        assert (folder / name).read_text() == "x"
    assert stat.S_IMODE((folder / "old").stat().st_mode) == 0o604
    assert (folder / "link").is_symlink()
    assert (folder / "real").read_text() == "x"


@needs_root
def test_an_old_file_keeps_its_owner_but_no_set_uid_bit(server, response):
    os.chown(response, 1234, 1234)
    response.chmod(0o4751)
    assert run_cli("send", server.path, "-d", "x", "-o", response).returncode == 0
    found = response.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 1234, 0o751)


@needs_root
@pytest.mark.parametrize(
    ("groups", "group", "mode"),
    [((4321,), 4321, 0o666), ((), os.getegid(), 0o606)],
    ids=["a member of its group", "no member of its group"],
)
def test_without_permission_to_change_the_owner_a_new_file_grants_no_right_to_another_group(
    endpoint, response, groups, group, mode
):
    """The permissions of the old group are not given to another group."""
    os.chown(response, 1234, 4321)
    response.chmod(0o666)
    with EchoServer(endpoint):
        done = run(*unprivileged(*groups), SIPC, "send", endpoint, "-d", "x", "-o", response)
    assert (done.returncode, done.stderr) == (0, b"")
    found = response.stat()
    assert response.read_text() == "x"
    assert (found.st_uid, found.st_gid) == (os.geteuid(), group)
    assert stat.S_IMODE(found.st_mode) == mode


def mount_point(response) -> list[str]:
    mount = 'mount --bind "$0" "$0" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, str(response)]


def file_of_another_user_in_a_sticky_folder(response) -> list[str]:
    response.chmod(0o666)
    os.chown(response, 1234, -1)
    os.chown(response.parent, 1234, -1)
    response.parent.chmod(0o1777)
    return unprivileged()


def file_in_a_folder_that_cannot_be_written_to(response) -> list[str]:
    response.parent.chmod(0o555)
    return unprivileged()


NOT_REPLACEABLE = [
    mount_point,
    file_of_another_user_in_a_sticky_folder,
    file_in_a_folder_that_cannot_be_written_to,
]
each_not_replaceable = pytest.mark.parametrize("protect", NOT_REPLACEABLE)


@needs_root
@each_not_replaceable
@pytest.mark.parametrize("lines", [[], ["--lines"]], ids=["one request", "--lines"])
def test_a_file_that_cannot_be_replaced_is_overwritten(endpoint, response, protect, lines):
    inode = response.stat().st_ino
    spool = response.parent / "spool"
    spool.mkdir()
    with EchoServer(endpoint):
        command = [
            *protect(response),
            "env",
            f"TMPDIR={spool}",
            SIPC,
            "send",
            endpoint,
            *lines,
            "-o",
            response,
        ]
        done = run(*command, input=b"x\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert response.read_text() == "x\n"
    assert response.stat().st_ino == inode
    assert sorted(os.listdir(response.parent)) == ["response", "sock", "spool"]
    assert not os.listdir(spool)


@needs_root
@each_not_replaceable
def test_a_failed_exchange_leaves_a_file_that_cannot_be_replaced(endpoint, response, protect):
    with EchoServer(endpoint):
        command = [
            *protect(response),
            SIPC,
            "send",
            endpoint,
            "-d",
            "x",
            "--expect",
            "y",
            "-o",
            response,
        ]
        assert_error_line(run(*command), 10)
    assert is_as_before(response)


@pytest.mark.parametrize("result", ["0", "-1 EINVAL"], ids=["that can", "that cannot"])
def test_the_output_file_is_synced_to_disk_before_it_is_renamed(server, folder, result):
    """A file system that does not support fsync() causes no error."""
    log = folder / "log"
    fault = [] if result == "0" else ["-e", "inject=fsync:error=EINVAL"]
    calls = ["strace", "-f", "-o", log, "-e", "trace=fsync,rename,renameat", *fault]
    done = run(*calls, SIPC, "send", server.path, "-d", "x", "-o", folder / "response")
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(rf"\d+ +fsync\(\d+\) += {result}.*\n\d+ +rename.*\n.*\n", log.read_text())
    assert (folder / "response").read_text() == "x"


NAMES = {
    "as long as can be": "n" * 255,
    "long, not ASCII": "ü" * 127,
    "not UTF-8": "\udcff\udcfe",
    "like an option": "-o",
    "with a newline": "a\nb",
    "hidden": ".response",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_the_output_file_may_have_any_valid_file_name(server, folder, name):
    for text in ("first", "second"):
        done = run_cli("send", server.path, "-d", text, f"--output={name}", cwd=folder)
        assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(os.listdir(folder)) == [name]
    assert (folder / name).read_text() == "second"


# -- no file ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "-"])
def test_a_device_is_written_to_and_not_replaced(server, name):
    before = os.stat("/dev/null").st_ino
    done = sipc("send", server.path, "-d", "x", "-o", name)
    assert (done.returncode, done.stdout) == (0, b"" if name == "/dev/null" else b"x")
    assert os.stat("/dev/null").st_ino == before


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_the_response_is_appended_to_the_file_of_an_open_descriptor(server, folder, name):
    command = f"{{ echo one; {SIPC} send {server.path} -d 'two\n' -o {name}; echo three; }} >out"
    assert subprocess.run(["sh", "-c", command], cwd=folder).returncode == 0
    assert (folder / "out").read_text() == "one\ntwo\nthree\n"
