"""A Server of the API and the process that it is in: signals, exit, scarcity, permissions."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import threading
from collections import Counter

import pytest
from helpers.callbacks import answering, reverse
from helpers.command import needs_root, read_line
from helpers.procfs import descriptors
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, is_listening, message, open_connections, receive_all

from simpleipc_cli import AddressInUse, EndpointError, Server, SipcError


def end(process):
    """Wait for its end; return its status, the rest of its output, and its errors."""
    out, errors = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, errors


# the end of the interpreter


@pytest.mark.parametrize("callback", ["answer", "sleep_later", "read_later"])
@pytest.mark.parametrize(
    "request_", [b"", message(b"sleep"), b"0005x"], ids=["idle", "busy", "half"]
)
def test_the_end_of_the_program_ends_its_server_at_once(run, endpoint, callback, request_):
    process = run(f"Server(path, {callback}).start(); say('ready'); input()")
    assert ask(endpoint, b"ab") == (b"ba", True)
    with connect(endpoint) as client:
        client.sendall(request_)
        process.stdin.write("\n")
        status, out, errors = end(process)
        assert (status, out) == (0, "")
        assert "Traceback" not in errors
        assert errors.count("\n") <= 1  # a record of logging
        receive_all(client)
    assert not os.path.lexists(endpoint)


def test_an_exception_that_ends_the_program_ends_its_server(run, endpoint):
    process = run("Server(path, answer).start(); say('ready'); input(); sys.exit(7)")
    process.stdin.write("\n")
    assert end(process) == (7, "", "")
    assert not os.path.lexists(endpoint)


def test_a_program_that_ends_as_soon_as_its_server_has_started_leaves_nothing(run, endpoint):
    for _ in range(5):
        process = run("server = Server(path, answer); say('ready'); server.start()")
        assert end(process) == (0, "", "")
        assert not os.path.lexists(endpoint)


def test_a_killed_program_leaves_a_socket_that_the_next_replaces(run, endpoint):
    program = "Server(path, answer).start(); say('ready'); input()"
    first = run(program)
    first.kill()
    end(first)
    assert os.path.lexists(endpoint)
    run(program)
    assert ask(endpoint, b"ab") == (b"ba", True)


# signals


SERVE = """
try:
    with open(path + ".ready", "x"):
        threading.Thread(target=report).start()
    Server(path, answer).serve_forever()
except KeyboardInterrupt:
    say("interrupted")
"""
REPORT = """
def report():
    while not os.path.exists(path):
        time.sleep(0.01)
    say("ready")
"""


def test_ctrl_c_ends_serve_forever_after_all_answers(run, endpoint):
    process = run(REPORT + SERVE)
    wait_until(lambda: is_listening(endpoint), "it to listen")
    process.send_signal(signal.SIGINT)
    assert end(process) == (0, "interrupted\n", "")
    assert not os.path.lexists(endpoint)


def test_ctrl_c_at_any_moment_of_the_start_leaves_nothing(endpoint):
    moment = 0
    gc.freeze()  # else each collection would look at all objects of the tests
    while _is_interrupted(endpoint, moment := moment + 1):
        assert not os.path.lexists(endpoint), moment
        assert os.listdir(endpoint.parent) == [], moment
    gc.unfreeze()
    assert moment > 5


def _is_interrupted(endpoint, moment):
    """Raise KeyboardInterrupt at a call that start() makes; return False if it makes fewer.

    Python handles signals when it enters a function, but not for example inside of `with lock`.
    """
    left = moment

    def interrupt(_frame, event, _argument):
        nonlocal left
        left -= event == "call"
        if not left:
            left = -1
            raise KeyboardInterrupt

    server = Server(endpoint, reverse)
    gc.collect()
    gc.disable()  # else it might interrupt the end of an earlier server
    sys.setprofile(interrupt)
    try:
        server.start()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
        gc.enable()
        server.stop()
        server.wait()
    return False


def test_a_second_ctrl_c_ends_all_requests(run, endpoint):
    process = run(REPORT + SERVE)
    wait_until(lambda: is_listening(endpoint), "it to listen")
    with connect(endpoint) as client:
        client.sendall(message(b"sleep"))
        assert ask(endpoint, b"ab") == (b"ba", True)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: not os.path.lexists(endpoint), "it to stop")
        process.send_signal(signal.SIGINT)
        status, out, errors = end(process)
        assert (status, out) == (0, "interrupted\n")
        assert "Traceback" not in errors
        assert receive_all(client) == b""


def test_a_signal_handler_may_stop_the_server(run, endpoint):
    process = run(
        """
