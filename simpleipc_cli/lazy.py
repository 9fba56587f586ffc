"""Names that a package exports but loads only when they are first used (PEP 562).

A client that sends one small request must not spend time on importing the server's modules.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_exports(package: str, exports: Mapping[str, str]) -> Callable[[str], object]:
    """Return a package's `__getattr__`. `exports` maps each name to `module` or `module:name`.

    Module names are relative to `simpleipc_cli`.
    """

    def load(name: str) -> object:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415 - the fast path does not need it

        module, _, attribute = exports[name].partition(":")
        return getattr(import_module(f"simpleipc_cli.{module}"), attribute or name)

    return load
