"""A container with systemd as its first process, which runs the README's service."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from time import time

import pytest
from helpers.guardian import GUARDIAN
from helpers.paths import ROOT
from helpers.waiting import TIMEOUT, wait_until

HERE = Path(__file__).parent
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
HANDLER = re.search(r"^cat >handler\.sh .*?^chmod \+x handler\.sh\n", "".join(BLOCKS), re.M | re.S)[
    0
]
RECIPE = next(block for block in BLOCKS if "systemd-analyze" in block)
EACH = next(block for block in BLOCKS if "Accept=yes" in block)
HOME = "/home/demo"
UNITS = "/etc/systemd/system"


class Container:
    """A booted container; the end of the `with` or of this process ends it."""

    def __init__(self, root: str, log: Path, *options: str) -> None:
        self._log = log
        # The kernel chooses an abstract address that no container and no other run uses.
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind("")
        self._notified.setblocking(False)
        self._told = ""
        address = "@" + os.fsdecode(self._notified.getsockname()[1:])
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [HERE / "boot", root, *options],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                # Neither Ctrl-C nor the run's guardian ends it: it removes what it has made.
                env={**os.environ, "NOTIFY_SOCKET": address, GUARDIAN: "1"},
                start_new_session=True,
            )

    def __enter__(self) -> Container:
        try:
            wait_until(self._is_up, "the container to be up", 2 * TIMEOUT)
        except BaseException:
            self.__exit__()
            raise
        self.leader = int(re.search(r"^X_NSPAWN_LEADER_PID=(\d+)$", self._told, re.M)[1])
        self.root = Path(f"/proc/{self.leader}/root")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        status = self.process.wait(TIMEOUT)
        self._notified.close()
        assert status == 0, self._log.read_text(errors="replace")[-2000:]

    def _is_up(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(self._log.read_text(errors="replace")[-2000:].strip())
        try:
            self._told += self._notified.recv(4096).decode() + "\n"
        except BlockingIOError:
            return False
        return "READY=1" in self._told

    def run(self, *command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root, which must end with that status."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.leader), "--all", "--", *command],
            env={"PATH": "/opt/sipc/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * TIMEOUT,
        )
        assert done.returncode == status, (command, done)
        return done


class ServeRuntime:
    """The README's service in a container: sockets, state, log."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.path = container.root / "run/demo.sock"
        """The endpoint, as programs outside of the container reach it."""

    def systemctl(self, *arguments: str, status: int = 0) -> str:
        return self.container.run("systemctl", *arguments, status=status).stdout

    def show(self, name: str) -> str:
        """A property of the service, as `systemctl show` names it."""
        return self.systemctl("show", "--value", "-p", name, "demo.service").rstrip("\n")

    def is_active(self) -> bool:
        return self.show("ActiveState") == "active"

    def processes(self) -> list[int]:
        """Return the ids of the service's processes outside of the container."""
        groups = self.container.root / "sys/fs/cgroup"
        found: set[str] = set()
        for hierarchy in (groups, groups / "systemd"):
            try:
                file = hierarchy / "system.slice/demo.service/cgroup.procs"
                found.update(file.read_text().split())
            except OSError:
                pass  # another version of control groups, or no process has started
        return [int(number) for number in found]

    def answer_with(self, script: str) -> None:
        """Change the handler, for the next request."""
        (self.container.root / f"{HOME[1:]}/handler.sh").write_text(f"#!/bin/sh\n{script}\n")

    def change(self, *lines: str) -> None:
        """Add lines to the unit's section [Service], until the test ends."""
        folder = self.container.root / f"{UNITS[1:]}/demo.service.d"
        folder.mkdir(exist_ok=True)
        (folder / "test.conf").write_text("\n".join(["[Service]", *lines, ""]))
        self.systemctl("daemon-reload")

    def be_patient(self) -> None:
        """Let a client of a stopping server send later than a second after its connection."""
        folder = self.container.root / "run/patience"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(
            "from simpleipc_cli.server import context\n\ncontext.DRAIN_IDLE_TIMEOUT = 3600.0\n"
        )
        self.change("Environment=PYTHONPATH=/run/patience")

    def journal(self, *options: str) -> list[str]:
        """The lines of the service in the journal, since it was last started."""
        self.container.run("journalctl", "--sync")
        run = f"_SYSTEMD_INVOCATION_ID={self.show('InvocationID')}"
        command = ["journalctl", "-u", "demo.service", "-o", "cat", *options, run]
        return self.container.run(*command).stdout.splitlines()


