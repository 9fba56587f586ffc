"""Programs that have a Server."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.command import environment, read_line

PROGRAM = """\
import asyncio, os, signal, sys, threading, time
from simpleipc_cli import Server
path = sys.argv[1]
def answer(request):
    if request == b"sleep":
        time.sleep(1000)
    return request[::-1]
async def sleep_later(request):
    if request == b"sleep":
        await asyncio.to_thread(time.sleep, 1000)
    return request[::-1]
async def read_later(request, reply):
    await reply.write((await request.read())[::-1])
def say(text):
    print(text, flush=True)
"""


@pytest.fixture
def run(folder, endpoint):
    """Starts a program with a server at the endpoint; waits for the first line that it prints."""
    started = []

    def start(text, **options):
        program = folder / "program.py"
        program.write_text(PROGRAM + text)
        process = subprocess.Popen(
            [sys.executable, "-I", program, endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            **options,
        )
        started.append(process)
        assert read_line(process) == "ready\n", process.communicate()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
