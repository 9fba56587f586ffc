"""The layers of the package: imports only go down, and a small send loads nothing heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import simpleipc_cli

PACKAGE = Path(simpleipc_cli.__file__).parent

# From the top down. A package or module may import itself and those of lower layers, but not
# the others of its own layer.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"ondemand"},
    {"handlers", "bench"},
    {"server", "batch"},
    {"client"},
    {"spool", "watch"},
    {"message", "transport"},
    {"pktline", "endpoint", "deadline", "quoting"},
    {"errors", "pipes"},
    {"system"},
    {"signals_unix", "signals_windows"},
    {"system_windows"},
    {"buffers"},
]
LAYER_OF = {
    package: len(LAYERS) - number for number, layer in enumerate(LAYERS) for package in layer
}

MODULES = {
    str(path.relative_to(PACKAGE)): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}


def package_of(name: str) -> str:
    return Path(name).with_suffix("").parts[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports, wherever that stands; also by name, as import_module() does."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                raise AssertionError(f"line {node.lineno}: a relative import")
            case ast.Constant(value=str(text)) if re.match(r"simpleipc_cli\.\w", text):
                yield text


def packages_imported(tree: ast.AST) -> set[str]:
    names = (name.split(".") for name in imports(tree))
    return {parts[1] for parts in names if parts[0] == "simpleipc_cli"}


def names_used(tree: ast.AST) -> set[str]:
    """Every name a module imports or uses; attributes of names also in full, as in `os.name`."""
    used = {part for name in imports(tree) for part in (name, *name.split("."))}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
                used |= {attribute, f"{owner}.{attribute}"}
            case ast.Attribute(attr=attribute):
                used.add(attribute)
            case ast.Name(id=name):
                used.add(name)
    return used


def test_imports_are_found_anywhere_in_a_module():
    source = """
import simpleipc_cli.client
from simpleipc_cli import errors
if TYPE_CHECKING:
    from simpleipc_cli.server.server import Server
def later():
    from simpleipc_cli.spool import Spool
    import_module(f"simpleipc_cli.transport.{name}")
"""
    assert packages_imported(ast.parse(source)) == {
        "client",
        "errors",
        "server",
        "spool",
        "transport",
    }


def test_every_module_is_in_a_layer():
    assert [name for name in MODULES if package_of(name) not in LAYER_OF] == ["__init__.py"]


def test_modules_import_only_from_lower_layers():
    upwards = [
        f"{name} imports {known}"
        for name, tree in MODULES.items()
        for known in packages_imported(tree) - {package_of(name)}
        if LAYER_OF[known] >= LAYER_OF.get(package_of(name), 0)
    ]
    assert upwards == []


@pytest.mark.parametrize(
    ("package", "other"),
    [
        ("batch", "bench"),
        ("message", "transport"),
        ("transport", "message"),
        ("transport", "pktline"),
        ("server", "handlers"),
        ("server", "bench"),
        ("handlers", "bench"),
        ("pktline", "transport"),
        ("client", "server"),
        ("client", "watch"),
        ("server", "watch"),
        ("handlers", "watch"),
        ("watch", "message"),
    ],
)
def test_packages_that_must_not_know_each_other_do_not(package, other):
    known = {name for name in MODULES if package_of(name) == package}
    assert known
    assert [name for name in known if other in packages_imported(MODULES[name])] == []


OF_THE_COMMAND_LINE = {
    *("click", "rich"),
    *("environ", "environb", "getenv", "getenvb", "putenv", "unsetenv", "expandvars", "expanduser"),
    *("exitcodes", "ExitCode", "SystemExit", "sys.exit", "sys.argv"),
}
OF_THE_PLATFORM = {
    *("sys.platform", "os.name", "platform", "os.uname", "sys.getwindowsversion"),
}


def users_of(names: set[str], modules) -> dict[str, set[str]]:
    """Those modules that use any of the names, and which."""
    found = {name: names_used(MODULES[name]) & names for name in modules}
    return {name: used for name, used in found.items() if used}


def test_only_the_command_line_knows_click_rich_environment_and_exit_codes():
    others = [name for name in MODULES if package_of(name) != "cli"]
    assert users_of(OF_THE_COMMAND_LINE, others) == {}


# One for each of what differs: transports, processes, and files and users.
FRONTS = {"transport/__init__.py", "handlers/__init__.py", "system.py"}


def test_only_three_modules_ask_for_the_platform():
    assert users_of(OF_THE_PLATFORM, MODULES.keys() - FRONTS) == {}


def questions_about_the_system(tree: ast.AST) -> list[str]:
    """Where a module looks whether the system has something, or tries to import what may not be."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="hasattr"), args=[ast.Name(id=owner), _]):
                if owner.strip("_") in {"os", "signal", "socket", "select", "time"}:
                    found.append(f"line {node.lineno}: hasattr({owner}, ...)")
            case ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id=owner), _, _]):
                if owner.strip("_") in {"os", "signal", "socket", "select", "time"}:
                    found.append(f"line {node.lineno}: getattr({owner}, ..., default)")
            case ast.ExceptHandler(type=ast.Name(id="ImportError" | "ModuleNotFoundError")):
                found.append(f"line {node.lineno}: except ImportError")
    return found


