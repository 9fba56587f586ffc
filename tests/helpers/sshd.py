"""A real sshd on loopback, and a configuration with which `ssh` finds it as `server`."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import threading
from pathlib import Path

from helpers.waiting import TIMEOUT

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


class Sshd:
    """Listens by itself, and starts an `sshd -i` for each connection, as inetd would.

    So another program cannot take the port before sshd does.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.client_config = folder / "ssh_config"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Sshd:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's service makes it otherwise
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._folder / name]
            subprocess.run(command, check=True)
        (self._folder / "authorized").write_text((self._folder / "user.pub").read_text())
        (self._folder / "sshd_config").write_text(
            f"HostKey {self._folder}/host\n"
            f"AuthorizedKeysFile {self._folder}/authorized\n"
            "StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n"
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.client_config.write_text(
            "Host server\n"
            f"HostName 127.0.0.1\nPort {self._listener.getsockname()[1]}\n"
            f"User {pwd.getpwuid(os.getuid()).pw_name}\nIdentityFile {self._folder}/user\n"
            f"IdentitiesOnly yes\nUserKnownHostsFile {self._folder}/known\n"
            "StrictHostKeyChecking accept-new\nLogLevel ERROR\n"
        )
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def force(self, command: str) -> None:
        """Make each login run this command only."""
        key = (self._folder / "user.pub").read_text()
        (self._folder / "authorized").write_text(f'command="{command}" {key}')

    def _serve(self) -> None:
        command = [SSHD, "-i", "-f", self._folder / "sshd_config"]
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # shut down: it is over
            with connection:
                streams = {"stdin": connection, "stdout": connection}
                self._processes.append(
                    subprocess.Popen(command, **streams, stderr=subprocess.DEVNULL)
                )

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for process in self._processes:
            process.terminate()
            process.wait(TIMEOUT)

    def wrapper(self, folder: Path) -> None:
        """Put an `ssh` that uses the configuration into a folder of a PATH."""
        ssh = folder / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {self.client_config} "$@"\n')
        ssh.chmod(0o755)
