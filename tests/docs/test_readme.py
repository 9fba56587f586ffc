"""The README's commands, run as a new user runs them; the man pages' workers and handlers."""

from __future__ import annotations

import plistlib
import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from helpers.command import SIPC, environment, needs_root
from helpers.paths import ROOT
from helpers.procfs import children
from helpers.server import Server
from helpers.soak import soak
from helpers.socket_activation import SocketManager, start_with_sockets
from helpers.sshd import SSHD, Sshd
from helpers.waiting import TIMEOUT
from helpers.wire import ask

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)

OVER_SSH = next(block for block in BLOCKS if block.startswith("ssh "))
SYSTEMD = next(block for block in BLOCKS if "systemd-analyze" in block)
LAUNCHD = next(block for block in BLOCKS if "plutil" in block)
EACH = next(block for block in BLOCKS if "Accept=yes" in block)
ELSEWHERE = [OVER_SSH, SYSTEMD, LAUNCHD, EACH]
"""Recipes that need root, systemd or macOS: each has a separate test."""


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    process = subprocess.Popen(
        ["bash", "-c", "set -eu -o pipefail -m\n" + script],
        cwd=folder,
        env=environment(XDG_RUNTIME_DIR=str(folder)),  # not the directory of a real server
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=2 * TIMEOUT)
    except subprocess.TimeoutExpired:
        subprocess.run(["pkill", "-KILL", "-s", str(process.pid)])
        raise
    return subprocess.CompletedProcess(script, process.returncode, output, errors)


