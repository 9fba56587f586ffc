"""`sipc serve`: clients that go away, say nothing, or talk nonsense."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
from contextlib import ExitStack

import pytest
from helpers.command import SIPC, Program, needs_root, sipc
from helpers.procfs import children, descriptors, is_in_syscall, peak_memory, stop_process
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, message, open_connections, packets, receive_all

MIB = 1 << 20


def eof_witness(folder) -> str:
    """A handler that leaves a file when its input ends, and says when it has begun."""
    return f"touch {folder}/begun; cat >/dev/null; touch {folder}/eof; echo done"


@pytest.mark.parametrize("options", [(), ("--whole-request",)], ids=["streaming", "whole"])
@pytest.mark.parametrize("payload", [b"hello", bytes(10 * MIB)], ids=["short", "long"])
def test_a_handler_never_sees_the_end_of_a_request_whose_client_died(
    endpoint, folder, options, payload
):
    code = "import socket,sys,time;s=socket.socket(1);s.connect(sys.argv[1]);"
    code += "s.sendall(sys.stdin.buffer.read());print(flush=True);time.sleep(1000)"
    with Server(endpoint, eof_witness(folder), *options) as server:
        client = Program(
            [sys.executable, "-c", code, endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        client.stdin.write(packets(payload))
        client.stdin.close()
        client.stdout.readline()
        if not options:
            wait_until((folder / "begun").exists, "the handler to begin")
        client.kill()
        client.wait()
        client.stdout.close()
        server.wait_for_log("request cut off")
        server.wait_until_idle()
        assert (folder / "begun").exists() == (not options)
        assert not (folder / "eof").exists()


def test_a_handler_that_ignores_sigterm_sees_no_end_either(endpoint, folder):
    command = f"trap '' TERM; {eof_witness(folder)}"
    with Server(endpoint, command, "--kill-after", "100ms") as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"hello"))
            wait_until((folder / "begun").exists, "the handler to begin")
        server.wait_for_log("request cut off")
        server.wait_until_idle()
        assert not (folder / "eof").exists()


def test_a_half_close_before_the_flush_is_a_cut_off_request(endpoint, folder):
    with Server(endpoint, eof_witness(folder)) as server, connect(endpoint) as client:
        client.sendall(packets(b"hello"))
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
        server.wait_for_log("request cut off")
        assert not (folder / "eof").exists()


def test_something_left_behind_by_a_handler_does_not_take_half_a_request_for_whole(
    endpoint, folder
):
    """Its leader has exited, its output is closed, and it still reads."""
    command = f"exec 3<&0; (trap '' TERM; cat <&3; touch {folder}/eof) >/dev/null & exec >&-"
    with Server(endpoint, command, "--kill-after", "50ms") as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"hello"))
            assert client.recv(100) == b"0000"
        server.wait_until_idle()
        assert not (folder / "eof").exists()


@pytest.mark.parametrize("how", ["kill", "finish"])
def test_a_client_killed_in_mid_response(endpoint, folder, how):
    command = f"cat; trap 'touch {folder}/term; exit 1' TERM; echo more; "
    command += f"while ! test -e {folder}/go; do :; done; touch {folder}/finished"
    with Server(endpoint, command, "--on-hangup", how) as server:
        client = Program([SIPC, "send", endpoint, "-d", "hello\n"], stdout=subprocess.PIPE)
        assert client.stdout.readline() == b"hello\n"
        assert client.stdout.readline() == b"more\n"
        client.kill()
        client.wait()
        client.stdout.close()
        if how == "kill":
            server.wait_for_log("client hung up")
        else:
            assert len(children(server.pid)) == 1
            (folder / "go").touch()
            server.wait_for_log("client hung up.*allowed to finish")
        server.wait_until_idle()
        assert (folder / "term").exists() == (how == "kill")
        assert (folder / "finished").exists() == (how == "finish")


def test_a_handler_may_finish_although_nobody_takes_its_megabytes(endpoint, folder):
    command = f"cat; head -c 50000000 /dev/zero; touch {folder}/finished"
    with Server(endpoint, command, "--on-hangup", "finish") as server:
        with connect(endpoint) as client:
            client.sendall(message(b"hello"))
            assert client.recv(9)[4:] == b"hello"  # its packet may hold more
        server.wait_for_log("client hung up")
        assert (folder / "finished").exists()


def test_finishing_is_for_complete_requests_only(endpoint, folder):
    with Server(endpoint, eof_witness(folder), "--on-hangup", "finish") as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"hello"))
            wait_until((folder / "begun").exists, "the handler to begin")
        server.wait_for_log("request cut off")
        server.wait_until_idle()
        assert not (folder / "eof").exists()


@pytest.mark.parametrize("how", ["kill", "finish"])
def test_a_client_that_has_gone_before_its_turn_gets_no_handler(endpoint, folder, how):
    command = f"echo x >>{folder}/runs; until test -e {folder}/go; do :; done; cat"
    with Server(endpoint, command, "--threads", 1, "--on-hangup", how) as server:
        with connect(endpoint) as first:
            first.sendall(message(b"first"))
            wait_until((folder / "runs").exists, "the first handler")
            with connect(endpoint) as gone:
                gone.sendall(message(b"second"))
            (folder / "go").touch()
            assert decode(receive_all(first)) == (b"first", True)
        server.wait_for_log("client hung up|request cut off")
        assert (folder / "runs").read_text() == "x\n"


def test_a_client_that_takes_the_answer_and_leaves_its_request_unfinished_was_answered(endpoint):
    with Server(endpoint, "echo done") as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"hello"))
            answer = b""
            while not answer.endswith(b"0000"):
                answer += client.recv(100)
            assert answer == message(b"done\n")
        server.wait_for_log("in=5 out=5 status=0 .*: answered")


NONSENSE = {
    "text": b"GET / HTTP/1.0\r\n\r\n",
    "truncated header": b"00",
    "truncated payload": b"0009hel",
    "bad hex": b"00g5x",
    "plus sign": b"+00fhello-hello",
    "delim": b"0001",
    "response end": b"0002",
    "length 3": b"0003",
    "over-long": b"fff1" + bytes(65517),
    "ffff": b"ffff" + bytes(70000),
    "behind a packet": packets(b"hello") + b"zzzz",
}


@pytest.mark.parametrize("wire", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused_and_the_server_goes_on(endpoint, folder, wire):
    with Server(endpoint, eof_witness(folder)) as server:
        with connect(endpoint) as client:
            try:
                client.sendall(wire)
                if wire in (NONSENSE["truncated header"], NONSENSE["truncated payload"]):
                    client.shutdown(socket.SHUT_WR)
            except BrokenPipeError:
                pass  # it was refused before it was all written
            assert receive_all(client) == b""
        server.wait_for_log("malformed request: .*expected 0000|request cut off: ")
        server.wait_until_idle()
        assert not (folder / "eof").exists()
        assert ask(endpoint, b"") == (b"done\n", True)


def test_a_connection_closed_without_a_byte_runs_nothing_and_is_no_error(endpoint, folder):
    with Server(endpoint, f"touch {folder}/ran") as server:
        for _ in range(20):
            connect(endpoint).close()
        assert sipc("probe", endpoint).returncode == 0
        ask(endpoint, b"")
        line = server.wait_for_log(": answered")
        assert server.log.splitlines()[1:] == [line]


def test_a_thousand_silent_clients_are_in_nobodys_way(endpoint):
    with Server(endpoint, "cat", "--threads", 1) as server:
        with open_connections(endpoint, 1000) as clients:
            assert ask(endpoint, b"hello") == (b"hello", True)
            clients[500].sendall(message(b"late"))
            assert decode(receive_all(clients[500])) == (b"late", True)
        server.wait_until_idle()


def test_when_descriptors_run_short_the_longest_silent_client_is_closed(endpoint):
    with Server(endpoint, "cat", "--threads", 1, wrapper=["prlimit", "--nofile=64"]) as server:
        with open_connections(endpoint, 60) as clients:
            assert receive_all(clients[0]) == b""
            assert ask(endpoint, b"hello") == (b"hello", True)
            clients[-1].sendall(message(b"last"))
            assert decode(receive_all(clients[-1])) == (b"last", True)
        assert server.log.count("descriptors run short") == 1


def test_descriptors_taken_by_requests_make_others_wait_and_none_fail(endpoint, folder):
    command = f"until test -e {folder}/go; do :; done; cat"
    wrapper = ["prlimit", "--nofile=48"]
    with ExitStack() as stack:
        server = stack.enter_context(Server(endpoint, command, "--threads", 2, wrapper=wrapper))
        stop_process(server.pid)  # so that nobody is silent when the server looks
        clients = stack.enter_context(open_connections(endpoint, 40))
        for number, client in enumerate(clients):
            client.sendall(message(b"%d" % number))
        server.signal(signal.SIGCONT)
        server.wait_for_log("descriptors run short")
        (folder / "go").touch()
        for number, client in enumerate(clients):
            assert decode(receive_all(client)) == (b"%d" % number, True)


def test_clients_that_stop_after_a_byte_are_closed_and_the_next_one_served(endpoint):
    with Server(endpoint, "cat", "--read-timeout", "300ms") as server:
        with open_connections(endpoint, 8) as clients:
            for client in clients:
                client.sendall(b"0")
            assert ask(endpoint, b"hello") == (b"hello", True)
            assert [receive_all(client) for client in clients] == [b""] * 8
        server.wait_for_log("too slow to write: silent for 0.3 s", count=8)


def test_a_client_that_drips_is_closed_for_the_packet_it_never_completes(endpoint):
    """A byte every tenth of the limit, so that it is never silent for long."""
    drip = "import socket,sys,time;s=socket.socket(1);s.connect(sys.argv[1]);s.sendall(b'fff0')\n"
    drip += "while 1: s.sendall(b'x');time.sleep(.03)"
    with Server(endpoint, "cat", "--read-timeout", "300ms") as server:
        client = Program([sys.executable, "-c", drip, endpoint], stderr=subprocess.DEVNULL)
        server.wait_for_log("too slow to write: not done with one packet for 0.3 s")
        assert client.wait() == 1


def test_a_slow_handler_does_not_cost_the_client_its_patience(endpoint, folder):
    """The client has more to write than is taken: it is not the silent one."""
    command = "sleep 0.6; cat | wc -c"
    with Server(endpoint, command, "--read-timeout", "200ms") as server:
        assert ask(endpoint, bytes(5 * MIB)) == (b"5242880\n", True)
        assert "too slow" not in server.log


def test_an_endless_answer_to_a_client_that_does_not_read_stays_flat(endpoint):
    with Server(endpoint, "yes") as server:
        with connect(endpoint) as client:
            client.sendall(message(b"hello"))
            wait_until(
                lambda: any(is_in_syscall(pid, "write") for pid in children(server.pid)),
                "the handler to be held up",
            )
            assert peak_memory(server.pid) < 64 * MIB
            assert not [name for name in descriptors(server.pid) if "deleted" in name]
        server.wait_for_log("client hung up")


def test_a_client_that_never_reads_is_closed(endpoint):
    with Server(endpoint, "yes", "--write-timeout", "300ms") as server:
        with connect(endpoint) as client:
            client.sendall(message(b"hello"))
            server.wait_for_log("too slow to read: no byte moved for 0.3 s")
            server.wait_until_idle()


def test_a_client_that_keeps_writing_is_not_stuck_while_its_answer_waits(endpoint):
    """Bytes move in one direction: that is enough."""
    code = "import os,socket,sys,time;s=socket.socket(1);s.connect(sys.argv[1])\n"
    code += "for _ in range(8): s.sendall(b'fff0'+bytes(65516)); time.sleep(.1)\n"
    code += "s.sendall(b'0000');n=0\nwhile d:=s.recv(1<<20): n+=len(d);t=d[-4:]\nprint(n,t)"
    with Server(endpoint, "head -c 5000000 /dev/zero; cat", "--write-timeout", "400ms") as server:
        done = subprocess.run([sys.executable, "-c", code, endpoint], capture_output=True)
        assert done.stdout.endswith(b"b'0000'\n"), server.log


def test_timeout_ends_a_hanging_handler_and_its_family(endpoint, folder):
    command = f"(trap '' TERM; touch {folder}/deaf; while :; do sleep 1; done) & "
    command += f"until test -e {folder}/deaf; do :; done; cat; sleep 1000"
    with Server(endpoint, command, "--timeout", "300ms", "--kill-after", "100ms") as server:
        assert ask(endpoint, b"hello") == (b"hello", False)
        server.wait_for_log("handler timed out: not done in 0.3 s")
        server.wait_until_idle()


def test_a_client_still_writing_when_its_handler_times_out_is_heard_out(endpoint):
    with (
        Server(endpoint, "sleep 1000", "--timeout", "200ms") as server,
        connect(endpoint) as client,
    ):
        client.sendall(packets(bytes(200_000)))
        wait_until(lambda: not children(server.pid), "the handler ended")
        client.sendall(packets(bytes(5 * MIB)) + b"0000")
        assert receive_all(client) == b""
        server.wait_for_log("handler timed out")


def test_a_request_longer_than_allowed_is_refused(endpoint, folder):
    with Server(endpoint, eof_witness(folder), "--max-request", "1K") as server:
        assert ask(endpoint, bytes(1024)) == (b"done\n", True)
        (folder / "eof").unlink()
        assert ask(endpoint, bytes(1025)) == (b"", False)
        server.wait_for_log("request too large: more than 1024 bytes")
        server.wait_until_idle()
        assert not (folder / "eof").exists()


@needs_root
def test_a_full_disk_ends_a_request_and_not_the_server(endpoint, folder):
    spool = folder / "small"
    spool.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", spool], check=True)
    try:
        env = {**os.environ, "TMPDIR": str(spool)}
        with Server(endpoint, "cat", "--whole-request", env=env) as server:
            assert ask(endpoint, bytes(3 * MIB)) == (b"", False)
            line = server.wait_for_log("No space left on device")
            assert str(spool) in line
            assert "TMPDIR" in line
            assert ask(endpoint, bytes(1000)) == (bytes(1000), True)
    finally:
        subprocess.run(["umount", spool], check=True)


def test_a_stopped_handler_ends_too(endpoint, folder):
    command = f"touch {folder}/begun; kill -STOP $$"
    with Server(endpoint, command, "--kill-after", "100ms") as server:
        with connect(endpoint) as client:
            client.sendall(message(b"hello"))
            wait_until((folder / "begun").exists, "the handler to begin")
        server.wait_for_log("client hung up")
        server.wait_until_idle()


def test_a_second_signal_ends_handlers_at_once(endpoint, folder):
    command = f"trap '' TERM; touch {folder}/begun; while :; do sleep 1; done"
    options = ["--kill-after", "1000s", "--drain-timeout", "0"]
    with Server(endpoint, command, *options) as server, connect(endpoint) as client:
        client.sendall(message(b"hello"))
        wait_until((folder / "begun").exists, "the handler to begin")
        server.signal(signal.SIGTERM)
        wait_until(lambda: not endpoint.exists(), "the path to go")
        server.signal(signal.SIGTERM)
        assert server.wait() == 143
        assert decode(receive_all(client)) == (b"", False)
        assert "server stopped" in server.log


COUNTING = """
import gc, signal, sys
from simpleipc_cli.cli import main
from simpleipc_cli.server.connection import Exchange

