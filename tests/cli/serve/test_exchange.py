"""`sipc serve --exec`: what goes in and what comes out, whoever reads or writes first."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, environment, sipc
from helpers.procfs import children, peak_memory
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import (
    MAX_PAYLOAD,
    ask,
    connect,
    decode,
    message,
    open_connections,
    packets,
    receive_all,
)

MIB = 1 << 20
FLAT = 64 * MIB
"""A server's memory stays below this, however long a message is."""

PAYLOADS = {
    "empty": b"",
    "one byte": b"x",
    "text": b"hello\n",
    "NULs and flush packets": b"\0\0" + b"0000" * 3 + b"0001\xff\n\r",
    "one full packet": b"\xfe" * MAX_PAYLOAD,
    "one byte more": b"\xfe" * (MAX_PAYLOAD + 1),
    "ten megabytes": os.urandom(10 * MIB),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("options", [(), ("--whole-request",)], ids=["streaming", "whole"])
def test_any_payload_goes_through_unchanged(endpoint, payload, options):
    with Server(endpoint, "cat", *options):
        done = sipc("send", endpoint, input=payload)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == payload
        assert ask(endpoint, payload) == (payload, True)


def test_a_request_arriving_one_byte_at_a_time_is_understood(endpoint):
    with Server(endpoint, "cat"), connect(endpoint) as client:
        for byte in message(b"hello"):
            client.sendall(bytes([byte]))
        assert receive_all(client) == message(b"hello")


def test_an_empty_packet_does_not_end_a_request(endpoint):
    with Server(endpoint, "cat"), connect(endpoint) as client:
        client.sendall(b"0004" + packets(b"one") + b"0004" + packets(b"two") + b"0000")
        assert decode(receive_all(client)) == (b"onetwo", True)


def test_many_packets_get_a_thread_however_little_is_in_them(endpoint):
    """Looking at packets takes its time, and others shall not wait for that."""
    with Server(endpoint, "cat") as server, connect(endpoint) as client:
        for _ in range(5):
            client.sendall(b"0004" * 1000)
        tasks = Path(f"/proc/{server.pid}/task")
        wait_until(lambda: len(list(tasks.iterdir())) == 2, "a thread for who has many packets")
        client.sendall(message(b"hello"))
        assert decode(receive_all(client)) == (b"hello", True)


def test_an_empty_response_is_a_flush_alone(endpoint):
    with Server(endpoint, "cat >/dev/null"), connect(endpoint) as client:
        client.sendall(message(b"hello"))
        assert receive_all(client) == b"0000"


def test_request_bytes_reach_the_handler_and_answers_the_client_as_they_come(endpoint):
    with Server(endpoint, "cat"), connect(endpoint) as client:
        for word in (b"one", b"two", b"three"):
            client.sendall(packets(word))
            assert client.recv(100) == packets(word)
        client.sendall(b"0000")
        assert receive_all(client) == b"0000"


def test_300_megabytes_through_cat_from_a_client_that_writes_before_it_reads(endpoint, folder):
    chunk = packets(os.urandom(15 * MAX_PAYLOAD))
    count = 300_000_000 // (15 * MAX_PAYLOAD)
    with Server(endpoint, "cat") as server, connect(endpoint) as client:
        for _ in range(count):
            client.sendall(chunk)
        client.sendall(b"0000")
        received = 0
        reader = client.makefile("rb", buffering=MIB)
        while header := reader.read(4):
            if header == b"0000":
                break
            received += len(reader.read(int(header, 16) - 4))
        assert received == count * 15 * MAX_PAYLOAD
        assert not reader.read()
        reader.close()
        assert peak_memory(server.pid) < FLAT


def test_300_megabytes_through_two_servers_in_a_row_stay_out_of_memory(endpoint, folder):
    size = 300_000_000
    back = folder / "back"
    relay = f"{SIPC} send {back}"
    with Server(back, "cat") as behind, Server(endpoint, relay) as server:
        with connect(endpoint) as client:
            zeros = packets(bytes(15 * MAX_PAYLOAD))
            sent = 0
            while sent < size:
                client.sendall(zeros)
                sent += 15 * MAX_PAYLOAD
            client.sendall(b"0000")
            peaks = [peak_memory(pid) for pid in (server.pid, behind.pid, *children(server.pid))]
            wire = 0
            while piece := client.recv(MIB):
                wire += len(piece)
                tail = piece[-4:]
        assert wire > size
        assert tail == b"0000"
        assert len(peaks) == 3
        assert max(peaks) < FLAT


def test_a_handler_may_write_100_megabytes_before_it_reads(endpoint):
    request = os.urandom(20 * MIB)
    with Server(endpoint, "head -c 100000000 /dev/zero; cat") as server:
        payload, whole = ask(endpoint, request)
        assert whole
        assert len(payload) == 100_000_000 + len(request)
        assert payload.endswith(request)
        assert peak_memory(server.pid) < FLAT


@pytest.mark.parametrize("options", [(), ("--whole-request",)], ids=["streaming", "whole"])
def test_a_handler_that_never_reads_still_answers_a_client_that_writes_first(endpoint, options):
    with Server(endpoint, "echo done", *options):
        assert ask(endpoint, bytes(50 * MIB)) == (b"done\n", True)


def test_a_handler_that_closes_its_input_early_answers_all_the_same(endpoint):
    with Server(endpoint, "exec <&-; head -c 10000000 /dev/zero"):
        payload, whole = ask(endpoint, bytes(30 * MIB))
        assert (len(payload), whole) == (10_000_000, True)


@pytest.mark.parametrize(
    ("command", "output"),
    [("cat; exit 3", None), ("echo sorry; exit 3", b"sorry\n"), ("kill -9 $$", b"")],
    ids=["after output", "without reading", "killed"],
)
def test_a_failed_handler_gives_an_answer_without_a_flush(endpoint, command, output):
    with Server(endpoint, command) as server:
        payload, whole = ask(endpoint, b"hello\n")
        assert not whole
        assert payload == (b"hello\n" if output is None else output)
        line = server.wait_for_log(r"handler failed")
        assert f"{server.pid}-1 " in line
        assert ("exit status 3" in line) == ("exit 3" in command)
        assert ("SIGKILL" in line) == ("kill" in command)
        done = sipc("send", endpoint, input=b"hello\n")
        assert done.returncode == 7
        assert b"cut off" in done.stderr


def test_a_client_with_5_megabytes_to_write_hears_of_the_failure_and_not_of_sigpipe(endpoint):
    client = "import os,socket,sys;s=socket.socket(1);s.connect(sys.argv[1]);import signal;"
    client += "signal.signal(signal.SIGPIPE,signal.SIG_DFL);"
    client += "[os.write(s.fileno(),b'fff0'+bytes(65516)) for _ in range(80)];"
    client += "os.write(s.fileno(),b'0000');"
    client += "r=b''\nwhile d:=s.recv(65536): r+=d\nprint(r)"
    with Server(endpoint, "echo no; exit 3"):
        done = subprocess.run(["python3", "-c", client, endpoint], capture_output=True)
        assert (done.returncode, done.stdout) == (0, b"b'0007no\\n'\n")


def test_a_slow_filter_that_holds_the_output_is_waited_for(endpoint, script):
    handler = script(
        "#!/bin/bash\n"
        'exec > >(while read -r line; do read -rt 0.2 <> <(:); echo "<$line>"; done)\n'
        "cat\n"
    )
    with Server(endpoint, str(handler)):
        assert ask(endpoint, b"1\n2\n3\n") == (b"<1>\n<2>\n<3>\n", True)


def test_a_background_process_that_holds_the_output_ends_with_the_request(endpoint):
    with Server(endpoint, "cat; sleep 1000 & exit 0", "-q") as server:
        assert ask(endpoint, b"hello") == (b"hello", True)
        assert "holds its output open" in server.wait_for_log("answered")
        server.wait_until_idle()


def test_a_background_process_without_the_output_ends_with_the_request(endpoint, folder):
    command = f"(trap '' TERM; echo $$ >{folder}/pid; exec sleep 1000) >/dev/null & "
    command += f"until test -s {folder}/pid; do :; done; cat"
    with Server(endpoint, command, "--kill-after", "200ms") as server:
        assert ask(endpoint, b"hello") == (b"hello", True)
        server.wait_until_idle()


def test_the_handler_learns_who_asks_and_nothing_from_the_request(endpoint, folder):
    names = "PROTO UNIXLOCALPATH UNIXREMOTEPID UNIXREMOTEEUID UNIXREMOTEEGID SIPC_REQUEST_ID"
    shown = " ".join(f'"${name}"' for name in names.split())
    with Server("sock", f"printf '%s\\n' {shown}", cwd=folder) as server:
        done = Program(
            [SIPC, "send", endpoint, "-d", "$(touch owned) `touch owned`; touch owned"],
            stdout=subprocess.PIPE,
        )
        answer = done.communicate()[0].decode().split("\n")
        expected = ["UNIX", str(endpoint), str(done.pid), str(os.geteuid()), str(os.getegid())]
        assert answer[:5] == expected
        assert answer[5] == f"{server.pid}-1"
        assert not (folder / "owned").exists()


def test_request_ids_differ(endpoint):
    with Server(endpoint, "echo $SIPC_REQUEST_ID"):
        assert len({ask(endpoint, b"")[0] for _ in range(5)}) == 5


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("#!/bin/sh\ncat\n", "handler.sh"),
        ("cat\n", "handler.sh"),
        ("#!/bin/sh\ncat\n", "./handler.sh"),
        ("cat\n", "./handler.sh -x"),
    ],
    ids=["without a slash", "without a shebang", "with a slash", "no shebang, an argument"],
)
def test_a_handler_in_the_working_directory_is_found(folder, script, text, command):
    script(text)
    with Server("sock", command, cwd=folder):
        assert ask(folder / "sock", b"hello") == (b"hello", True)