server = Server(path, answer)
signal.signal(signal.SIGTERM, lambda *_: server.stop())
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"usr1\\n"))
server.start()
say("ready")
say(server.wait())
"""
    )
    process.send_signal(signal.SIGUSR1)
    assert read_line(process) == "usr1\n"
    assert ask(endpoint, b"ab") == (b"ba", True)
    process.send_signal(signal.SIGTERM)
    assert end(process) == (0, "True\n", "")


def test_signals_that_arrive_without_end_disturb_nothing(run, endpoint):
    process = run(
        """
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
with Server(path, answer) as server:
    say("ready")
    input()
    signal.setitimer(signal.ITIMER_REAL, 0)
"""
    )
    for number in range(200):
        assert ask(endpoint, b"%d" % number) == ((b"%d" % number)[::-1], True)
    process.stdin.write("\n")
    assert end(process) == (0, "", "")


LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]


def test_no_signal_handler_limit_or_descriptor_is_changed_or_left(endpoint):
    def state():
        return (
            [signal.getsignal(number) for number in signal.valid_signals()],
            [resource.getrlimit(getattr(resource, name)) for name in LIMITS],
            signal.pthread_sigmask(signal.SIG_BLOCK, []),
            signal.set_wakeup_fd(-1),
        )

    async def later(request):
        return request[::-1]

    before, opened = state(), Counter(descriptors(os.getpid()))
    for callback in (reverse, later):
        with Server(endpoint, callback):
            assert ask(endpoint, b"ab") == (b"ba", True)
            assert state() == before
        assert state() == before
        wait_until(lambda: Counter(descriptors(os.getpid())) <= opened, "no descriptor to be left")


# paths and users


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_server_whose_path_is_gone_ends(endpoint, how):
    server = Server(endpoint, reverse)
    server.start()
    os.remove(endpoint)
    if how == "replaced":
        endpoint.write_text("mine")
    for _ in range(2):
        with pytest.raises(SipcError, match="was removed or replaced"):
            server.wait(TIMEOUT)
    if how == "replaced":
        assert endpoint.read_text() == "mine"


def test_what_is_no_socket_is_never_replaced(endpoint):
    endpoint.write_text("mine")
    with pytest.raises(EndpointError):
        Server(endpoint, reverse).start()
    assert endpoint.read_text() == "mine"


def test_a_stale_socket_is_replaced(endpoint):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(endpoint))
    with Server(endpoint, reverse):
        assert ask(endpoint, b"ab") == (b"ba", True)
    assert not os.path.lexists(endpoint)


@pytest.mark.parametrize("attempt", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 2))])
def test_of_servers_that_start_at_once_one_wins(endpoint, attempt):
    servers = [Server(endpoint, lambda _request, n=number: b"%d" % n) for number in range(8)]
    together, won = threading.Barrier(8), []

    def start(number):
        together.wait(TIMEOUT)
        try:
            servers[number].start()
        except AddressInUse:
            return
        won.append(b"%d" % number)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(won) == 1
    assert ask(endpoint, b"") == (won[0], True)
    servers[int(won[0])].stop()
    assert servers[int(won[0])].wait(TIMEOUT)


def test_the_mode_is_exact_whatever_the_umask(endpoint):
    before = os.umask(0o077)
    try:
        with Server(endpoint, reverse, mode=0o666):
            assert endpoint.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)
    with Server(endpoint, reverse):
        assert endpoint.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_missing_is_an_error(folder):
    with pytest.raises(EndpointError):
        Server(folder / "missing" / "sock", reverse).start()


@needs_root
def test_only_allowed_users_are_answered(endpoint, folder):
    with Server(endpoint, reverse, allowed_users=[os.geteuid() + 1], mode=0o666):
        with connect(endpoint) as client:
            assert receive_all(client) == b""
    with Server(endpoint, reverse, allowed_users=[os.geteuid()]):
        assert ask(endpoint, b"ab") == (b"ba", True)


# scarcity


def test_a_server_that_cannot_start_leaves_nothing(endpoint):
    """Whichever descriptor is the one too many."""
    opened, limits = Counter(descriptors(os.getpid())), resource.getrlimit(resource.RLIMIT_NOFILE)
    taken, failed = [], 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        while True:
            try:
                with Server(endpoint, reverse):
                    break
            except SipcError:
                failed += 1
                os.close(taken.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for number in taken:
            os.close(number)
    assert failed > 4
    assert not os.path.lexists(endpoint)
    wait_until(lambda: Counter(descriptors(os.getpid())) <= opened, "no descriptor to be left")


def test_requests_are_answered_with_few_descriptors(run, endpoint):
    run(
        """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