def count(*_):
    found = sum(type(one) is Exchange for one in gc.get_objects())
    print(found, "exchanges are left", file=sys.stderr, flush=True)

gc.disable()
signal.signal(signal.SIGUSR2, count)
main()
"""


def unread_of(client: socket.socket) -> int:
    """How much of what a client wrote has not been read: that is what fills its buffer."""
    (found,) = struct.unpack("@i", fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)))
    return found


def test_exchanges_are_freed_at_their_end_however_that_came(endpoint):
    """Not only when Python looks for what leads back to itself."""
    program = (sys.executable, "-c", COUNTING)
    options = ["--on-hangup", "finish", "--timeout", "500ms"]
    with Server(endpoint, "sleep 1", *options, program=program) as server:
        with connect(endpoint) as client:
            for _ in range(5):  # four fit into the pipe to the handler, which reads none of them
                client.sendall(packets(bytes(16384)))
                wait_until(lambda: not unread_of(client), "the server to read that")
        for payload in (b"", packets(b"one"), message(b"hello")):
            with connect(endpoint) as client:
                client.sendall(payload)
        with connect(endpoint) as client:
            client.sendall(message(b"timed out"))
            assert receive_all(client) == b""
        server.wait_until_idle()
        asked = itertools.count(1)

        def all_are_freed():  # who is at it still may take a moment
            server.signal(signal.SIGUSR2)
            return server.wait_for_log("exchanges are left", next(asked)).startswith("0 ")

        wait_until(all_are_freed, "all exchanges to be freed", timeout=5)


BROKEN = """
from simpleipc_cli.cli import main
from simpleipc_cli.server.connection import Exchange

def fail(self, run):
    raise RuntimeError("a defect")

Exchange._on_output = fail
main()
"""


def test_a_request_that_meets_a_defect_lets_no_other_wait(endpoint):
    program = (sys.executable, "-c", BROKEN)
    command = "trap '' TERM; read word; test $word = silent || echo; while :; do sleep 0.1; done"
    with Server(endpoint, command, "--kill-after", "1000s", program=program) as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"loud\n"))
            assert receive_all(client) == b""
        with connect(endpoint) as another:
            another.sendall(packets(b"silent\n"))
            wait_until(lambda: len(children(server.pid)) == 2, "the other's handler", timeout=5)
        for _ in range(2):
            server.signal()
            wait_until(lambda: not endpoint.exists(), "it to begin to stop")
        assert server.wait() == 143
        assert "RuntimeError('a defect')" in server.log
