"""How long a module and a function may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.paths import TESTS

import simpleipc_cli

PACKAGE = Path(simpleipc_cli.__file__).parent
MAX_MODULE = 450
MAX_FUNCTION = 59


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each function and its number of lines, without its decorators.

    The decorators of a click command are its options: a table, and no code.
    """
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno + 1 - node.lineno


@pytest.mark.parametrize("folder", [PACKAGE, TESTS], ids=["package", "tests"])
def test_no_module_is_too_long(folder):
    lengths = {path: path.read_text().count("\n") for path in folder.rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > MAX_MODULE} == {}


def test_no_function_is_too_long():
    too_long = [
        f"{path.relative_to(PACKAGE)}: {name}: {length}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for name, length in functions(ast.parse(path.read_text()))
        if length > MAX_FUNCTION
    ]
    assert too_long == []


def test_the_length_of_a_function_includes_nested_functions_but_no_decorators():
    source = "@first\n@second\ndef f():\n    def g():\n        pass\n\n    return g\n"
    assert dict(functions(ast.parse(source))) == {"f": 5, "g": 2}
