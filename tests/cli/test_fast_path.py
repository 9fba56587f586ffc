"""The fast path for plain forms of `serve`, `send` and `probe` does the same as click."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from importlib import import_module

import click
import pytest
from helpers.command import environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.scripted_server import ScriptedServer
from helpers.sending import echo
from helpers.sockets import stale_socket
from helpers.wire import read_message
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from simpleipc_cli import cli
from simpleipc_cli.cli import fast_path
from simpleipc_cli.cli.options import DURATION, duration_or_zero
from simpleipc_cli.cli.parse import (
    COUNT,
    DURATION_OR_ZERO,
    FLAG,
    OPTIONS,
    TEXT,
    NeedsClick,
    parse_simple,
)
from simpleipc_cli.cli.serve import ServeOptions

each_verb = pytest.mark.parametrize("verb", OPTIONS)


def click_of(verb: str) -> click.Command:
    return getattr(import_module(f"simpleipc_cli.cli.{verb}.command"), verb)


@each_verb
def test_the_table_of_options_agrees_with_click(verb):
    known = {option.name: option for option in click_of(verb).params}
    for name, kind in set(OPTIONS[verb].values()):
        option = known[name]
        assert isinstance(option, click.Option)
        assert not option.multiple
        assert option.nargs == 1
        assert option.callback is None
        assert option.envvar is None
        assert not option.is_eager
        assert option.is_flag == (kind == FLAG)
        if kind == TEXT:
            assert option.type is click.STRING
        elif kind == COUNT:
            assert isinstance(option.type, click.IntRange)
            assert option.type.min == 1
            assert option.type.max in {None, 2**31 - 1}
            assert not option.type.min_open
        elif isinstance(kind, tuple):
            assert isinstance(option.type, click.Choice)
            assert tuple(option.type.choices) == kind
        elif kind == DURATION_OR_ZERO:
            assert option.type.func is duration_or_zero
        elif kind != FLAG:
            assert option.type is DURATION
        written = {flag for flag, (its_name, _) in OPTIONS[verb].items() if its_name == name}
        assert written == {*option.opts, *option.secondary_opts}


def test_the_defaults_of_serve_are_those_that_click_shows():
    with click_of("serve").make_context("serve", []) as context:
        shown = context.params
    assert shown == {name: getattr(ServeOptions, name) for name in shown}


WORDS = ["sock", "-", "--", "", "x", "-x", "--help", "-h", "5", "1s", "0", "1m30s", "1e3", "-1"]
WORDS += ["2147483647", "2147483648", "+1", "1_0", "007", "\u0665", "text", "kill", "JSON", "lo"]


def words_for(verb: str):
    """Words of generated command lines: some valid, some invalid, some incomplete."""
    options = click_of(verb).params
    flags = [flag for option in options for flag in (*option.opts, *option.secondary_opts)]
    glued = [f"{flag}={value}" for flag in flags for value in ("", "1s", "a=b")]
    stuck = [f"{flag}1s" for flag in flags] + [flag[:-1] for flag in flags]
    return st.one_of(*map(st.sampled_from, (WORDS, sorted(OPTIONS[verb]), flags, glued, stuck)))


@each_verb
@settings(max_examples=3 * settings().max_examples)  # most command lines are not understood
@for_all(data=st.data())
def test_click_parses_each_command_line_of_the_fast_path_to_the_same_values(verb, data):
    words = data.draw(st.lists(words_for(verb), max_size=5))
    try:
        given = parse_simple(verb, words)
    except NeedsClick:
        return
    command = click_of(verb)
    with command.make_context(verb, list(words)) as context:
        for name, value in context.params.items():
            if name in given:
                assert given[name] == value
                source = context.get_parameter_source(name)
                assert source is click.core.ParameterSource.COMMANDLINE
        assert given.keys() <= context.params.keys()
        others = {name: context.params[name] for name in context.params.keys() - given.keys()}
    with command.make_context(verb, []) as context:
        assert others == {name: context.params[name] for name in others}


SEND = [
    [], ["-d", "x"], ["--data", "x y\xff"], ["--data=x"], ["-d", "-x"], ["--data-file", "FILE"],
    ["--data-file", "none"], ["--data-file=-"], ["-o", "-", "-d", "x"], ["-d", "x", "-o", "out"],
    ["-d", "x", "-o", "none/out"], ["-d", "x", "-o", "/dev/full"], ["--output=/dev/fd/1"],
    ["-m", "10m"], ["-m", "0", "-d", "x"], ["--max-time=1h", "-d", "x"], ["--wait", "1ms"],
    ["--wait", "0", "-d", "x"], ["--connect-timeout", "0", "-d", "x"],
    ["--connect-timeout=5m", "--wait=1h", "-m", "3000", "-d", "x"],
    # not plain: only click parses them
    ["-dx"], ["-d", ""], ["--data="], ["-d"], ["-d", "x", "-d", "y"], ["-d", "x", "--data-file=F"],
    ["-m", "x"], ["-m", "-1"], ["--bogus"], ["--dat", "x"], ["more"], ["--", "more"], ["-h"],
    ["--lines"], ["-d", "x", "--expect", "y"], ["-d", "x", "--expect", "x"], ["-j", "2"],
    ["-d", "x", "--no-progress"], ["-d", "x", "--spawn", " "],
]  # fmt: skip
PROBE = [
    [], ["-q"], ["--quiet"], ["-t", "1h"], ["--timeout=0"], ["--wait", "1ms"], ["--wait=0", "-q"],
    ["-q", "--wait", "5ms", "-t", "1000"],
    ["-q", "-q"], ["-qq"], ["--quiet=1"], ["-t"], ["-t", "x"], ["--wait-gone", "1ms"], ["-h"],
    ["-d", "x", "-t", "1h"], ["-d", "x", "--expect", "y", "-t", "1h"], ["--expect", "y"],
    ["a", "b"], ["-x"],
]  # fmt: skip
SERVE = [
    *(["--exec", " "], ["--exec", "x", "--worker", "y"], ["--call", ""], ["--exec"], ["-q"]),
    *(["--exec", "x", *words] for words in (
        ["--max-requests-per-worker", "1"], ["--max-wait=1s"], ["--whole-request", "--prestart=2"],
        ["--pid-file", "-"], ["--pid-file=f", "--log-file", "./f"], ["--stdio", "--count", "1"],
        ["--stdio"], ["--trace-file=-", "--background"], ["--mode=7"], ["--log-format", "xml"],
        ["--threads", "0"], ["--backlog=2147483648"], ["--kill-after", "x"], ["more"], ["--bogus"],
    )),
    *(["--call", "x:y", *words] for words in (["--handler-stderr", "log"], ["--prestart", "1"])),
]  # fmt: skip
NOT_SERVED = ["fails", "none", "stale", "file", "none/below", "n" * 300]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with all kinds of endpoints."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "file").write_bytes(b"y" * 100_000)
    stale_socket(folder / "stale")
    with ScriptedServer(folder / "served", echo), ScriptedServer(folder / "fails", cut_off):
        yield folder


def cut_off(connection) -> None:
    if connection.recv(1, socket.MSG_PEEK):  # a probe sends nothing
        connection.sendall(read_message(connection).removesuffix(b"0000"))


def outcome(folder, run, verb, words) -> tuple[int, bytes, bytes, bytes]:
    words = [str(folder / "file") if word == "FILE" else word for word in words]
    done = run(verb, *words, input=b"from standard input" * 20_000, cwd=folder)
    out = folder / "out"
    written = out.read_bytes() if out.exists() else b""
    out.unlink(missing_ok=True)
    # The number of packets before a truncation depends on how the input arrived.
    errors = re.sub(rb"after \d+ bytes", b"after some bytes", done.stderr)
    return done.returncode, done.stdout, errors, written


CASES = [
    *(("send", ["served", *words]) for words in SEND),
    *(("probe", ["served", *words]) for words in PROBE),
    *(("serve", ["new", *words]) for words in SERVE),
    *(("send", [place, "-d", "x"]) for place in NOT_SERVED),
    *(("send", [place]) for place in NOT_SERVED),
    *(("probe", [place]) for place in NOT_SERVED),
    *(("probe", ["-q", place]) for place in NOT_SERVED),
    *(("send", [place]) for place in ("", "-", "--")),
    *(("probe", [place]) for place in ("", "-", "--")),
    *((verb, []) for verb in ("send", "probe", "serve", "bogus", "--help", "--version")),
    ("-h", ["send"]),
]


@pytest.mark.parametrize(("verb", "words"), CASES)
def test_the_fast_path_and_click_give_the_same_result(places, verb, words, monkeypatch):
    short = outcome(places, run_cli, verb, words)
    assert b"Traceback" not in short[2]
    monkeypatch.setattr(cli, "fast_path", lambda _: None)
    assert short == outcome(places, run_cli, verb, words)


BY_CLICK = "import simpleipc_cli.cli as cli; cli.fast_path = lambda _: None; cli.main()"


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("send", ["served"]),
        ("probe", ["none"]),
        ("serve", ["file", "--exec", "cat"]),
        ("serve", ["new", "--exec", "cat", "--idle-timeout", "1ms", "-q"]),
        ("serve", ["new", "--exec", "cat", "--stdio"]),
    ],
)
def test_the_installed_command_gives_the_same_result_on_the_fast_path_and_with_click(
    places, verb, words
):
    def by_click(*arguments, **options):
        command = [sys.executable, "-c", BY_CLICK, *arguments]
        return subprocess.run(command, capture_output=True, env=environment(), **options)

    assert outcome(places, sipc, verb, words) == outcome(places, by_click, verb, words)


@pytest.mark.parametrize(
    "words",
    [
        ["send"], ["send", "sock"], ["send", "sock", "-d", "x"], ["send", "-d", "x", "sock"],
        ["send", "sock", "--data-file", "f", "-o", "out", "-m", "1s", "--wait", "5"],
        ["-h"], ["--help"],
        ["probe"], ["probe", "-q", "sock"], ["probe", "sock", "--wait", "10s", "-t", "1s"],
        ["serve", "--exec", "cat"], ["serve", "sock", "--worker=cat", "--threads", "2", "-v"],
        ["serve", "--background", "--pid-file", "f", "--log-format=json", "--kill-after", "0"],
    ],
)  # fmt: skip
def test_plain_forms_take_the_fast_path(words):
    assert fast_path(words) is not None


@pytest.mark.parametrize(
    "words",
    [
        [], ["--help", "send"], ["--help", "-x"],
        ["send", "-h"], ["send", "--help"], ["probe", "--help"], ["serve", "-h"],
        ["send", "a", "b"], ["send", "--lines"], ["bench", "sock"], ["sen", "sock"],
        ["serve", "--mode", "0600"], ["serve", "--threads", "0"], ["serve", "--log-format", "l"],
        ["probe", "sock", "-d", "x"], ["send", "-d", "x", "--data-file", "y"],
    ],
)  # fmt: skip
def test_the_fast_path_leaves_all_other_forms_to_click(words):
    assert fast_path(words) is None


def test_the_fast_path_leaves_completion_to_click(monkeypatch):
    monkeypatch.setenv("_SIPC_COMPLETE", "bash_source")
    assert fast_path(["send", "sock"]) is None