def replaced(script: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in script
        script = script.replace(old, new)
    return script


def with_longer_waits(script: str) -> str:
    """Return a script with timeouts for a busy machine."""
    return replaced(script, {"--wait 10s": f"--wait {TIMEOUT}s"})


def test_two_commands_of_the_readme_do_the_whole_setup():
    first, tests = BLOCKS[:2]
    for command in (first, tests):
        assert command.count("\n") == 1, "one line each"
        assert "python3 -m venv --upgrade-deps .venv" in command
    assert tests.endswith(".venv/bin/pytest -n 4 -m 'not soak and not performance'\n")


def test_the_first_command_prints_a_response(folder, script):
    """The commands that install are replaced, as everything is installed."""
    script("#!/bin/sh\n", "apt-get")
    script("#!/bin/sh\n", "pip")
    script(
        f"#!/bin/sh\n[ \"$*\" = '-m venv --upgrade-deps .venv' ] && mkdir -p .venv/bin && "
        f"cp {folder}/pip .venv/bin && ln -s {SIPC} .venv/bin\n",
        "python3",
    )
    done = run(f"PATH={folder}:$PATH\n{with_longer_waits(BLOCKS[0])}", folder)
    assert (done.returncode, done.stdout) == (0, "HELLO\n"), done.stderr


@needs_root
@pytest.mark.soak
def test_the_first_command_installs_sipc_and_prints_a_response(folder):
    """This takes half a minute."""
    left_out = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, folder, ignore=left_out, dirs_exist_ok=True)
    done = run(with_longer_waits(BLOCKS[0]), folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HELLO", done.stderr
    assert (folder / ".venv/share/man/man1/sipc.1").exists()


def test_the_man_page_shows_the_tested_handler_for_git():
    handler = (ROOT / "tests/interop/fsmonitor.sh").read_text()
    page = (ROOT / "man/sipc-protocol.7").read_text()
    assert handler.replace("\\", "\\e").replace("-", "\\-") in page


SIZES = {"10000000": "100000", "-z 2s": "-n 20", "-n 1000 ": "-n 20 "}
"""Sizes and times in the recipes, and smaller ones for a test."""


INDEPENDENT_OF_SPEED = {
    "p99>200ms": "p50>1h",  # also, 20 requests have no p99
    "--spawn ": "--wait 1h --spawn ",
    "probe demo.sock -d ": "probe -t 0 demo.sock -d ",
}


@pytest.mark.parametrize("is_short", [True, soak(False)])
def test_the_recipes_of_the_readme_work(folder, is_short):
    script = with_longer_waits("".join(block for block in BLOCKS[2:] if block not in ELSEWHERE))
    script = replaced(script, INDEPENDENT_OF_SPEED)
    done = run(replaced(script, SIZES) if is_short else script, folder)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    size = ", 20 requests, .*" if is_short else ", .* for 2.00 s"
    assert lines[:3] == ["quick.sock: listening", "got: good morning", "demo.sock: listening"]
    assert re.fullmatch(r"client \d+ sent: good morning", lines[3])
    assert lines[4:6] == ["the server is listening", "demo.sock: listening, answered as expected"]
    assert lines[6].startswith('{"path": "demo.sock", "state": "listening"')
    assert lines[7:9] == ["status 4", "status 10"]
    assert [line.rpartition(" ")[2] for line in lines[9:12]] == ["one", "two", "three"]
    assert lines[12:14] == ["FIRST", "SECOND"]
    assert lines[14:16] == ["demo.sock: listening", "front.sock: listening"]
    assert lines[16].endswith("sent: through the proxy")
    assert lines[17].endswith("sent: ping")
    del lines[14:16]
    assert lines[16].startswith("= connected for request")
    assert lines[17:19] == ['> sent 0015 (21 bytes): "through the proxy"', "> sent 0000: flush"]
    assert lines[21].startswith("= closed: ")
    loads = [line for line in lines if line.startswith("load ")]
    assert re.search(f"closed loop, at most 4 at once{size}$", loads[0])
    assert re.search(rf"open loop, 100/s offered, at most \d+ at once{size}$", loads[1])
    after = lines[lines.index("UNO") :]
    assert after[:4] == ["UNO", "DUE", "TRE", "HELLO FROM PYTHON"]
    assert after[5].startswith("1 passed")
    assert lines[-4].endswith("sent: good evening")
    assert lines[-3:] == ["demo.sock: path not found", "status 4", "6"]
    assert (folder / "response.bin").read_bytes().startswith(b"client ")
    assert (folder / "report.html").stat().st_size > 1000


@needs_root
@pytest.mark.skipif(SSHD is None, reason="needs sshd: apt-get install openssh-server")
def test_the_recipe_for_ssh_connects_to_another_machine(folder):
    path, remote = "/run/demo/demo.sock", folder / "there.sock"
    assert path in OVER_SSH
    place = folder / "ssh"
    place.mkdir()
    with Sshd(place) as sshd, Server(remote, "cat"):
        sshd.wrapper(place)
        recipe = OVER_SSH.replace(path, str(remote)).replace("you@", "")
        done = run(f"PATH={place}:$PATH\n{recipe}", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "good morning over there"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_systemd_accepts_the_units(folder, script):
    """Warnings do not change its exit status, so standard error must be empty."""
    script("#!/bin/sh\n")
    for block in (SYSTEMD, EACH):
        done = run(block, folder)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "Unknown key 'KilMode'" in run(SYSTEMD.replace("KillMode", "KilMode"), folder).stderr


def test_the_units_start_a_server_that_answers(folder, script):
    script("#!/bin/sh\necho you said: $(cat)\n")
    assert run(SYSTEMD.replace("systemd-analyze verify", "cat"), folder).returncode == 0
    units = (folder / "demo.socket").read_text() + (folder / "demo.service").read_text()
    unit = dict(re.findall(r"^(\w+)=(.*)$", units, re.M))
    assert (unit["Type"], unit["ListenStream"]) == ("notify", "/run/demo.sock")
    with (
        SocketManager(str(folder / "sock")) as manager,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
    ):
        notified.bind(str(folder / "notify"))
        notified.settimeout(TIMEOUT)
        env = environment(NOTIFY_SOCKET=str(folder / "notify"))
        with start_with_sockets(shlex.split(unit["ExecStart"]), manager.socket, env=env) as server:
            assert notified.recv(100).startswith(b"READY=1\n")
            assert ask(folder / "sock", b"hello") == (b"you said: hello\n", True)
            server.terminate()
            assert server.wait(TIMEOUT) == 0


def test_the_property_list_for_launchd_starts_a_server_that_answers(folder, script):
    """launchd starts the program with these arguments, in "/", and ends it with SIGTERM."""
    script("#!/bin/sh\necho you said: $(cat)\n")
    script("#!/bin/sh\n", "plutil")
    done = run(f"export HOME={folder} PATH={folder}:$PATH\n{LAUNCHD}", folder)
    assert done.returncode == 0, done.stderr
    (name,) = re.findall(r"^plutil -lint (\S+)$", LAUNCHD, re.M)
    job = plistlib.loads((folder / name).read_bytes(), fmt=plistlib.FMT_XML)
    program, verb, path, *options = job.pop("ProgramArguments")
    assert job == {
        "Label": name.removesuffix(".plist"),
        "KeepAlive": True,
        "ExitTimeOut": 30,
        "StandardErrorPath": str(folder / "demo.log"),
    }
    assert (program, verb, path) == (SIPC, "serve", str(folder / "demo.sock"))
    with Server(path, None, *options, cwd="/") as server:
        assert ask(path, b"hello") == (b"you said: hello\n", True)
        assert server.stop() == 0


EXAMPLES = (ROOT / "man/sipc-serve.1").read_text().replace("\\-", "-").replace("\\e", "\\")
STARTS = {"#!/usr/bin/env python3": "worker.py", "#!/usr/bin/env perl": "worker.pl"}
STARTS |= {"#!/usr/bin/env node": "worker.js", "#!/bin/sh\nexport LC_ALL": "worker.sh"}
LITERALS = re.findall(r"^\.Bd -literal -offset indent\n(.*?)^\.Ed$", EXAMPLES, re.M | re.S)
WORKERS = {
    name: text for text in LITERALS for start, name in STARTS.items() if text.startswith(start)
}
PROGRAMS = {"worker.sh": "sh", "worker.py": "python3", "worker.pl": "perl", "worker.js": "node"}
TEXTS = ["", "one", "two\nlines\n\n", "0000", "x" * 65_000]
LONG = ["y" * 1_000_000, "z" * (65_516 * 2)]


def test_the_readme_has_a_short_worker_for_each_language():
    assert set(WORKERS) == set(PROGRAMS)
    assert all(text.count("\n") <= 20 for text in WORKERS.values())


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_worker_answers_several_requests(name, script, endpoint):
    if shutil.which(PROGRAMS[name]) is None:
        pytest.skip(f"there is no {PROGRAMS[name]}")
    worker = script(WORKERS[name], name)
    with Server(endpoint, None, "--worker", worker, "--threads", 1) as server:
        for text in TEXTS + (LONG if name != "worker.sh" else []):
            assert ask(endpoint, text.encode()) == (text.upper().encode(), True)
        assert len(children(server.pid)) == 1
        assert "replac" not in server.log
        server.stop()


def test_every_verb_is_in_the_readme_and_every_command_in_a_block():
    for verb in ("serve", "send", "probe", "bench"):
        assert f"sipc {verb}" in "".join(BLOCKS)
    outside = re.sub(r"^```sh\n.*?^```$", "", README, flags=re.M | re.S)
    assert set(re.findall(r"`sipc ([^`]*)`", outside)) == {"--help", "VERB --help"}


def test_the_readme_is_short():
    assert README.count("\n") <= 420
    assert README.partition("\n## How it works\n")[2].count("\n") <= 80


def test_the_files_that_the_readme_names_exist():
    part = README.partition("\n## How it works\n")[2].replace("VERB", "send")
    names = set(re.findall(r"`([\w/.]+(?:\.py|/))`", part))
    assert len(names) > 10
    package = ROOT / "simpleipc_cli"
    folders = (ROOT, package, package / "transport", package / "process")
    assert {n for n in names if not any((folder / n).exists() for folder in folders)} == set()
