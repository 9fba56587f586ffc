"""`sipc serve`, `send` and `probe` agree on paths, however long or unusual."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, assert_error_line, environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.inprocess_server import echo_server
from helpers.server import Server


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("", 5), ("missing/sock", 4), ("file/sock", 5), ("x" * 256, 5), (".", 5), ("sub/", 5),
        ("loop/sock", 5), ("d/" * 2500 + "sock", 5),
    ],
    ids=["empty", "no folder", "a file for a folder", "long name", "dot", "slash", "loop", "long"],
)  # fmt: skip
def test_a_path_that_no_socket_can_have_is_refused(folder, path, status):
    (folder / "file").touch()
    (folder / "sub").mkdir()
    (folder / "loop").symlink_to("loop")
    assert_error_line(run_cli("serve", path, "--exec", "cat", cwd=folder), status)
    assert sorted(os.listdir(folder)) == ["file", "loop", "sub"]


def long_path(folder, length: int) -> Path:
    """Make a folder for a socket; return a path of this length in it."""
    path = folder
    while len(str(path)) < length - 202:
        path /= "d" * 200
    rest = length - len(str(path)) - 1
    path = path / ("d" * (rest // 2)) / ("s" * (rest - rest // 2 - 1))
    assert len(str(path)) == length
    path.parent.mkdir(parents=True)
    return path


def test_every_verb_accepts_a_long_path(folder):
    path = long_path(folder, 4000)
    with Server(path, "cat"):
        assert sipc("probe", path).returncode == 0
        assert sipc("send", path, "-d", "hello").stdout == b"hello"
        assert_error_line(run_cli("serve", path, "--exec", "cat"), 9)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("length", [107, 108])
def test_every_verb_accepts_paths_around_the_length_of_the_longest_address(folder, length):
    path = long_path(folder, length)
    with echo_server(path):
        assert run_cli("probe", path).returncode == 0
        assert run_cli("send", path, "-d", "hello").stdout == b"hello"
        assert_error_line(run_cli("serve", path, "--exec", "cat"), 9)
    assert os.listdir(path.parent) == []


def test_every_verb_accepts_a_long_file_name(folder):
    path = "n" * 255
    with Server(path, "pwd", cwd=folder):
        assert sipc("probe", path, cwd=folder).returncode == 0
        assert sipc("send", path, "-d", "", cwd=folder).stdout.decode() == f"{folder}\n"
    assert os.listdir(folder) == []


@pytest.mark.parametrize("length", [250, 251, 255])
@pytest.mark.parametrize("relative", [True, False], ids=["relative", "absolute"])
def test_every_verb_accepts_file_names_around_the_longest(folder, monkeypatch, length, relative):
    monkeypatch.chdir(folder)
    path = "n" * length if relative else str(folder / ("n" * length))
    with echo_server(path):
        assert run_cli("probe", path, cwd=folder).returncode == 0
        assert run_cli("send", path, "-d", "hello", cwd=folder).stdout == b"hello"
    assert os.listdir(folder) == []


def test_a_file_name_may_be_any_bytes_and_is_shown_escaped(folder):
    path = os.fsdecode(os.fsencode(folder) + b"/new\nline\xff")
    done = sipc("probe", path)
    assert done.returncode == 4
    assert done.stdout.count(b"\n") == 1
    with Program([SIPC, "serve", path, "--exec", "cat"], stderr=subprocess.PIPE) as server:
        assert server.stderr.readline().endswith(b"new\\nline\\udcff\n")
        assert sipc("send", path, "-d", "hello").stdout == b"hello"
        server.terminate()


def test_clients_follow_a_symlink(shared_server, folder):
    (folder / "link").symlink_to(shared_server("cat").path)
    assert sipc("send", folder / "link", "-d", "hello").stdout == b"hello"


def test_server_and_client_have_the_same_default_endpoint(folder):
    env = environment(XDG_RUNTIME_DIR=str(folder))
    command = [SIPC, "serve", "--exec", "cat"]
    with Program(command, stderr=subprocess.PIPE, env=env) as server:
        assert server.stderr.readline() == b"listening on %s/sipc.sock\n" % os.fsencode(folder)
        assert run_cli("send", env=env, input=b"hello").stdout == b"hello"
        assert run_cli("probe", env=env).stdout == b"%s/sipc.sock: listening\n" % os.fsencode(
            folder
        )
        server.terminate()
        assert server.wait() == 0
    env["SIPC_PATH"] = str(folder / "other")
    assert run_cli("probe", env=env).stdout == b"%s/other: path not found\n" % os.fsencode(folder)
