"""The exports of `simpleipc_cli`: the names, their types, and the text of `pydoc`."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import simpleipc_cli
from simpleipc_cli import client, errors

PUBLIC = [
    getattr(simpleipc_cli, name)
    for name in simpleipc_cli.__all__
    if inspect.isfunction(getattr(simpleipc_cli, name))
]
PUBLIC += [
    method
    for kind in (simpleipc_cli.Connection,)
    for name, method in vars(kind).items()
    if inspect.isfunction(method) and not name.startswith("_")
]


def test_all_errors_are_exported():
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.SipcError)
    }
    assert kinds <= set(simpleipc_cli.__all__)
    assert simpleipc_cli.TimedOut is errors.TimedOut


def test_all_exported_names_exist():
    assert set(simpleipc_cli.__all__) <= set(dir(simpleipc_cli))
    for name in simpleipc_cli.__all__:
        assert getattr(simpleipc_cli, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = simpleipc_cli.missing


def test_the_states_have_the_names_that_the_command_prints():
    words = {word for _, word in client._STATES} | {"listening", "other error"}
    assert {f"{state}" for state in simpleipc_cli.State} == words


def test_no_hint_of_an_error_names_an_option_of_the_command():
    kinds = [getattr(simpleipc_cli, name) for name in simpleipc_cli.__all__]
    hints = [kind.hint for kind in kinds if inspect.isclass(kind) and hasattr(kind, "hint")]
    assert any(hints)
    assert [hint for hint in hints if "--" in hint] == []


@pytest.mark.parametrize("function", PUBLIC, ids=lambda function: function.__qualname__)
def test_the_docstring_of_each_function_describes_each_argument(function):
    text = inspect.getdoc(function)
    assert text.splitlines()[0].endswith(".")
    for name in inspect.signature(function).parameters:
        assert name in {"self", "data"} or f"\n{name}: " in text or "Arguments are those" in text


def test_pydoc_describes_all_exported_names(folder):
    command = [sys.executable, "-m", "pydoc", "simpleipc_cli"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name in simpleipc_cli.__all__:
        assert f"class {name}(" in done.stdout or f"\n    {name}(" in done.stdout


def test_the_result_of_a_probe_does_not_change(folder):
    result = simpleipc_cli.probe(folder / "missing")
    with pytest.raises(AttributeError):
        result.pid = 1
    assert hash(result) == hash(simpleipc_cli.ProbeResult(**vars(result)))
