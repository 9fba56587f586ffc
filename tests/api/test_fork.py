"""A program with a Server, or its callback, forks."""

from __future__ import annotations

from helpers.procfs import is_running
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask


def test_a_fork_of_the_program_ends_without_the_server(run, endpoint):
    """The child does not wait for a thread that it does not have."""
    process = run(
        "import simpleipc_cli.api.server as api; api._ABORT_TIMEOUT = 1e6\n"
        "Server(path, answer).start(); child = os.fork(); child or sys.exit(3)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3\n"
        "say('ready'); input()"
    )
    assert ask(endpoint, b"ab") == (b"ba", True)
    process.stdin.write("\n")
    assert process.communicate(timeout=TIMEOUT)[0] == ""
    assert process.returncode == 0


def test_a_fork_of_a_callback_never_serves(run, endpoint):
    process = run(
        "def fork(request):\n"
        "    child = os.fork()\n"
        "    if child == 0 and request == b'raise': raise RuntimeError\n"
        "    return b'%d' % child if child else b''\n"
        "Server(path, fork).start(); say('ready'); input()"
    )
    for request in (b"raise", b"return") * 3:
        child, _ = ask(endpoint, request)
        wait_until(lambda pid=int(child): not is_running(pid), "the child to end")
    process.stdin.write("\n")
    assert process.communicate(timeout=TIMEOUT)[0] == ""
    assert process.returncode == 0
