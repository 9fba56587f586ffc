"""The types of the public API."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


def test_a_type_checker_checks_programs_that_use_the_package(folder):
    pytest.importorskip("mypy", reason="needs mypy: pip install '.[check]'")
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    note, error, summary = done.stdout.splitlines()
    assert note.endswith('Revealed type is "int | None"')
    assert error.startswith(f"program.py:{len(PROGRAM.splitlines())}: error: Argument 2")
    assert summary.startswith("Found 1 error in 1 file ")