@pytest.mark.parametrize(
    ("command", "whole"),
    [
        (":", True), ("true", True), ("! true", False), ("false", False),
        ("read -r line; echo $line", True), ("FOO=hello; echo $FOO", True),
        ("test -p /dev/stdin && echo hello", True), ("cat | cat", True), ("exec cat", True),
    ],
)  # fmt: skip
def test_a_command_is_a_shell_command_line(endpoint, command, whole):
    with Server(endpoint, command):
        payload, complete = ask(endpoint, b"hello\n")
        assert complete is whole
        assert payload in {b"", b"hello\n"}
        assert (b"hello" in payload) == any(word in command for word in ("cat", "echo"))


def test_a_handler_starts_with_default_signals_and_the_limit_of_before(endpoint):
    command = "ulimit -Sn; cat /proc/self/status"
    wrapper = ["sh", "-c", 'trap "" PIPE HUP USR1 XFSZ; ulimit -Sn 200; exec "$@"', "sh"]
    with Server(endpoint, command, wrapper=wrapper):
        with open_connections(endpoint, 300):
            limit, *status = ask(endpoint, b"")[0].decode().splitlines()
        assert limit == "200"
        masks = [line.split()[1] for line in status if line.startswith(("SigIgn", "SigBlk"))]
        glibcs = 1 << 31 | 1 << 32  # 32 and 33, which no program but glibc can use
        assert [int(mask, 16) & ~glibcs for mask in masks] == [0, 0]


