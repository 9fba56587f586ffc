"""`sipc probe PATH -- CMD` executes a command in place of itself if a server listens."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from itertools import product

import pytest
from helpers.command import SIPC, Program, assert_error_line, environment, sipc
from helpers.inprocess_cli import run_cli

from simpleipc_cli.cli.probe.command import probe as verb


@pytest.fixture(autouse=True)
def _two_servers(folder):
    """The endpoints a and -b."""
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        for listener, name in ((one, "a"), (other, "-b")):
            listener.bind(str(folder / name))
            listener.listen(1000)
        yield


@pytest.fixture
def run(folder):
    """Return a function that runs `sipc probe` in the folder, without a time limit."""

    def probe(*arguments, **options):
        return sipc("probe", "-t", "1h", *arguments, cwd=folder, **options)

    return probe


def test_the_command_is_executed_after_the_report_in_the_same_process(folder):
    command = [SIPC, "probe", "a", "--", "sh", "-c", "echo $$; exit 42"]
    options = {"stdout": subprocess.PIPE, "env": environment(), "cwd": folder}
    with Program(command, **options) as program:
        assert program.communicate()[0] == b"a: listening\n%d\n" % program.pid
        assert program.returncode == 42


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE])
def test_signals_have_their_default_action_in_the_command(run, number):
    assert run("a", "--", "sh", "-c", f"kill -{number:d} $$").returncode == -number


def test_an_ignored_hangup_stays_ignored(run):
    wrapper = ["sh", "-c", 'trap "" HUP; exec "$0" "$@"', SIPC]
    done = run("-q", "a", "--", "sh", "-c", "kill -HUP $$; echo alive", program=wrapper)
    assert (done.returncode, done.stdout) == (0, b"alive\n")


def test_the_command_gets_standard_input_arguments_and_environment_unchanged(run, folder):
    script = 'cat; printf "<%s>" "$@" "${SIPC_PATH-unset}"; exit 3'
    words = ["-q", "", "--", "-x", "--json", "a b"]
    done = run("-q", "a", "./-b", "--", "sh", "-c", script, "sh", *words, input=b"input\n")
    shown = "".join(f"<{word}>" for word in [*words, "unset"])
    assert (done.returncode, done.stdout.decode()) == (3, f"input\n{shown}")


def test_with_any_the_command_gets_the_path_that_was_found(run, folder):
    done = run("--any", "none", "a", "--", "sh", "-c", 'echo "$SIPC_PATH"')
    assert done.stdout.decode() == f"a: listening\n{folder}/a\n"


def test_no_descriptor_is_left_open_for_the_command(run):
    done = run("-q", "a", "--", "ls", "/proc/self/fd")
    assert done.stdout == b"0\n1\n2\n3\n"  # 3 is ls's own


@pytest.mark.parametrize("options", [[], ["none"], ["none", "--any"]])
def test_json_is_written_before_the_command_starts(run, options):
    done = run("a", *options, "--json", "--", "echo", "done")
    report, _, rest = done.stdout.partition(b"\n")
    json.loads(report)
    executed = options != ["none"]
    assert (done.returncode, rest) == (0, b"done\n") if executed else (4, b"")
    assert isinstance(json.loads(report), dict) == (not options)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["none"], 4), (["a", "none"], 4), (["--any", "none", "."], 4), (["--wait-gone", "1ms"], 6)],
)
def test_the_command_is_not_executed_unless_the_exit_status_is_0(run, folder, arguments, status):
    more = [] if status == 4 else ["a"]
    done = run(*arguments, *more, "--", "touch", "ran")
    assert (done.returncode, done.stderr) == (status, b"")
    assert not (folder / "ran").exists()


def test_the_command_is_executed_when_all_servers_are_gone(run, folder):
    done = run("-q", "--wait-gone", "1h", "none", "nothing", "--", "echo", "gone")
    assert (done.returncode, done.stdout) == (0, b"gone\n")


def written(path, text: str, mode: int) -> str:
    path.write_text(text)
    path.chmod(mode)
    return f"./{path.name}"


def test_a_command_that_cannot_be_executed_is_an_error(run, folder):
    no_interpreter = written(folder / "lost", "#!/no/interpreter\n", 0o755)
    for command, status, *words in (
        ("no-such-command", 127, "no-such-command", "check its name"),
        ("./none", 127, "./none", "check its name"),
        ("", 127, "cannot execute '': No such file"),
        ("a/below", 127, "Not a directory"),
        (no_interpreter, 127, "./lost", "check the interpreter"),
        (written(folder / "plain", "true\n", 0o644), 126, "./plain", "check its mode"),
        (".", 126, "check its mode"),
    ):
        assert_error_line(run("a", "--", command), status, *words, stdout=b"a: listening\n")


def test_a_script_that_names_no_interpreter_is_executed_by_the_shell(run, folder):
    written(folder / "plain script", 'echo "$0: $*"; exit 5\n', 0o755)
    done = run("-q", "a", "--", "./plain script", "x", "y z")
    assert (done.returncode, done.stdout) == (5, b"./plain script: x y z\n")
    env = environment(PATH=f"{folder}:{os.environ['PATH']}")
    done = run("-q", "a", "--", "plain script", env=env)
    assert done.stdout.decode() == f"{folder}/plain script: \n"


def test_the_command_is_not_executed_if_the_report_cannot_be_written(run, folder):
    closed = ["sh", "-c", 'exec "$0" "$@" >&-', SIPC]
    assert_error_line(run("a", "--", "touch", "ran", program=closed), 1, "standard output")
    full = ["sh", "-c", 'exec "$0" "$@" >/dev/full', SIPC]
    assert_error_line(run("a", "--", "touch", "ran", program=full), 1, "No space left")
    assert not (folder / "ran").exists()
    assert run("-q", "a", "--", "touch", "ran", program=closed).returncode == 0
    assert (folder / "ran").exists()


# -- the command line ------------------------------------------------------------------


def test_a_double_dash_before_the_path_only_ends_the_options(run):
    assert run("-q", "--", "-b").returncode == 0
    assert run("-q", "--", "-b", "--", "echo", "x").stdout == b"x\n"
    assert run("-q", "--", "-b", "a", "--", "echo", "--").stdout == b"--\n"


def test_a_double_dash_can_be_the_value_of_an_option(run):
    done = run("a", "-d", "--", "-qt", "1ms", "--", "touch", "ran")
    assert (done.returncode, done.stdout) == (6, b"")  # no server reads the request


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["a", "--"], "a command must follow --"),
        (["--wait", "1h", "--", "echo", "x"], "the -- before CMD must follow a PATH"),
        (["--", "--", "echo"], "the -- before CMD must follow a PATH"),
        (["a", "--bogus", "--", "echo"], "No such option"),
        (["a", "-d"], "requires an argument"),
    ],
)
def test_an_invalid_command_line_is_a_usage_error(folder, words, error):
    done = run_cli("probe", *words, cwd=folder)
    assert (done.returncode, done.stdout) == (2, b"")
    assert error in done.stderr.decode()


OPTIONS = [
    ["-q"],
    ["-qt", "1s"],
    ["-t1s"],
    ["-d", "--"],
    ["--data=--"],
    ["--data", "--"],
    ["-qd", "--"],
]


@pytest.mark.parametrize("words", list(product(OPTIONS, OPTIONS)), ids=str)
def test_the_command_begins_after_the_first_double_dash_that_follows_a_path(words):
    first, second = words
    line = [*first, "x", *second, "y", "--", "cmd", "-q", "--", "z"]
    with verb.make_context("probe", list(line)) as context:
        assert context.params["command"] == ["cmd", "-q", "--", "z"]
        assert (context.params["path"], context.params["others"]) == ("x", ("y",))
    with verb.make_context("probe", [*first, "--", "-x", *second, "--", "cmd"]) as context:
        shown = context.params["path"], *context.params["others"]
        assert shown[0] == "-x"
        at = second.index("--") if "--" in second else None
        assert context.params["command"] == (
            ["cmd"] if at is None else [*second[at + 1 :], "--", "cmd"]
        )
