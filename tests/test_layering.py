"""The architecture: which module may import which, and what a small `send` loads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import simpleipc_cli

PACKAGE = Path(simpleipc_cli.__file__).parent

# A module or package imports itself and what stands above it in this list.
LAYERS = """
    lazy errors deadline pktline text system spool transport observe endpoint client server
    process handlers batch bench autostart api cli __main__
""".split()

MODULES = {
    str(path.relative_to(PACKAGE)): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}


def layer_of(name: str) -> str:
    return Path(name).with_suffix("").parts[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield each imported name, wherever the import stands; also names given to import_module()."""
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


def layers_imported(tree: ast.AST) -> set[str]:
    names = (name.split(".") for name in imports(tree))
    return {parts[1] for parts in names if parts[0] == "simpleipc_cli" and len(parts) > 1}


def names_used(tree: ast.AST) -> set[str]:
    """Return every name that a module imports or uses; attributes of names also as `os.name`."""
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


def test_the_check_finds_imports_in_every_place():
    source = """
import simpleipc_cli.client
from simpleipc_cli import errors
if TYPE_CHECKING:
    from simpleipc_cli.server.server import Server
def later():
    from simpleipc_cli.spool import Spool
    import_module(f"simpleipc_cli.transport.{name}")
"""
    expected = {"client", "errors", "server", "spool", "transport"}
    assert layers_imported(ast.parse(source)) == expected


def test_every_module_belongs_to_a_layer():
    assert [name for name in MODULES if layer_of(name) not in LAYERS] == ["__init__.py"]


def test_a_module_imports_only_lower_layers():
    upwards = [
        f"{name} imports {imported}"
        for name, tree in MODULES.items()
        if name != "__init__.py"
        for imported in layers_imported(tree) - set(LAYERS[: LAYERS.index(layer_of(name)) + 1])
    ]
    assert upwards == []


def dotted(name: str) -> str:
    return ".".join(("simpleipc_cli", *Path(name).with_suffix("").parts)).removesuffix(".__init__")