def boot(log: Path, *options: str) -> Container:
    """Start a container; skip the test if the system allows none."""
    if os.geteuid() != 0:
        pytest.skip("boots a container: root")
    if shutil.which("systemd-nspawn") is None:
        pytest.skip("boots a container: apt-get install systemd-container")
    got = subprocess.run([HERE / "get-root", "--found"], stdout=subprocess.PIPE, text=True)
    if got.returncode:
        pytest.skip("no root file system for a container: run tests/systemd/get-root")
    return Container(got.stdout.strip(), log, *options)


@pytest.fixture(scope="session")
def container(tmp_path_factory):
    """One container for all tests, with the checkout installed; removed at the end."""
    folder = tmp_path_factory.mktemp("systemd")
    wheels = folder / "wheels"
    wheels.mkdir()
    with ExitStack() as stack:
        try:
            starting = boot(folder / "log", f"--bind-ro={wheels}:/wheels")
            container = stack.enter_context(starting)
        except AssertionError as why:
            pytest.skip(f"no container boots here: {why}")
        wheel = ["-m", "pip", "wheel", "-q", "--no-build-isolation", "-w", wheels, ROOT]
        subprocess.run([sys.executable, *wheel], check=True)
        pip = ["/opt/sipc/bin/pip", "install", "-q", "--no-index", "--find-links", "/wheels"]
        container.run(*pip, "simpleipc-cli")
        yield container


@pytest.fixture
def service(container):
    """The README's service, made and installed as the README says, not yet started."""
    service = ServeRuntime(container)
    since = f"--since=@{time()}"
    recipe = f"set -eu; cd {HOME}\n{HANDLER}{RECIPE}"
    done = container.run("runuser", "-u", "demo", "--", "bash", "-c", recipe)
    assert (done.stdout, done.stderr) == ("", "")
    container.run("sh", "-c", f"cp {HOME}/demo.socket {HOME}/demo.service {UNITS}")
    service.systemctl("enable", "--now", "demo.socket")
    yield service
    # Shown if the test fails.
    print(container.run("journalctl", "-u", "demo.service", since).stdout)  # noqa: T201
    service.systemctl("stop", "demo.socket", "demo.service")
    service.systemctl("reset-failed")  # also the count of starts, which are limited
    container.run("sh", "-c", f"rm -r {UNITS}/demo.* {UNITS}/sockets.target.wants/demo.socket")


@pytest.fixture
def service_for_each(container):
    """The README's service for each connection, in the container; its handler fails if asked."""
    script = 'echo "got $(cat)"; [ ! -e /run/fail ]'
    handler = f"printf '#!/bin/sh\\n%s\\n' '{script}' >handler.sh; chmod +x handler.sh"
    recipe = f"set -eu; cd {HOME}\n{handler}\n{EACH}"
    done = container.run("runuser", "-u", "demo", "--", "bash", "-c", recipe)
    assert (done.stdout, done.stderr) == ("", "")
    container.run("sh", "-c", f"cp {HOME}/each.socket {HOME}/each@.service {UNITS}")
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "start", "each.socket")
    yield container
    container.run("systemctl", "stop", "each.socket")
    container.run("systemctl", "reset-failed")
    container.run("sh", "-c", f"rm -f {UNITS}/each* /run/fail")


@pytest.fixture
def another_container(container, tmp_path):
    """A container that runs at the same time as the one for all tests."""
    with boot(tmp_path / "log") as another:
        yield another