# Which C library this is can only be found out by asking it for what it has.
ASKS_ITS_C_LIBRARY = "handlers/posix_spawn.py"
OF_ONE_SYSTEM = {"system_windows.py"}


def test_no_other_module_asks_what_the_system_has():
    others = MODULES.keys() - FRONTS - OF_ONE_SYSTEM - {ASKS_ITS_C_LIBRARY}
    questions = {name: questions_about_the_system(MODULES[name]) for name in others}
    assert {name: asked for name, asked in questions.items() if asked} == {}


def test_questions_about_the_system_are_found():
    source = """
if hasattr(os, "fork"): getattr(_signal, "SIGHUP", 1)
try: import fcntl
except ImportError: pass
getattr(signal, name)
"""
    assert len(questions_about_the_system(ast.parse(source))) == 3


OF_UNIX = {"fcntl", "termios", "pwd", "grp", "resource", "pty", "tty", "syslog"}
OF_WINDOWS = {"_winapi", "_overlapped", "msvcrt", "winreg", "nt"}


def modules_loaded_at_once(tree: ast.Module) -> set[str]:
    """Whole modules that one imports when it is loaded itself, not only when one is called."""
    nodes = list(tree.body)
    for node in nodes:
        if isinstance(node, (ast.Try, ast.If)):
            nodes += [*node.body, *node.orelse]
    found = (node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)))
    return {name.split(".")[0] for node in found for name in imports(node)}


# Modules that import these are loaded by a front, and only on the system that has them.
UNIX_ALONE = {
    *("handlers/pipes.py", "server/pidfile.py"),
    *(f"transport/unix_{name}.py" for name in ("inspect", "listen", "start_lock")),
}


def test_modules_of_one_system_are_imported_by_its_own_modules():
    loaded = {name: modules_loaded_at_once(tree) for name, tree in MODULES.items()}
    assert [name for name in loaded if loaded[name] & OF_UNIX and name not in UNIX_ALONE] == []
    assert [name for name in loaded if loaded[name] & OF_WINDOWS] == []


# What a small send loads

HEAVY = """
    click rich typing dataclasses enum socket select threading tempfile subprocess re logging
""".split()


def modules_loaded_by(statement: str) -> set[str]:
    """What a statement loads into a bare interpreter: no site, no environment."""
    program = f"""
import sys
sys.path.insert(0, {str(PACKAGE.parent)!r})
before = set(sys.modules)
{statement}
print(*set(sys.modules) - before)
"""
    bare = [sys.executable, "-I", "-S", "-c", program]
    return set(subprocess.run(bare, check=True, capture_output=True, text=True).stdout.split())


@pytest.fixture(scope="module")
def loaded_by_client():
    return modules_loaded_by("import simpleipc_cli.client")


def test_loaded_modules_are_found():
    assert {"enum", "re"} <= modules_loaded_by("import re")


def test_the_client_loads_what_an_exchange_needs(loaded_by_client):
    packages = {"client", "message", "transport", "pktline", "deadline", "errors"}
    assert {f"simpleipc_cli.{package}" for package in packages} <= loaded_by_client


def test_the_client_loads_nothing_heavy(loaded_by_client):
    assert set(HEAVY) & loaded_by_client == set()


def test_the_client_loads_no_package_it_does_not_need(loaded_by_client):
    packages = ["cli", "ondemand", "handlers", "server", "spool", "endpoint"]
    assert {f"simpleipc_cli.{package}" for package in packages} & loaded_by_client == set()