def import_graph(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Map each module to those it imports, under TYPE_CHECKING and in functions, too."""
    known = {dotted(name) for name in modules}
    graph = {}
    for name, tree in modules.items():
        found = set()
        for imported in imports(tree):
            if imported in known:
                found.add(imported)
            elif not imported.endswith(".") and (parent := imported.rpartition(".")[0]) in known:
                found.add(parent)  # a name of that module; import_module()'s prefix ends with a dot
        graph[dotted(name)] = found - {dotted(name)}
    return graph


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_import_cycle_exists():
    assert cycle_in(import_graph(MODULES)) == []


def test_the_check_finds_an_import_cycle():
    sources = {
        "a.py": "from simpleipc_cli.b import x",
        "b.py": "if TYPE_CHECKING:\n    from simpleipc_cli import c",
        "c.py": "def f():\n    from simpleipc_cli.a import y",
    }
    modules = {name: ast.parse(source) for name, source in sources.items()}
    assert len(cycle_in(import_graph(modules))) == 4


OF_THE_COMMAND_LINE = {
    *("click", "rich"),
    *("environ", "environb", "getenv", "getenvb", "putenv", "unsetenv", "expandvars", "expanduser"),
    *("exitcodes", "ExitCode", "SystemExit", "sys.exit", "sys.argv"),
}
OF_THE_PLATFORM = {
    *("sys.platform", "os.name", "platform", "os.uname", "sys.getwindowsversion"),
}


def modules_that_use(names: set[str], modules) -> dict[str, set[str]]:
    """Map those modules that use any of the names to the names that they use."""
    found = {name: names_used(MODULES[name]) & names for name in modules}
    return {name: used for name, used in found.items() if used}


def test_only_the_command_line_knows_click_rich_environment_and_exit_codes():
    names = OF_THE_COMMAND_LINE
    others = [name for name in MODULES if layer_of(name) not in {"api", "cli"}]
    # A callback, or its module, may raise SystemExit, which must end nothing but that.
    callbacks = {"handlers/callback.py", "handlers/callback_streams.py"}
    assert modules_that_use(names, set(others) - callbacks) == {}
    assert modules_that_use(names - {"SystemExit"}, callbacks) == {}
    # The default endpoint and $TMPDIR are the same for programs as for `sipc`.
    api = [name for name in MODULES if layer_of(name) == "api"]
    assert modules_that_use(names - {"environ"}, api) == {}


# The packages that differ between operating systems: each picks its modules in one place.
SELECTORS = {"transport/__init__.py", "process/__init__.py", "system/__init__.py"}
# A selector loads these, and only on POSIX systems, which differ in what they have.
POSIX_ONLY = ("process/posix/", "transport/unix/", "system/posix")


def test_only_three_modules_and_those_of_posix_systems_check_the_platform():
    others = [name for name in MODULES.keys() - SELECTORS if not name.startswith(POSIX_ONLY)]
    assert modules_that_use(OF_THE_PLATFORM, others) == {}


def feature_probes(tree: ast.AST) -> list[str]:
    """List the places where a module asks whether the system has a feature."""
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


def test_no_other_module_probes_for_features_of_the_system():
    others = MODULES.keys() - SELECTORS - {"system/windows.py"}
    probes = {name: feature_probes(MODULES[name]) for name in others}
    probes = {name: probes[name] for name in probes if not name.startswith(POSIX_ONLY)}
    assert {name: found for name, found in probes.items() if found} == {}


def test_the_check_finds_probes_for_features():
    source = """
if hasattr(os, "fork"): getattr(_signal, "SIGHUP", 1)
try: import fcntl
except ImportError: pass
getattr(signal, name)
"""
    assert len(feature_probes(ast.parse(source))) == 3


OF_UNIX = {"fcntl", "termios", "pwd", "grp", "resource", "pty", "tty", "syslog"}
OF_WINDOWS = {"_winapi", "_overlapped", "msvcrt", "winreg", "nt"}


def modules_loaded_at_once(tree: ast.Module) -> set[str]:
    """Return the modules imported when this one is loaded, not those imported by its functions."""
    nodes = list(tree.body)
    for node in nodes:
        if isinstance(node, (ast.Try, ast.If)):
            nodes += [*node.body, *node.orelse]
    found = (node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)))
    return {name.split(".")[0] for node in found for name in imports(node)}


def test_modules_of_one_system_are_imported_only_there():
    loaded = {name: modules_loaded_at_once(tree) for name, tree in MODULES.items()}
    posix = [name for name in loaded if loaded[name] & OF_UNIX]
    assert [name for name in posix if not name.startswith(POSIX_ONLY)] == []
    assert [name for name in loaded if loaded[name] & OF_WINDOWS] == []


# What a small send loads

HEAVY = """
    click rich typing dataclasses enum socket select threading tempfile subprocess re logging
""".split()


def modules_loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads into a bare interpreter."""
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
    return modules_loaded_by("import simpleipc_cli.client, simpleipc_cli.endpoint")


def test_the_check_finds_modules_that_are_loaded():
    assert {"enum", "re"} <= modules_loaded_by("import re")


def test_the_client_loads_the_modules_that_an_exchange_needs(loaded_by_client):
    needed = {"client", "transport", "pktline", "deadline", "errors"}
    assert {f"simpleipc_cli.{name}" for name in needed} <= loaded_by_client


def test_the_client_loads_no_large_module(loaded_by_client):
    assert set(HEAVY) & loaded_by_client == set()


def test_the_client_loads_no_other_layer(loaded_by_client):
    others = ["cli", "api", "autostart", "handlers", "process", "server", "spool"]
    assert {f"simpleipc_cli.{layer}" for layer in others} & loaded_by_client == set()


def test_the_package_loads_no_other_module():
    own = {"__future__", "simpleipc_cli", "simpleipc_cli.lazy"}
    assert modules_loaded_by("import simpleipc_cli") == own


def test_a_send_by_a_program_loads_no_large_module():
    loaded = modules_loaded_by("from simpleipc_cli import connect, send")
    assert "simpleipc_cli.api.client" in loaded
    heavy = set(HEAVY) - {"select", "typing"}
    assert loaded & {*heavy, "simpleipc_cli.spool", "simpleipc_cli.process"} == set()