Server(path, read_later if len(sys.argv) > 2 else answer).start()
say("ready")
input()
"""
    )
    for _ in range(3):
        with open_connections(endpoint, 60) as clients:
            for number, client in enumerate(clients):
                try:
                    client.sendall(message(b"%d" % number))
                except BrokenPipeError:
                    continue  # it was idle for the longest time, and closed
                assert receive_all(client) in (b"", message((b"%d" % number)[::-1]))
        assert ask(endpoint, b"ab") == (b"ba", True)


NO_THREADS = """
import resource
os.setgid(12345); os.setuid(12345)
def refuse():
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
"""


@needs_root
def test_a_server_without_threads_says_so(run, endpoint, folder):
    folder.chmod(0o777)
    process = run(
        NO_THREADS
        + """
refuse()
say("ready")
try:
    Server(path, answer).start()
except Exception as error:
    say(f"{type(error).__name__}: {error}")
"""
    )
    status, out, errors = end(process)
    # The system counts the threads of all programs of the user: it may allow one.
    assert out.startswith("SipcError: no thread for the server") or (
        "has failed: no thread for the event loop" in errors
    ), out + errors
    assert (status, "Traceback" in errors) == (0, False)
    assert not os.path.lexists(endpoint)


@needs_root
@pytest.mark.parametrize("callback", ["answer", "read_later", "sleep_later"])
def test_requests_are_answered_or_cut_off_without_threads(run, endpoint, folder, callback):
    folder.chmod(0o777)
    process = run(
        NO_THREADS
        + f"""
Server(path, {callback}).start()
while threading.active_count() < 3:  # the event loop has a thread of its own
    time.sleep(0.001)
refuse()
say("ready")
input()
"""
    )
    for number in range(20):
        answer, whole = ask(endpoint, b"%d" % number)
        assert (answer, whole) in (((b"%d" % number)[::-1], True), (b"", False))
        assert whole or callback != "answer"
    process.stdin.write("\n")
    status, out, errors = end(process)
    assert (status, out) == (0, "")
    assert "Traceback" not in errors


def test_a_slow_call_is_taken_over_once_there_is_a_thread(endpoint, monkeypatch):
    """It delays others only as long as no thread can be started."""
    begun, gate = threading.Semaphore(0), threading.Event()
    start, refused = threading.Thread.start, []

    def refuse(thread):
        if thread._target.__name__ == "_watch" and len(refused) < 3:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    def answer(request):
        if request == b"wait":
            begun.release()
            assert gate.wait(TIMEOUT)
        return request[::-1]

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with answering(endpoint, answer):
        for _ in range(3):
            assert ask(endpoint, b"ab") == (b"ba", True)
        assert len(refused) == 3
        with connect(endpoint) as client:
            client.sendall(message(b"wait"))
            assert begun.acquire(timeout=TIMEOUT)
            assert ask(endpoint, b"ab") == (b"ba", True)
            gate.set()
            assert receive_all(client) == message(b"tiaw")