def test_a_client_that_half_closes_gets_its_answer(endpoint, folder):
    with Server(endpoint, f"cat; until test -e {folder}/go; do :; done; echo end"):
        with connect(endpoint) as client:
            client.sendall(message(b"hello"))
            client.shutdown(1)
            assert client.recv(100) == packets(b"hello")
            (folder / "go").touch()
            assert receive_all(client) == message(b"end\n")


def test_a_megabyte_behind_the_flush_is_dropped_and_a_megabyte_of_answer_delivered(endpoint):
    with Server(endpoint, "head -c 1000000 /dev/zero", "-v") as server:
        with connect(endpoint) as client:
            client.sendall(message(b"hello") + b"0009more" + bytes(MIB))
            payload, whole = decode(receive_all(client))
        assert (len(payload), whole) == (1_000_000, True)
        assert "bytes behind the flush" in server.wait_for_log("answered")
        server.wait_until_idle()
        assert server.log.count("answered") == 1


def test_both_directions_stream_at_once(endpoint):
    """Neither side would get further if one direction waited for the other to end."""
    with Server(endpoint, "cat"), connect(endpoint) as client:
        sent = threading.Thread(
            target=lambda: (
                [client.sendall(packets(bytes(MIB))) for _ in range(50)] and client.sendall(b"0000")
            )
        )
        sent.start()
        payload, whole = decode(receive_all(client))
        sent.join()
        assert (len(payload), whole) == (50 * MIB, True)


def test_a_whole_request_is_the_handlers_standard_input(endpoint):
    with Server(endpoint, "stat -L -c %F:%s /dev/stdin; cat", "--whole-request"):
        assert ask(endpoint, b"hello") == (b"regular file:5\nhello", True)


def test_a_whole_request_starts_no_handler_before_it_is_complete(endpoint, folder):
    with Server(endpoint, f"touch {folder}/started; cat", "--whole-request") as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"hello"))
            assert ask(endpoint, b"other") == (b"other", True)
            (folder / "started").unlink()
        server.wait_for_log("request cut off")
        assert not (folder / "started").exists()


def test_requests_are_handled_at_once_up_to_the_number_of_threads(endpoint, folder):
    meet = f"mkdir -p {folder}/in; touch {folder}/in/$$; "
    meet += f"until test $(ls {folder}/in | wc -l) -ge 3; do :; done; cat"
    with Server(endpoint, meet, "--threads", 3):
        with open_connections(endpoint, 3) as clients:
            for client in clients:
                client.sendall(message(b"x"))
            assert [receive_all(client) for client in clients] == [message(b"x")] * 3


def test_with_one_thread_the_others_wait_and_none_is_dropped(endpoint, folder):
    command = f"until test -e {folder}/go; do :; done; cat"
    with (
        Server(endpoint, command, "--threads", 1) as server,
        open_connections(endpoint, 40) as clients,
    ):
        for number, client in enumerate(clients):
            client.sendall(message(b"%d" % number))
        wait_until(lambda: children(server.pid), "a handler")
        assert len(children(server.pid)) == 1
        (folder / "go").touch()
        for number, client in enumerate(clients):
            assert decode(receive_all(client)) == (b"%d" % number, True)


def test_a_missing_command_is_mentioned_and_fails_the_request(endpoint):
    with Server(endpoint, "no-such-command-here", env=environment()) as server:
        assert ask(endpoint, b"x") == (b"", False)
        assert "there is no command no-such-command-here" in server.log
        server.wait_for_log("exit status 127")
