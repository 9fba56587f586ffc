"""The public API: its man page, its docstrings, and the programs of the README."""

from __future__ import annotations

import ast
import inspect
import os
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT

import simpleipc_cli

PAGE = (ROOT / "man/sipc-api.7").read_text().replace("\\-", "-")
PUBLIC = {name: getattr(simpleipc_cli, name) for name in simpleipc_cli.__all__}
SYNOPSIS = re.search(r"^\.Sh SYNOPSIS\n\.Bd -literal\n(.*?)^\.Ed", PAGE, re.M | re.S)[1]
PROGRAMS = re.findall(
    r"^cat >(\w+\.py) <<'EOF'\n(.*?)^EOF$", (ROOT / "README.md").read_text(), re.M | re.S
)
EXAMPLES = re.findall(
    r"^\.Bd -literal -offset indent\n(.*?)^\.Ed", PAGE.partition("\n.Sh EXAMPLES\n")[2], re.M | re.S
)
PROGRAM = """
import simpleipc_cli
from simpleipc_cli import SipcError, State, connect, ensure_running, probe, send

answer: bytes = send("demo.sock", bytearray(b"ping"), timeout=1, wait=2.5)
with connect(None) as connection:
    more: bool = connection.write(memoryview(answer))
    connection.finish()
    pieces: list[bytes] = list(connection)
found: State = probe("demo.sock").state
try:
    ensure_running("demo.sock", ["daemon", "--now"], env={})
except SipcError as error:
    hint: str = error.hint
reveal_type(simpleipc_cli.probe("x").pid)
send("demo.sock", "text")
"""


def parameters(function) -> str:
    """Return the parameters of a function, as they are called, without annotations."""
    signature = inspect.signature(function)
    bare = [
        parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def test_the_page_has_the_parameters_of_each_function():
    calls = re.findall(r"^(\w+)(\(.*?\))$", SYNOPSIS, re.M | re.S)
    assert {name for name, _ in calls} == {
        "send", "connect", "probe", "ensure_running", "Server"
    }  # fmt: skip
    for name, given in calls:
        text = re.sub(r"0o(\d+)", lambda found: str(int(found[1], 8)), " ".join(given.split()))
        assert text == parameters(PUBLIC[name]), name


def test_the_page_has_every_public_name_and_method():
    names = set(PUBLIC)
    for name in ("Connection", "Server"):
        names |= {method for method in vars(PUBLIC[name]) if not method.startswith("_")}
    words = set(re.findall(r"\w+", PAGE))
    assert names - words == set()


def test_the_page_has_each_routine_of_git():
    assert set(re.findall(r"ipc_(?:client|server|get)_\w+", PAGE)) == {
        *("ipc_get_active_state", "ipc_client_try_connect", "ipc_client_close_connection"),
        *("ipc_client_send_command_to_connection", "ipc_client_send_command"),
        *("ipc_server_application_cb", "ipc_server_reply_cb", "ipc_server_run"),
        *("ipc_server_run_async", "ipc_server_stop_async", "ipc_server_await", "ipc_server_free"),
    }


@pytest.mark.parametrize("name", PUBLIC)
def test_pydoc_describes_each_public_name(name):
    thing = PUBLIC[name]
    assert inspect.getdoc(thing)
    text = pydoc.plain(pydoc.render_doc(thing))
    assert "simpleipc_cli" in text
    if inspect.isclass(thing) and not issubclass(thing, BaseException):
        members = inspect.getmembers(thing, inspect.isfunction)
        undocumented = [
            method for method, it in members if not method.startswith("_") and not it.__doc__
        ]
        assert undocumented == []


def test_the_examples_have_no_type_errors(folder):
    pytest.importorskip("mypy", reason="needs mypy: pip install '.[check]'")
    programs = [*(text for _, text in PROGRAMS), *EXAMPLES]
    for number, text in enumerate(programs):
        (folder / f"example{number}.py").write_text(f"import zlib\n{text}")
    # The tests are not typed, as in most projects.
    strict = [name for name in os.listdir(folder) if "pytest" not in (folder / name).read_text()]
    assert len(strict) == len(programs) - 1
    for files, option in (strict, "--strict"), (os.listdir(folder), "--check-untyped-defs"):
        command = [sys.executable, "-m", "mypy", "--cache-dir", "cache", option, *files]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_type_checker_checks_programs_that_use_the_package(folder):
    pytest.importorskip("mypy", reason="needs mypy: pip install '.[check]'")
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    note, error, summary = done.stdout.splitlines()
    assert note.endswith('Revealed type is "int | None"')
    assert error.startswith(f"program.py:{len(PROGRAM.splitlines())}: error: Argument 2")
    assert summary.startswith("Found 1 error in 1 file ")


def test_examples_are_short():
    assert {name for name, _ in PROGRAMS} >= {"daemon.py", "client.py", "test_ping.py"}
    for text in [*(text for _, text in PROGRAMS), *EXAMPLES]:
        assert len([line for line in text.splitlines() if line]) <= 10
        ast.parse(text)


def test_the_package_says_that_it_has_types():
    assert Path(simpleipc_cli.__file__).with_name("py.typed").exists()
