"""`sipc serve --call` under Wine: a Python function in the server's own process answers."""

from __future__ import annotations

import pytest
from helpers.waiting import TIMEOUT, wait_until
from helpers.wine import windows_path

MODULE = '''\
"""Callbacks of each kind."""
import asyncio, time

def answer(request):
    if request == b"fail":
        raise ValueError("as asked")
    if request == b"print":
        print("printed", flush=True)
    if request == b"sleep":
        print("asleep", flush=True)
        time.sleep(1000)
    return request[::-1]

def stream(request, reply):
    reply.write(answer(request.read()))

async def answer_later(request):
    return await asyncio.to_thread(answer, request)

async def stream_later(request, reply):
    await reply.write(await asyncio.to_thread(answer, await request.read()))

def none(): pass
'''
KINDS = ["answer", "stream", "answer_later", "stream_later"]


@pytest.fixture
def path(folder):
    return windows_path(folder / "sock")


@pytest.fixture
def module(wine, folder):
    """The name of a module that is in the working directory."""
    file = wine.folder / f"callbacks_{folder.name.replace('-', '_')}.py"
    file.write_text(MODULE)
    yield file.stem
    file.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_callback_answers(wine, path, module, kind):
    with wine.server(path, "--call", f"{module}:{kind}", "--quit-on", "quit") as server:
        request = bytes(range(256)) * 2000
        assert wine.sipc("send", path, input=request).raw == request[::-1]
        assert wine.sipc("send", path, "-d", "fail").status == 7
        assert wine.sipc("send", path, "-d", "print").out == "tnirp"
        server.wait_for_log("^printed")
        assert 'raise ValueError("as asked")' in server.log
        assert wine.sipc("send", path, "-d", "quit").status == 0
        assert server.wait() == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing_module:answer", "cannot import"), ("{}:none", "wrong parameters")],
    ids=["missing", "parameters"],
)
def test_what_cannot_be_called_is_one_line(wine, path, module, name, words):
    ran = wine.sipc("serve", path, "--call", name.format(module))
    assert ran.status == 1
    assert words in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_ends_a_server_whose_callback_hangs(wine, path, module, kind):
    options = ("--call", f"{module}:{kind}", "--drain-timeout", "0.1")
    with wine.terminal("serve", path, *options) as (program, tty):
        tty.wait_for(b"listening on")
        client = wine.start("pipe_client.py", "raw", path, "0009sleep0000")
        tty.wait_for(b"asleep")
        tty.type(b"\x03")
        assert program.wait(TIMEOUT) == 130
        assert client.communicate(timeout=TIMEOUT)[0].strip() == b"b''"


def test_a_background_server_calls(wine, path, module, folder):
    options = ("--call", f"{module}:answer", "--quit-on", "quit", "--background", "-q")
    log = folder / "log"
    server = wine.start("run_sipc.py", "serve", path, *options, "--log-file", windows_path(log))
    with server:
        assert server.wait(TIMEOUT) == 0
        for stream in (server.stdin, server.stdout, server.stderr):
            stream.close()
    assert wine.sipc("send", path, "-d", "fail").status == 7
    wait_until(lambda: "ValueError: as asked" in log.read_text(), "the traceback")
    assert wine.sipc("send", path, "-d", "quit").status == 0
    assert wine.sipc("probe", "--wait-gone", f"{TIMEOUT}s", path).status == 0
