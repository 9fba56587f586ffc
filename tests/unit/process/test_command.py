from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.waiting import TIMEOUT
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.process import StdioPipes
from simpleipc_cli.process.posix.spawn import SHELL, Command
from simpleipc_cli.system.fd_limit import DescriptorLimit

SCRIPT = '#!/bin/sh\nprintf "%s\\0" "$0" "$@"\n'


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def programs(tmp_path):
    """A folder on PATH, with the program `tool` in it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    write_program(folder / "tool")
    return folder


@pytest.fixture
def command(here, programs):
    """Creates commands that find the programs in `programs`."""
    return lambda line: Command(line, str(programs))


def write_program(path: Path, text: str = SCRIPT) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def by_shell(line: str) -> list[str]:
    return [SHELL, "-c", line]


def output(arguments: list[str], folder: Path | None = None) -> bytes:
    return subprocess.run(arguments, capture_output=True, cwd=folder).stdout


# Without a shell

PLAIN = {
    "one word": ("tool", ["tool"]),
    "several words": ("tool one two", ["tool", "one", "two"]),
    "more spaces than needed": ("  tool   one  two ", ["tool", "one", "two"]),
    "options": ("tool -x --key=value +y", ["tool", "-x", "--key=value", "+y"]),
    "every plain character": ("tool aZ09_@%+:,./-=", ["tool", "aZ09_@%+:,./-="]),
    "an assignment as an argument": ("tool NAME=value", ["tool", "NAME=value"]),
}


@pytest.mark.parametrize(("line", "arguments"), PLAIN.values(), ids=PLAIN)
def test_a_line_of_plain_words_runs_without_a_shell(line, arguments, command, programs):
    assert command(line).direct_argv() == (f"{programs}/tool", arguments)


def test_a_program_may_be_named_by_its_path(command, programs, here):
    write_program(here / "local")
    path = f"{programs}/tool"
    assert command(f"{path} x").direct_argv() == (path, [path, "x"])
    assert command("./local x").direct_argv() == ("./local", ["./local", "x"])


# By the shell

SHELL_SYNTAX = {
    "pipe": "tool | tool",
    "semicolon": "tool; tool",
    "ampersand": "tool &",
    "and": "tool && tool",
    "redirection": "tool > file",
    "redirection of input": "tool < file",
    "variable": "tool $HOME",
    "command substitution": "tool $(tool)",
    "backquotes": "tool `tool`",
    "single quotes": "tool 'a b'",
    "double quotes": 'tool "a b"',
    "backslash": "tool a\\ b",
    "star": "tool a*",
    "question mark": "tool a?",
    "brackets": "tool a[b-z]",
    "braces": "tool a{b,c}",
    "tilde": "tool a ~",
    "tilde in an argument": "tool a=~",
    "comment": "tool # not an argument",
    "negation": "! tool",
    "negated builtin": "! true",
    "subshell": "(tool)",
    "group": "{ tool; }",
    "assignment": "NAME=value tool",
    "assignment alone": "NAME=value",
    "newline": "tool\ntool",
    "newline after it": "tool\n",
    "tab": "tool\tx",
    "carriage return": "tool\r",
    "caret": "tool ^x",
    "quoted program": "'tool'",
    "not ASCII": "tool caf\u00e9",
    "a space that is none": "tool\u00a0x",
    "nothing": "",
    "spaces": "  ",
}


@pytest.mark.parametrize("line", SHELL_SYNTAX.values(), ids=SHELL_SYNTAX)
def test_the_shell_runs_lines_with_shell_syntax(line, command, programs):
    if line.strip():
        write_program(programs / line.split(" ")[0])
    assert command(line).direct_argv() is None
    assert command(line).shell_argv() == by_shell(line)


POSIX_WORDS = """
    break case cd command continue do done elif else esac eval exec exit export false fc fg fi
    for getopts hash if in jobs kill local printf pwd read readonly return set shift test then
    times trap true type ulimit umask unalias unset until wait while alias bg chdir echo [ :
""".split()
BASH_WORDS = """
    bind builtin caller compgen complete compopt coproc declare dirs disown enable function help
    history let logout mapfile popd pushd readarray select shopt source suspend time typeset [[
""".split()
BSD_WORDS = """
    autoload fdflags freebsd_wordexp functions inputrc integer jobid print r setvar specialvar stop
    whence wordexp
""".split()


def test_the_shell_runs_builtins_and_reserved_words(command, programs):
    for word in (*POSIX_WORDS, *BASH_WORDS, *BSD_WORDS):
        write_program(programs / word)
        for line in (word, f"{word} x"):
            assert command(line).direct_argv() is None
            assert command(line).shell_argv() == by_shell(line)


def test_the_shell_runs_the_dot_command(command):
    assert command(". tool").direct_argv() is None


def test_a_program_named_like_a_builtin_is_run_by_its_path(command, programs):
    write_program(programs / "echo")
    assert command(f"{programs}/echo").direct_argv() is not None


@pytest.mark.parametrize("line", ["missing", "missing x", "./missing", "/nonexistent/missing"])
def test_the_shell_runs_a_line_whose_program_is_missing(line, command):
    assert command(line).direct_argv() is None
    assert command(line).shell_argv() == by_shell(line)


def test_the_shell_runs_a_line_whose_program_may_not_be_executed(command, programs):
    (programs / "data").write_text("x")
    assert command("data").direct_argv() is None
    assert command(f"{programs}/data").direct_argv() is None


def test_a_directory_on_path_is_not_run_as_a_program(command, programs):
    (programs / "folder").mkdir()
    assert command("folder").direct_argv() is None
    assert command("folder").is_missing()


@pytest.mark.parametrize("line", ["-c 'echo not executed'", "+x; echo executed", "-- echo not"])
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_line_that_begins_with_an_option_is_a_command(line, shell, command):
    """FreeBSD's shell takes the word after -c for the command, so there may be no "--"."""
    _, option, *words = command(line).shell_argv()
    assert (option, [word.strip() for word in words]) == ("-c", [line])
    done = subprocess.run([shutil.which(shell), option, *words], capture_output=True)
    assert done.stdout == (b"executed\n" if "; echo" in line else b"")
    assert b"not found" in done.stderr


# One word that is a file here


def test_one_word_that_names_a_file_in_the_working_directory_runs_that_file(command, here):
    write_program(here / "handler.sh")
    assert command("handler.sh").direct_argv() == ("./handler.sh", ["./handler.sh"])
    assert command("handler.sh").shell_argv() == [SHELL, "-c", "./handler.sh"]


def test_a_program_on_path_is_preferred_to_a_file_in_the_working_directory(command, here, programs):
    write_program(here / "tool")
    assert command("tool").direct_argv() == (f"{programs}/tool", ["tool"])
    assert command("tool").shell_argv() == by_shell("tool")


def test_a_directory_on_path_is_not_preferred_to_a_file_in_the_working_directory(
    command, here, programs
):
    write_program(here / "handler")
    (programs / "handler").mkdir()
    assert command("handler").direct_argv() == ("./handler", ["./handler"])


def test_a_directory_in_the_working_directory_is_not_run_as_a_program(command, here):
    (here / "handler").mkdir()
    assert command("handler").direct_argv() is None
    assert command("handler").shell_argv() == by_shell("handler")


def test_a_symlink_to_a_file_in_the_working_directory_is_run(command, here, programs):
    (here / "link").symlink_to(programs / "tool")
    assert command("link").direct_argv() == ("./link", ["./link"])


def test_the_first_of_several_words_never_names_a_file_in_the_working_directory(command, here):
    write_program(here / "handler.sh")
    assert command("handler.sh x").direct_argv() is None
    assert command("handler.sh x").shell_argv() == by_shell("handler.sh x")


def test_the_shell_runs_the_name_of_a_file_that_may_not_be_executed(command, here):
    (here / "handler.sh").write_text(SCRIPT)
    assert command("handler.sh").direct_argv() is None
    assert command("handler.sh").shell_argv() == [SHELL, "-c", "./handler.sh"]


@pytest.mark.parametrize("line", ["handler.sh", "handler.sh ", " handler.sh", "  handler.sh  "])
def test_spaces_around_one_word_are_ignored(line, command, here):
    write_program(here / "handler.sh")
    assert command(line).direct_argv() == ("./handler.sh", ["./handler.sh"])
    assert output(command(line).shell_argv()) == b"./handler.sh\0"


@pytest.mark.parametrize("word", ["h\u00e4ndler", "handler~", "handler#2"])
def test_one_word_may_have_any_characters_without_a_meaning_in_the_shell(word, command, here):
    write_program(here / word)
    assert output(command(word).shell_argv()) == f"./{word}\0".encode()


def test_the_program_is_searched_for_at_each_start(command, here, programs):
    handler = command("handler")
    assert handler.direct_argv() is None
    write_program(here / "handler")
    assert handler.direct_argv() == ("./handler", ["./handler"])
    write_program(programs / "handler")
    assert handler.direct_argv() == (f"{programs}/handler", ["handler"])


# Missing


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("tool", False),
        ("tool x", False),
        ("mine", False),
        ("mine x", True),
        ("./mine x", False),
        ("nowhere", True),
        ("nowhere x", True),
        ("./nowhere", True),
        ("cd x", False),
        ("nowhere | tool", False),
        ("", False),
    ],
)
def test_a_command_of_plain_words_is_missing_if_they_name_no_program(line, missing, command, here):
    write_program(here / "mine")
    assert command(line).is_missing() is missing


# Same result as with the shell


@pytest.fixture(scope="module")
def show(tmp_path_factory):
    """A program that shows its arguments."""
    return write_program(tmp_path_factory.mktemp("bin") / "show", '#!/bin/sh\nprintf "%s|" "$@"\n')


@given(line=st.text("ab01 =-+@%:,./_~*?[]{}!^#$'\"\\\t\n;&|<>()`", max_size=8))
def test_a_line_that_runs_without_a_shell_gives_the_same_result_as_with_one(line, show):
    command = Command(f"{show} {line}", os.defpath)
    direct = command.direct_argv()
    if direct is not None:
        program, arguments = direct
        directly = output([program, *arguments[1:]], show.parent)
        assert directly == output(command.shell_argv(), show.parent)


# Started by name


@pytest.fixture
def run(here, programs, tmp_path, monkeypatch):
    """Runs a line with two folders on PATH, of which `programs` is the second; its output."""
    monkeypatch.setenv("PATH", f"{tmp_path}/first:{programs}:/usr/bin:/bin")

    def run(line: str, limit: DescriptorLimit) -> bytes:
        pipes = StdioPipes()
        process = pipes.spawn(Command(line, os.environ["PATH"]), {**os.environ}, limit, {})
        assert process.wait(TIMEOUT, None)
        written = pipes.read(memoryview(bytearray(1000)))
        process.stop(0.0, None)
        pipes.close()
        return b"".join(written)

    return run


@pytest.fixture(params=["unchanged", "raised"])
def limit(request):
    """A limit of descriptors, which a child must reset if it is raised."""
    kept = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, kept[1]))
    limit = DescriptorLimit()
    assert request.param == "unchanged" or limit.raise_to_maximum()
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, kept)


def test_each_start_searches_again(run, limit, programs, tmp_path):
    write_program(programs / "tool", "#!/bin/sh\necho old $#")
    assert run("tool x", limit) == b"old 1\n"
    (tmp_path / "first").mkdir()
    write_program(tmp_path / "first" / "tool", "#!/bin/sh\necho new $#")
    assert run("tool x", limit) == b"new 1\n"


@pytest.mark.parametrize("what", ["nothing", "a directory", "data"])
def test_a_file_in_the_working_directory_is_started_if_path_has_no_such_program(
    what, run, limit, programs, here
):
    if what == "a directory":
        (programs / "handler").mkdir()
    elif what == "data":
        (programs / "handler").write_text("x")
    write_program(here / "handler", "#!/bin/sh\necho local")
    assert run("handler", limit) == b"local\n"


@pytest.mark.parametrize("where", ["on PATH", "by its path"])
def test_a_shell_starts_a_program_that_the_system_cannot(where, run, limit, programs):
    write_program(programs / "tool", "echo by a shell")
    assert run("tool" if where == "on PATH" else f"{programs}/tool", limit) == b"by a shell\n"
